"""The comment of a GIF, read as bytes: no pixel is decoded. Pure; the file comes from a stranger.

Source: GIF89a specification, 17 to 24.
"""

from __future__ import annotations

from gateway.picture_text import MAX_TEXT_BYTES

SIGNATURES = (b"GIF87a", b"GIF89a")
_HEADER_BYTES = 13
_COMMENT = 0xFE


def is_gif(data: bytes) -> bool:
    return data[:6] in SIGNATURES and len(data) >= _HEADER_BYTES


def comment(data: bytes) -> str | None:
    """The first comment, None where there is none or it is too long."""
    at = _HEADER_BYTES + _table_bytes(data[10])
    while at + 1 < len(data):
        match data[at]:
            case 0x21 if data[at + 1] == _COMMENT:
                text, _ = _blocks(data, at + 2)
                return text.decode("utf-8", "ignore") if len(text) <= MAX_TEXT_BYTES else None
            case 0x21:
                _, at = _blocks(data, at + 2)
            case 0x2C if at + 9 < len(data):
                _, at = _blocks(data, at + 11 + _table_bytes(data[at + 9]))
            case _:
                return None
    return None


def _table_bytes(packed: int) -> int:
    """Bytes of the colour table that a packed field announces."""
    return 3 * 2 ** ((packed & 7) + 1) if packed & 0x80 else 0


def _blocks(data: bytes, at: int) -> tuple[bytes, int]:
    """The sub-blocks at `at` in one, and where they end."""
    pieces = []
    while at < len(data) and data[at]:
        pieces.append(data[at + 1 : at + 1 + data[at]])
        at += 1 + data[at]
    return b"".join(pieces), at + 1
