"""The comment of a GIF file, read without decoding pixels. Pure; the file is untrusted.

Source: GIF89a specification, 17 to 24.
"""

from __future__ import annotations

from contextlib import suppress

from gateway.clean_text import whole
from gateway.images.file_budget import Budget, OverBudget
from gateway.images.file_texts import MAX_TEXT_BYTES

SIGNATURES = (b"GIF87a", b"GIF89a")
BLOCKS_MOST = 200_000
"""The most blocks that are read: the pixels of 20 MiB take half as many, of 255 bytes each."""
_HEADER_BYTES = 13
_COMMENT = 0xFE


def is_gif(data: bytes) -> bool:
    return data[:6] in SIGNATURES and len(data) >= _HEADER_BYTES


def comment(data: bytes) -> str | None:
    """The first comment; None where there is none, it is too long, or it comes after too many blocks."""
    with suppress(OverBudget):
        return _comment(data, Budget())
    return None


def _comment(data: bytes, budget: Budget) -> str | None:
    at = _HEADER_BYTES + _table_bytes(data[10])
    while at + 1 < len(data):
        budget.visit()
        match data[at]:
            case 0x21 if data[at + 1] == _COMMENT:
                text = _text(data, at + 2, budget)
                return None if text is None else whole(text.decode("utf-8", "ignore"))
            case 0x21:
                at = _end(data, at + 2, budget)
            case 0x2C if at + 9 < len(data):
                at = _end(data, at + 11 + _table_bytes(data[at + 9]), budget)
            case _:
                return None
    return None


def _table_bytes(packed: int) -> int:
    """Bytes of the colour table that a packed field declares."""
    return 3 * 2 ** ((packed & 7) + 1) if packed & 0x80 else 0


def _text(data: bytes, at: int, budget: Budget) -> bytes | None:
    """The joined sub-blocks at `at`; None where they are too long."""
    text = bytearray()
    while at < len(data) and data[at]:
        budget.visit()
        text += data[at + 1 : at + 1 + data[at]]
        if len(text) > MAX_TEXT_BYTES:
            return None
        at += 1 + data[at]
    return bytes(text)


def _end(data: bytes, at: int, budget: Budget) -> int:
    """The offset behind the sub-blocks at `at`."""
    while at < len(data) and data[at]:
        budget.visit()
        at += 1 + data[at]
    return at + 1
