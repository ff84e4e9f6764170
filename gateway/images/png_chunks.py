"""PNG chunks as byte operations: texts added and removed, checksums verified. Decodes no pixel."""

from __future__ import annotations

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER_END = len(SIGNATURE) + 25
"""Where the IHDR chunk ends, which is always first and always of this length."""
END = b"\0\0\0\0IEND\xaeB`\x82"
"""The last chunk of every PNG."""
TEXT_KINDS = (b"tEXt", b"iTXt", b"zTXt")


def size_of(png: bytes) -> tuple[int, int] | None:
    """Width and height in pixels from the IHDR chunk; None if it is not a PNG. Source: PNG specification, 11.2.1."""
    if not png.startswith(SIGNATURE) or png[12:16] != b"IHDR" or len(png) < 24:
        return None
    return int.from_bytes(png[16:20]), int.from_bytes(png[20:24])


def with_text(png: bytes, keyword: str, text: str) -> bytes:
    """The same image with one more text chunk: tEXt for Latin-1, iTXt for other text, as Pillow writes them.

    Raises: ValueError if it is not a PNG. Source: PNG specification, 11.3.3.
    """
    if size_of(png) is None:
        raise ValueError("not a PNG")
    try:
        kind, data = b"tEXt", keyword.encode("latin-1") + b"\0" + text.encode("latin-1")
    except UnicodeEncodeError:
        # after the keyword: not compressed, method 0, no language, no translated keyword
        kind, data = b"iTXt", keyword.encode("latin-1") + b"\0\0\0\0\0" + text.encode()
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return png[:HEADER_END] + chunk + png[HEADER_END:]


def without_text(png: bytes, keyword: str | None = None) -> bytes:
    """The same image without text chunks, or without those of one keyword.

    Raises: ValueError if it is not a PNG. Source: PNG specification, 5.3.
    """
    if not png.startswith(SIGNATURE):
        raise ValueError("not a PNG")
    begin = b"" if keyword is None else keyword.encode("latin-1") + b"\0"
    chunks, at = [SIGNATURE], len(SIGNATURE)
    while at < len(png):
        end = at + 12 + int.from_bytes(png[at : at + 4], "big")
        if png[at + 4 : at + 8] not in TEXT_KINDS or not png.startswith(begin, at + 8):
            chunks.append(png[at:end])
        at = end
    return b"".join(chunks)


def is_whole(png: bytes) -> bool:
    """Whether every chunk up to IEND is there, with the right checksum, and nothing follows.

    Source: PNG specification, 5.3 and 5.5.
    """
    if not png.startswith(SIGNATURE):
        return False
    view, at = memoryview(png), len(SIGNATURE)
    while at + 12 <= len(png):
        end = at + 12 + int.from_bytes(view[at : at + 4], "big")
        if end > len(png) or zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            return False
        if png[at + 4 : at + 8] == b"IEND":
            return end == len(png)
        at = end
    return False
