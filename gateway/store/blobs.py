"""Blobs: files named by a sha256, the input images that jobs name. Knows no jobs.

The sha256 is that of the bytes, or of the PNG that a smaller file stands for (`gateway.images.input_files`).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

from gateway.files.folder import Folder
from gateway.store.folder_health import INPUTS

HEX = frozenset("0123456789abcdef")


def name_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def blob_folder(folder: Path, date: Callable[[], float] = time.time, *, is_shared: bool = False) -> Folder:
    """A folder of blobs; `date` and `is_shared` as for `Folder`."""
    return Folder(folder, place=INPUTS, setting="The folder", is_shared=is_shared, date=date)


class BlobFiles(Protocol):
    """Blobs in one place. Every method blocks: call it in a thread."""

    def prepare(self) -> None:
        """Create or check the place. Raises: as `Files.prepare`."""
        ...

    def put(self, data: bytes, name: str) -> int:
        """Write a blob, durable on return; returns the bytes stored. Of two files with one name the smaller stays.

        Raises: StorageFault.
        """
        ...

    def size(self, name: str) -> int:
        """The size in bytes. Raises: KeyError, StorageFault."""
        ...

    def sizes(self) -> dict[str, int]:
        """The sizes in bytes of all blobs, by name."""
        ...

    def get(self, name: str) -> bytes:
        """The bytes of a blob. Raises: KeyError, StorageFault."""
        ...

    def are_there(self) -> bool:
        """Whether any blob is stored."""
        ...

    def drop_unused(self, used: Collection[str], grace_s: float, most_s: float | None = None) -> int:
        """Remove unused blobs older than `grace_s`, but none older than `most_s`; returns how many."""
        ...


class Blobs:
    """Blobs in a folder of mode 0700 that only this process uses; `shared_blobs` has those of several."""

    def __init__(self, folder: Folder, age_s: Callable[[float], float] = lambda date: time.time() - date) -> None:
        """`age_s` returns how many seconds ago a file's date was."""
        self._folder = folder
        self._age_s = age_s

    def prepare(self) -> None:
        self._folder.prepare()

    def put(self, data: bytes, name: str) -> int:
        stat = self._folder.stat(name)
        if stat is None or stat.bytes > len(data):
            self._folder.put(name, data)
            return len(data)
        self._folder.touch(name)
        return stat.bytes

    def size(self, name: str) -> int:
        if (stat := self._folder.stat(checked(name))) is None:
            raise KeyError(name)
        return stat.bytes

    def sizes(self) -> dict[str, int]:
        return {name: stat.bytes for name, stat in self._folder.entries() if len(name) == 64}

    def get(self, name: str) -> bytes:
        if (data := self._folder.get(checked(name))) is None:
            raise KeyError(name)
        return data

    def are_there(self) -> bool:
        return next(self._folder.entries(), None) is not None

    def drop_unused(self, used: Collection[str], grace_s: float, most_s: float | None = None) -> int:
        unused = [(name, self._age_s(stat.made_at)) for name, stat in self._folder.entries() if name not in used]
        gone = [name for name, age_s in unused if grace_s < age_s and (most_s is None or age_s < most_s)]
        for name in gone:
            self._folder.unlink(name)
        return len(gone)


def checked(name: str) -> str:
    """The name itself. Raises: KeyError if it is not a sha256."""
    if len(name) != 64 or not set(name) <= HEX:
        raise KeyError(name)
    return name
