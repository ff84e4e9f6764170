"""Budget for reading one untrusted file, over all its parts: visits, bytes, seconds."""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass, field

PARTS = 200_000
"""Chunks, segments, sub-blocks and directory entries. A harmless GIF of 20 MiB has 80,000."""
TEXT_BYTES = 4 * 1024 * 1024
"""Bytes of unpacked texts, including skipped ones."""
SECONDS = 1.0


class OverBudget(Exception):
    """The rest of the file is not read; texts found before stay."""


@dataclass(slots=True)
class Budget:
    """Remaining budget of a file; each method raises OverBudget when nothing is left."""

    parts: int = PARTS
    text_bytes: int = TEXT_BYTES
    until_s: float = field(default_factory=lambda: time.monotonic() + SECONDS)

    def visit(self) -> None:
        """Count one more part."""
        self.parts -= 1
        if self.parts < 0 or (self.parts % 256 == 0 and time.monotonic() > self.until_s):
            raise OverBudget

    def spend(self, count: int) -> None:
        """Count so many more bytes of text."""
        self.text_bytes -= count
        if self.text_bytes < 0 or time.monotonic() > self.until_s:
            raise OverBudget

    def inflated(self, packed: bytes, most_bytes: int) -> bytes | None:
        """The unpacked text; None if it is damaged or longer than `most_bytes`, which costs `most_bytes`."""
        unpacker = zlib.decompressobj()
        try:
            plain = unpacker.decompress(packed, most_bytes)
        except zlib.error:
            self.spend(most_bytes)  # how much was unpacked before the damage is unknown
            return None
        self.spend(len(plain))
        return None if unpacker.unconsumed_tail else plain
