"""Bytes on disk under a sha256: input pictures that jobs name. Knows no jobs.

The sum is that of the bytes, or of the PNG that a smaller file stands for (`gateway.kept_inputs`).
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Collection
from pathlib import Path

from gateway.disk import telling
from gateway.images import write_atomic
from gateway.private import private_files, private_folder
from gateway.storage_health import INPUTS

HEX = frozenset("0123456789abcdef")


def name_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Blobs:
    """Files in one folder of mode 0700. Every method blocks: call it in a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def prepare(self) -> None:
        private_folder(self._folder, "The folder")
        private_files(self._folder)

    def put(self, data: bytes, name: str) -> int:
        """Durable on return; returns how many bytes are kept. Of two files of one name the smaller one stays.

        Raises: StorageFault.
        """
        with telling(INPUTS):
            try:
                there = (self._folder / name).stat().st_size
            except FileNotFoundError:
                there = None
            if there is None or there > len(data):
                write_atomic(self._folder, name, data, INPUTS)
                return len(data)
            os.utime(self._folder / name)
        return there

    def size(self, name: str) -> int:
        """Bytes. Raises: KeyError, StorageFault."""
        with telling(INPUTS):
            try:
                return (self._folder / _checked(name)).stat().st_size
            except FileNotFoundError:
                raise KeyError(name) from None

    def names(self) -> set[str]:
        """Of all that are there."""
        return {file.name for file in self._folder.iterdir() if len(file.name) == 64}

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

    def drop_unused(self, used: Collection[str], grace_s: float) -> int:
        """Remove what nobody names and is older than `grace_s`; returns how many."""
        old = time.time() - grace_s
        gone = [f for f in self._folder.iterdir() if f.name not in used and f.stat().st_mtime < old]
        for file in gone:
            file.unlink(missing_ok=True)
        return len(gone)


def _checked(name: str) -> str:
    """Raises: KeyError."""
    if len(name) != 64 or not set(name) <= HEX:
        raise KeyError(name)
    return name
