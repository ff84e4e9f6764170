"""Listing of a model's folder: its files with their sizes, remembered until something in it changes.

A request asks several times what a folder holds. Remembered, that is one `stat` for each folder and file instead of a
walk.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.disk import TICK_NS

REMEMBERED = 64


@dataclass(frozen=True, slots=True)
class Stamp:
    """Size in bytes and modification time in ns of a file."""

    size: int
    changed_ns: int


@dataclass(frozen=True, slots=True)
class Listing:
    """Files below a folder by their relative paths; a link to nothing is not there. Links to folders are not followed,
    except for the files directly in them, `behind_links`.
    """

    files: Mapping[str, Stamp]
    behind_links: Mapping[str, Stamp]
    folders: Mapping[str, int]
    """Modification times in ns of the folder and those below it, by path."""
    listed_ns: int

    @property
    def is_current(self) -> bool:
        """Whether the folder still holds the same files."""
        if any(self.listed_ns - changed <= TICK_NS for changed in self.folders.values()):
            return False
        try:
            if any(os.stat(folder).st_mtime_ns != changed for folder, changed in self.folders.items()):
                return False
            root = next(iter(self.folders))
            files = [*self.files.items(), *self.behind_links.items()]
            return all(_stamp(os.stat(f"{root}/{name}")) == stamp for name, stamp in files)
        except OSError:
            return False


_known: OrderedDict[Path, Listing] = OrderedDict()
_lock = threading.Lock()


def listing_of(folder: Path) -> Listing | None:
    """The listing of a folder; None where there is none. Blocks: microseconds where nothing has changed."""
    with _lock:
        known = _known.get(folder)
    if known is not None and known.is_current:
        return known
    listed = _list(folder)
    with _lock:
        if listed is None:
            _known.pop(folder, None)
            return None
        _known[folder] = listed
        _known.move_to_end(folder)
        while len(_known) > REMEMBERED:
            _known.popitem(last=False)
    return listed


def transformer_weights(folder: Path, part: str = "transformer") -> list[str]:
    """The relative paths of the weights directly in `transformer`, or another part, sorted; it may be a link."""
    listing = listing_of(folder)
    names = [] if listing is None else sorted([*listing.files, *listing.behind_links])
    return [name for name in names if name.endswith(".safetensors") and name.rpartition("/")[0] == part]


def _list(folder: Path) -> Listing | None:
    """Walk through a folder. A part that cannot be read counts as empty."""
    files: dict[str, Stamp] = {}
    behind_links: dict[str, Stamp] = {}
    folders: dict[str, int] = {}
    listed_ns = time.time_ns()
    waiting = [("", files)]
    while waiting:
        inner, found = waiting.pop()
        path = os.path.join(folder, inner) if inner else str(folder)
        try:
            changed_ns = os.stat(path).st_mtime_ns
            entries = list(os.scandir(path))
        except OSError:
            if not inner:
                return None
            continue
        folders[path] = changed_ns
        for entry in entries:
            name = f"{inner}/{entry.name}" if inner else entry.name
            try:
                status = entry.stat()
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode):
                found[name] = _stamp(status)
            elif stat.S_ISDIR(status.st_mode) and found is files:
                waiting.append((name, behind_links if entry.is_symlink() else files))
    return Listing(files, behind_links, folders, listed_ns)


def _stamp(status: os.stat_result) -> Stamp:
    return Stamp(status.st_size, status.st_mtime_ns)
