"""The comment of a GIF, read as bytes: no pixel is decoded. Pure; the file comes from a stranger.

Source: GIF89a specification, 17 to 24.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from gateway.file_text import whole
from gateway.picture_text import MAX_TEXT_BYTES

SIGNATURES = (b"GIF87a", b"GIF89a")
BLOCKS_MOST = 200_000
"""That are walked: the pixels of 20 MiB take half as many, of 255 bytes each."""
_HEADER_BYTES = 13
_COMMENT = 0xFE


def is_gif(data: bytes) -> bool:
    return data[:6] in SIGNATURES and len(data) >= _HEADER_BYTES


def comment(data: bytes) -> str | None:
    """The first comment, None where there is none or it is too long."""
    at = _HEADER_BYTES + _table_bytes(data[10])
    blocks = BLOCKS_MOST
    while at + 1 < len(data) and blocks > 0:
        match data[at]:
            case 0x21 if data[at + 1] == _COMMENT:
                text = b"".join(islice(_blocks(data, at + 2), MAX_TEXT_BYTES))
                return whole(text.decode("utf-8", "ignore")) if len(text) <= MAX_TEXT_BYTES else None
            case 0x21:
                at += 2
            case 0x2C if at + 9 < len(data):
                at += 11 + _table_bytes(data[at + 9])
            case _:
                return None
        while at < len(data) and data[at] and blocks > 0:
            at += 1 + data[at]
            blocks -= 1
        at += 1
        blocks -= 1
    return None


def _table_bytes(packed: int) -> int:
    """Bytes of the colour table that a packed field announces."""
    return 3 * 2 ** ((packed & 7) + 1) if packed & 0x80 else 0


def _blocks(data: bytes, at: int) -> Iterator[bytes]:
    """The sub-blocks at `at`."""
    while at < len(data) and data[at]:
        yield data[at + 1 : at + 1 + data[at]]
        at += 1 + data[at]
