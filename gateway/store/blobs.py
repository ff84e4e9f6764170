"""Blobs: files named by a sha256, the input images that jobs name. Knows no jobs.

The sha256 is that of the bytes, or of the PNG that a smaller file stands for (`gateway.images.input_files`).
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Collection
from pathlib import Path

from gateway.disk import telling, write_atomic
from gateway.private_files import private_files, private_folder
from gateway.store.folder_health import INPUTS

HEX = frozenset("0123456789abcdef")


def name_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Blobs:
    """Files in one folder of mode 0700. Every method blocks: call it in a thread."""

    def __init__(
        self,
        folder: Path,
        date: Callable[[], float] = time.time,
        age_s: Callable[[float], float] = lambda date: time.time() - date,
    ) -> None:
        """`age_s` returns how many seconds ago a file's date was."""
        self._folder = folder
        self._date = date
        self._age_s = age_s

    def prepare(self) -> None:
        private_folder(self._folder, "The folder")
        private_files(self._folder)

    def put(self, data: bytes, name: str) -> int:
        """Write a blob, durable on return; returns the bytes stored. Of two files with one name the smaller stays.

        Raises: StorageFault.
        """
        with telling(INPUTS):
            try:
                size = (self._folder / name).stat().st_size
            except FileNotFoundError:
                size = None
            if size is None or size > len(data):
                write_atomic(self._folder, name, data, INPUTS)
                size = len(data)
            os.utime(self._folder / name, (self._date(),) * 2)  # a network disk has a clock of its own
        return size

    def size(self, name: str) -> int:
        """The size in bytes. Raises: KeyError, StorageFault."""
        with telling(INPUTS):
            try:
                return (self._folder / _checked(name)).stat().st_size
            except FileNotFoundError:
                raise KeyError(name) from None

    def sizes(self) -> dict[str, int]:
        """The sizes in bytes of all blobs, by name."""
        return {file.name: file.stat().st_size for file in self._folder.iterdir() if len(file.name) == 64}

    def get(self, name: str) -> bytes:
        """The bytes of a blob. Raises: KeyError, StorageFault."""
        with telling(INPUTS):
            try:
                return (self._folder / _checked(name)).read_bytes()
            except FileNotFoundError:
                raise KeyError(name) from None

    def are_there(self) -> bool:
        """Whether any blob is stored."""
        return next(self._folder.iterdir(), None) is not None

    def drop_unused(self, used: Collection[str], grace_s: float, most_s: float | None = None) -> int:
        """Remove unused blobs older than `grace_s`, but none older than `most_s`; returns how many."""
        unused = [(f, self._age_s(f.stat().st_mtime)) for f in self._folder.iterdir() if f.name not in used]
        gone = [f for f, age_s in unused if grace_s < age_s and (most_s is None or age_s < most_s)]
        for file in gone:
            file.unlink(missing_ok=True)
        return len(gone)


def _checked(name: str) -> str:
    """The name itself. Raises: KeyError if it is not a sha256."""
    if len(name) != 64 or not set(name) <= HEX:
        raise KeyError(name)
    return name
