"""Bytes on disk under their sha256: input pictures that jobs name. Knows no jobs."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Collection
from pathlib import Path

from gateway.images import write_atomic

HEX = frozenset("0123456789abcdef")


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
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def put(self, data: bytes) -> str:
        """Durable on return; returns the name. Bytes stored before are only marked as fresh."""
        name = hashlib.sha256(data).hexdigest()
        if not (self._folder / name).exists():
            write_atomic(self._folder, name, data)
        os.utime(self._folder / name, (self._date(),) * 2)  # a network disk goes by a clock of its own
        return name

    def get(self, name: str) -> bytes:
        """Raises: KeyError."""
        if len(name) != 64 or not set(name) <= HEX:
            raise KeyError(name)
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            raise KeyError(name) from None

    def drop_unused(self, used: Collection[str], grace_s: float, most_s: float | None = None) -> int:
        """Remove what nobody names and is older than `grace_s`, but no older than `most_s`; returns how many."""
        unused = [(f, self._age_s(f.stat().st_mtime)) for f in self._folder.iterdir() if f.name not in used]
        gone = [f for f, age_s in unused if grace_s < age_s and (most_s is None or age_s < most_s)]
        for file in gone:
            file.unlink(missing_ok=True)
        return len(gone)
