"""Texts that picture files carry, read as bytes: no pixel is decoded. Knows nothing of what the texts say.

The files come from strangers, so every length is checked against what is there, and nothing grows without bound.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress

from gateway.images import exif_text
from gateway.images.exif_text import MAX_TEXT_BYTES as MAX_TEXT_BYTES
from gateway.images.exif_text import USER_COMMENT as USER_COMMENT
from gateway.images.file_budget import Budget, OverBudget
from gateway.images.png_chunks import SIGNATURE

MAX_TEXTS = 64
XMP = "XML:com.adobe.xmp"
"""Name of the XMP packet: the keyword that it has in a PNG. Source: XMP specification part 3, 1.1.5."""
COMMENT = "comment"
"""Name of a JPEG's COM segment."""

_STANDALONE = frozenset((0x01, *range(0xD0, 0xD9)))
_START_OF_SCAN, _APP1, _COM = 0xDA, 0xE1, 0xFE
_XMP_SEGMENT = b"http://ns.adobe.com/xap/1.0/\0"


def texts(data: bytes) -> dict[str, str]:
    """Keyword to text of a PNG; of a JPEG or WebP those of EXIF, the XMP packet and the comment.

    What is damaged is left out, and so is what comes after the file has cost as much as `gateway.images.file_budget`
    allows.
    """
    found: dict[str, str] = {}
    budget = Budget()
    with suppress(OverBudget):
        if data.startswith(SIGNATURE):
            exif = _png(data, found, budget)
        elif data.startswith(b"\xff\xd8"):
            exif = _jpeg(data, found, budget)
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            exif = _webp(data, found, budget)
        else:
            exif = None
        if exif is not None and len(found) < MAX_TEXTS:
            for name, text in exif_text.texts(exif, budget).items():
                found.setdefault(name, text)
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


# ---- JPEG, WebP ---------------------------------------------------------------------------------------


def _jpeg(data: bytes, found: dict[str, str], budget: Budget) -> bytes | None:
    """Put XMP and the comment before the pixels into `found`; returns the first EXIF block. Source: ITU T.81, B.1.1."""
    exif, at = None, 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        budget.visit()
        marker = data[at + 1]
        if marker == _START_OF_SCAN:
            break
        if marker == 0xFF or marker in _STANDALONE:
            at += 1 if marker == 0xFF else 2
            continue
        (size,) = struct.unpack_from(">H", data, at + 2)
        if marker == _APP1 and exif is None and data.startswith(b"Exif\0\0", at + 4):
            exif = data[at + 10 : at + 2 + size]
        elif marker == _APP1 and XMP not in found and data.startswith(_XMP_SEGMENT, at + 4):
            _take(found, XMP, data[at + 4 + len(_XMP_SEGMENT) : at + 2 + size], budget)
        elif marker == _COM and COMMENT not in found and size > 2:
            _take(found, COMMENT, data[at + 4 : at + 2 + size], budget)
        at += 2 + max(2, size)
    return exif


def _webp(data: bytes, found: dict[str, str], budget: Budget) -> bytes | None:
    """Put XMP into `found`; returns the first EXIF block. Source: WebP container specification."""
    exif, at = None, 12
    while at + 8 <= len(data):
        budget.visit()
        (size,) = struct.unpack_from("<I", data, at + 4)
        if size <= MAX_TEXT_BYTES and exif is None and data.startswith(b"EXIF", at):
            exif = data[at + 8 : at + 8 + size]
        elif size <= MAX_TEXT_BYTES and XMP not in found and data.startswith(b"XMP ", at):
            _take(found, XMP, data[at + 8 : at + 8 + size], budget)
        at += 8 + size + size % 2
    return exif


def _take(found: dict[str, str], name: str, body: bytes, budget: Budget) -> None:
    budget.spend(len(body))
    found[name] = body.decode("utf-8", "replace")
