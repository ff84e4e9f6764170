"""Bytes on disk under a sha256: input pictures that jobs name. Knows no jobs.

The sum is that of the bytes, or of the PNG that a smaller file stands for (`gateway.images.input_files`).
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Collection
from pathlib import Path

from gateway.disk import telling
from gateway.images.codec import write_atomic
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
        """`age_s` says how long ago a file's date was."""
        self._folder = folder
        self._date = date
        self._age_s = age_s

    def prepare(self) -> None:
        private_folder(self._folder, "The folder")
        private_files(self._folder)

    def put(self, data: bytes, name: str) -> int:
        """Durable on return; returns how many bytes are kept. Of two files of one name the smaller one stays.

        Raises: StorageFault.
        """
        with telling(INPUTS):
            try:
                kept = (self._folder / name).stat().st_size
            except FileNotFoundError:
                kept = None
            if kept is None or kept > len(data):
                write_atomic(self._folder, name, data, INPUTS)
                kept = len(data)
            os.utime(self._folder / name, (self._date(),) * 2)  # a network disk goes by a clock of its own
        return kept

    def size(self, name: str) -> int:
        """Bytes. Raises: KeyError, StorageFault."""
        with telling(INPUTS):
            try:
                return (self._folder / _checked(name)).stat().st_size
            except FileNotFoundError:
                raise KeyError(name) from None

    def sizes(self) -> dict[str, int]:
        """Bytes of all that are there, by name."""
        return {file.name: file.stat().st_size for file in self._folder.iterdir() if len(file.name) == 64}

    def get(self, name: str) -> bytes:
        """Raises: KeyError, StorageFault."""
        with telling(INPUTS):
            try:
                return (self._folder / _checked(name)).read_bytes()
            except FileNotFoundError:
                raise KeyError(name) from None

    def are_there(self) -> bool:
        """Whether any is stored."""
        return next(self._folder.iterdir(), None) is not None

    def drop_unused(self, used: Collection[str], grace_s: float, most_s: float | None = None) -> int:
        """Remove what nobody names and is older than `grace_s`, but no older than `most_s`; returns how many."""
        unused = [(f, self._age_s(f.stat().st_mtime)) for f in self._folder.iterdir() if f.name not in used]
        gone = [f for f, age_s in unused if grace_s < age_s and (most_s is None or age_s < most_s)]
        for file in gone:
            file.unlink(missing_ok=True)
        return len(gone)


def _checked(name: str) -> str:
    """Raises: KeyError."""
    if len(name) != 64 or not set(name) <= HEX:
        raise KeyError(name)
    return name
