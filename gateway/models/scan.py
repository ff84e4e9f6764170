"""Walk through an operator's folders: weights files, and folders with a `model_index.json`. Bounded; blocks.

Links that lead out of the folder are named and not followed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.models.listing import listing_of

DEPTH_MOST = 8
ENTRIES_MOST = 100_000
"""Entries of folders that are looked at in one walk."""
FOUND_MOST = 5_000
INDEX = "model_index.json"


@dataclass(frozen=True, slots=True)
class Found:
    """A file, or a diffusers folder. `name` is its path below the folder that was walked through, with `/`."""

    name: str
    path: Path
    size_bytes: int = 0
    changed_ns: int = 0
    is_folder: bool = False
    leads_out: bool = False
    """Whether it is a link out of the folder; nothing more is known of it then."""

    @property
    def key(self) -> str:
        """Name and version in one text: another file at this path, or another time or size of it, has another one."""
        return f"{self.path}\n{self.changed_ns}\n{self.size_bytes}"

    @property
    def stem(self) -> str:
        """Last part of its name, without a file's suffix; of a snapshot in the hub's cache that of its repository."""
        *before, last = self.name.split("/")
        if self.is_folder and len(before) > 1 and before[-1] == "snapshots" and before[-2].startswith("models--"):
            return before[-2].rpartition("--")[2]
        return last if self.is_folder else last.rpartition(".")[0] or last


def walk(root: Path, suffixes: Collection[str], *, folders: bool = False) -> Iterator[Found]:
    """Files with one of these suffixes below `root`, and diffusers folders if `folders`; sorted within each folder."""
    root = root.resolve()
    seen = found = 0
    waiting = [("", 0)]
    while waiting:
        inner, depth = waiting.pop()
        below = []
        for entry in _entries(root / inner):
            seen += 1
            if seen > ENTRIES_MOST or found == FOUND_MOST:
                return
            name = f"{inner}/{entry.name}" if inner else entry.name
            if entry.name.startswith("."):
                continue
            if (one := _found(root, name, entry, suffixes, folders=folders)) is not None:
                found += 1
                yield one
            elif depth < DEPTH_MOST and entry.is_dir(follow_symlinks=False):
                below.append((name, depth + 1))
        waiting.extend(reversed(below))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Sorted by name; none where the folder cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []


def _found(root: Path, name: str, entry: os.DirEntry[str], suffixes: Collection[str], *, folders: bool) -> Found | None:
    path = root / name
    try:
        if folders and entry.is_dir() and (path / INDEX).is_file():
            return _folder(name, path) if _is_inside(root, path, entry) else Found(name, path, leads_out=True)
        if not name.lower().endswith(tuple(suffixes)):
            return None
        status = entry.stat()
        if not stat.S_ISREG(status.st_mode):
            return None
        if not _is_inside(root, path, entry):
            return Found(name, path, leads_out=True)
        return Found(name, path, status.st_size, status.st_mtime_ns)
    except OSError:
        return None


def _is_inside(root: Path, path: Path, entry: os.DirEntry[str]) -> bool:
    return not entry.is_symlink() or path.resolve().is_relative_to(root)


def _folder(name: str, path: Path) -> Found | None:
    listing = listing_of(path)
    if listing is None:
        return None
    stamps = [stamp for file, stamp in listing.files.items() if file.endswith((".safetensors", ".json"))]
    size = sum(stamp.size for stamp in stamps)
    return Found(name, path, size, max((stamp.changed_ns for stamp in stamps), default=0), is_folder=True)
