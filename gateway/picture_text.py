"""Texts that picture files carry, read as bytes: no pixel is decoded. Knows nothing of what the texts say.

The files come from strangers, so every length is checked against what is there, and nothing grows without bound.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from gateway.png_text import SIGNATURE

MAX_TEXT_BYTES = 256 * 1024
"""Of one text, unpacked; a longer one is left out."""
MAX_TEXTS = 64

USER_COMMENT = "UserComment"
"""Name of the EXIF text among the texts of a JPEG or WebP."""

_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
_STANDALONE = frozenset((0x01, *range(0xD0, 0xD9)))
_START_OF_SCAN = 0xDA


def texts(data: bytes) -> dict[str, str]:
    """Keyword to text of a PNG; of a JPEG or WebP EXIF's UserComment. What is damaged is left out."""
    found: dict[str, str] = {}
    for keyword, text in _all(data):
        if len(found) >= MAX_TEXTS:
            break
        found.setdefault(keyword, text)
    return found


def _all(data: bytes) -> Iterator[tuple[str, str]]:
    if data.startswith(SIGNATURE):
        yield from _png(data)
        exif = next((body for kind, body in _png_chunks(data) if kind == b"eXIf"), None)
    elif data.startswith(b"\xff\xd8"):
        exif = next((body[6:] for body in _jpeg_app1(data) if body.startswith(b"Exif\0\0")), None)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        exif = next((body for kind, body in _riff_chunks(data) if kind == b"EXIF"), None)
    else:
        exif = None
    if exif is not None and (comment := user_comment(exif.removeprefix(b"Exif\0\0"))) is not None:
        yield USER_COMMENT, comment


# ---- PNG: specification, 11.3.3 --------------------------------------------------------------------


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        kind = data[at + 4 : at + 8]
        if kind in (b"tEXt", b"zTXt", b"iTXt", b"eXIf") and size <= MAX_TEXT_BYTES:
            yield kind, data[at + 8 : at + 8 + size]
        at += 12 + size


def _png(data: bytes) -> Iterator[tuple[str, str]]:
    for kind, body in _png_chunks(data):
        keyword, separator, rest = body.partition(b"\0")
        if not separator or kind == b"eXIf":
            continue
        match kind:
            case b"tEXt":
                yield keyword.decode("latin-1"), rest.decode("latin-1")
            case b"zTXt":
                if (plain := _inflated(rest[1:])) is not None:
                    yield keyword.decode("latin-1"), plain.decode("latin-1")
            case _:
                packed, (_, _, text) = rest[:1] == b"\1", _three(rest[2:])
                body_text = _inflated(text) if packed else text
                if body_text is not None:
                    yield keyword.decode("latin-1"), body_text.decode("utf-8", "replace")


def _three(rest: bytes) -> tuple[bytes, bytes, bytes]:
    """Language, translated keyword, text."""
    language, _, after = rest.partition(b"\0")
    translated, _, text = after.partition(b"\0")
    return language, translated, text


def _inflated(packed: bytes) -> bytes | None:
    unpacker = zlib.decompressobj()
    try:
        plain = unpacker.decompress(packed, MAX_TEXT_BYTES)
    except zlib.error:
        return None
    return None if unpacker.unconsumed_tail else plain


# ---- JPEG, WebP, EXIF --------------------------------------------------------------------------------


def _jpeg_app1(data: bytes) -> Iterator[bytes]:
    """Bodies of the APP1 segments before the pixels. Source: ITU T.81, B.1.1."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == _START_OF_SCAN:
            return
        if marker == 0xFF or marker in _STANDALONE:
            at += 1 if marker == 0xFF else 2
            continue
        (size,) = struct.unpack_from(">H", data, at + 2)
        if marker == 0xE1:
            yield data[at + 4 : at + 2 + size]
        at += 2 + max(2, size)


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Source: WebP container specification."""
    at = 12
    while at + 8 <= len(data):
        (size,) = struct.unpack_from("<I", data, at + 4)
        if size <= MAX_TEXT_BYTES:
            yield data[at : at + 4], data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def user_comment(tiff: bytes) -> str | None:
    """EXIF's UserComment in a TIFF block. Source: EXIF 2.32, 4.6.5; Unicode is big-endian, as piexif writes it."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return None
    try:
        (first,) = struct.unpack_from(order + "I", tiff, 4)
        pointer = _entry(tiff, order, first, _EXIF_IFD)
        if pointer is None:
            return None
        found = _entry(tiff, order, pointer[1], _USER_COMMENT)
    except struct.error:
        return None
    if found is None:
        return None
    count, offset = found
    body = tiff[offset : offset + min(count, MAX_TEXT_BYTES)]
    match body[:8]:
        case b"UNICODE\0":
            return body[8:].decode("utf-16-be", "replace")
        case b"ASCII\0\0\0":
            return body[8:].decode("ascii", "replace")
        case _:
            return body[8:].decode("utf-8", "replace").strip("\0")


def _entry(tiff: bytes, order: str, directory: int, wanted: int) -> tuple[int, int] | None:
    """Count and value (or offset) of one entry of the directory at `directory`. Raises: struct.error."""
    (entries,) = struct.unpack_from(order + "H", tiff, directory)
    for i in range(entries):
        tag, _, count, value = struct.unpack_from(order + "HHII", tiff, directory + 2 + 12 * i)
        if tag == wanted:
            return count, value
    return None
