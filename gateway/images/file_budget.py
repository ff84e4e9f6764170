"""How much one file of a stranger may cost to look through, over all its parts: visits, bytes, seconds."""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass, field

PARTS = 200_000
"""Chunks, segments, sub-blocks and directory entries. A kind GIF of 20 MiB has 80,000."""
TEXT_BYTES = 4 * 1024 * 1024
"""Of texts, unpacked, those that are thrown away included."""
SECONDS = 1.0


class OverBudget(Exception):
    """The file is not looked into any further; what was found before stays."""


@dataclass(slots=True)
class Budget:
    """What is left of it; each method raises OverBudget where that is nothing."""

    parts: int = PARTS
    text_bytes: int = TEXT_BYTES
    until_s: float = field(default_factory=lambda: time.monotonic() + SECONDS)

    def visit(self) -> None:
        """One more part is looked at."""
        self.parts -= 1
        if self.parts < 0 or (self.parts % 256 == 0 and time.monotonic() > self.until_s):
            raise OverBudget

    def spend(self, count: int) -> None:
        """So many bytes of text more."""
        self.text_bytes -= count
        if self.text_bytes < 0 or time.monotonic() > self.until_s:
            raise OverBudget

    def inflated(self, packed: bytes, most_bytes: int) -> bytes | None:
        """The text unpacked; None where it is damaged or longer than `most_bytes`, which costs as much."""
        unpacker = zlib.decompressobj()
        try:
            plain = unpacker.decompress(packed, most_bytes)
        except zlib.error:
            self.spend(most_bytes)  # what was unpacked before the damage is not told
            return None
        self.spend(len(plain))
        return None if unpacker.unconsumed_tail else plain
