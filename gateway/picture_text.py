"""Texts that picture files carry, read as bytes: no pixel is decoded. Knows nothing of what the texts say.

The files come from strangers, so every length is checked against what is there, and nothing grows without bound.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress

from gateway.file_budget import Budget, OverBudget
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
    """Keyword to text of a PNG; of a JPEG or WebP EXIF's UserComment. What is damaged is left out.

    So is what comes after the file has cost as much as `gateway.file_budget` allows.
    """
    found: dict[str, str] = {}
    budget = Budget()
    with suppress(OverBudget):
        if data.startswith(SIGNATURE):
            exif = _png(data, found, budget)
        elif data.startswith(b"\xff\xd8"):
            exif = _jpeg_exif(data, budget)
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            exif = _webp_exif(data, budget)
        else:
            exif = None
        if exif is not None and len(found) < MAX_TEXTS:
            comment = user_comment(exif.removeprefix(b"Exif\0\0"), budget)
            if comment is not None:
                found.setdefault(USER_COMMENT, comment)
    return found


# ---- PNG: specification, 11.3.3 --------------------------------------------------------------------


def _png(data: bytes, found: dict[str, str], budget: Budget) -> bytes | None:
    """Put the texts into `found`; returns the first eXIf. Of equal keywords the first counts; no other is opened."""
    exif = None
    for kind, body in _png_chunks(data, budget):
        if kind == b"eXIf":
            exif = body if exif is None else exif
            continue
        keyword, separator, rest = body.partition(b"\0")
        name = keyword.decode("latin-1")
        if not separator or name in found:
            continue
        if len(found) >= MAX_TEXTS:
            break
        if (text := _png_text(kind, rest, budget)) is not None:
            found[name] = text
    return exif


def _png_chunks(data: bytes, budget: Budget) -> Iterator[tuple[bytes, bytes]]:
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        budget.visit()
        (size,) = struct.unpack_from(">I", data, at)
        kind = data[at + 4 : at + 8]
        if kind in (b"tEXt", b"zTXt", b"iTXt", b"eXIf") and size <= MAX_TEXT_BYTES:
            budget.spend(size)
            yield kind, data[at + 8 : at + 8 + size]
        at += 12 + size


def _png_text(kind: bytes, rest: bytes, budget: Budget) -> str | None:
    """What stands behind the keyword of a text chunk."""
    match kind:
        case b"tEXt":
            return rest.decode("latin-1")
        case b"zTXt":
            plain = budget.inflated(rest[1:], MAX_TEXT_BYTES)
            return None if plain is None else plain.decode("latin-1")
        case _:
            packed, (_, _, text) = rest[:1] == b"\1", _three(rest[2:])
            body = budget.inflated(text, MAX_TEXT_BYTES) if packed else text
            return None if body is None else body.decode("utf-8", "replace")


def _three(rest: bytes) -> tuple[bytes, bytes, bytes]:
    """Language, translated keyword, text."""
    language, _, after = rest.partition(b"\0")
    translated, _, text = after.partition(b"\0")
    return language, translated, text


# ---- JPEG, WebP, EXIF --------------------------------------------------------------------------------


def _jpeg_exif(data: bytes, budget: Budget) -> bytes | None:
    """The first EXIF block before the pixels. Source: ITU T.81, B.1.1."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        budget.visit()
        marker = data[at + 1]
        if marker == _START_OF_SCAN:
            return None
        if marker == 0xFF or marker in _STANDALONE:
            at += 1 if marker == 0xFF else 2
            continue
        (size,) = struct.unpack_from(">H", data, at + 2)
        if marker == 0xE1 and data.startswith(b"Exif\0\0", at + 4):
            return data[at + 10 : at + 2 + size]
        at += 2 + max(2, size)
    return None


def _webp_exif(data: bytes, budget: Budget) -> bytes | None:
    """Source: WebP container specification."""
    at = 12
    while at + 8 <= len(data):
        budget.visit()
        (size,) = struct.unpack_from("<I", data, at + 4)
        if size <= MAX_TEXT_BYTES and data.startswith(b"EXIF", at):
            return data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    return None


def user_comment(tiff: bytes, budget: Budget) -> str | None:
    """EXIF's UserComment in a TIFF block. Source: EXIF 2.32, 4.6.5; Unicode is big-endian, as piexif writes it."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return None
    try:
        (first,) = struct.unpack_from(order + "I", tiff, 4)
        pointer = entry(tiff, order, first, _EXIF_IFD, budget)
        if pointer is None:
            return None
        found = entry(tiff, order, pointer[1], _USER_COMMENT, budget)
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


def entry(tiff: bytes, order: str, directory: int, wanted: int, budget: Budget) -> tuple[int, int] | None:
    """Count and value (or offset) of one entry of the directory at `directory`. Raises: struct.error, OverBudget."""
    (entries,) = struct.unpack_from(order + "H", tiff, directory)
    for i in range(entries):
        budget.visit()
        tag, _, count, value = struct.unpack_from(order + "HHII", tiff, directory + 2 + 12 * i)
        if tag == wanted:
            return count, value
    return None
