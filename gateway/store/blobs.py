"""Bytes on disk under their sha256: input pictures that jobs name. Knows no jobs."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Collection
from pathlib import Path

from gateway.images import write_atomic

HEX = frozenset("0123456789abcdef")


class Blobs:
    """Files in one folder of mode 0700. Every method blocks: call it in a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def prepare(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def put(self, data: bytes) -> str:
        """Durable on return; returns the name. Bytes stored before are only marked as fresh."""
        name = hashlib.sha256(data).hexdigest()
        if (self._folder / name).exists():
            os.utime(self._folder / name)
        else:
            write_atomic(self._folder, name, data)
        return name

    def get(self, name: str) -> bytes:
        """Raises: KeyError."""
        if len(name) != 64 or not set(name) <= HEX:
            raise KeyError(name)
        try:
            return (self._folder / name).read_bytes()
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
