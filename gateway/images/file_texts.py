"""Texts in image files, read as bytes: no pixel is decoded. Does not interpret the texts.

The files are untrusted: every length is checked against the bytes that are there, and all memory is bounded.
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
"""Key of the XMP packet: its keyword in a PNG. Source: XMP specification part 3, 1.1.5."""
COMMENT = "comment"
"""Key of a JPEG's COM segment."""

_STANDALONE = frozenset((0x01, *range(0xD0, 0xD9)))
_START_OF_SCAN, _APP1, _COM = 0xDA, 0xE1, 0xFE
_XMP_SEGMENT = b"http://ns.adobe.com/xap/1.0/\0"


def texts(data: bytes) -> dict[str, str]:
    """Texts by keyword: those of a PNG; of a JPEG or WebP those of EXIF, the XMP packet and the comment.

    Damaged texts are skipped, and so is everything after the budget (`gateway.images.file_budget`) is used up.
    """
    by_keyword: dict[str, str] = {}
    budget = Budget()
    with suppress(OverBudget):
        if data.startswith(SIGNATURE):
            exif = _png(data, by_keyword, budget)
        elif data.startswith(b"\xff\xd8"):
            exif = _jpeg(data, by_keyword, budget)
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            exif = _webp(data, by_keyword, budget)
        else:
            exif = None
        if exif is not None and len(by_keyword) < MAX_TEXTS:
            for name, text in exif_text.texts(exif, budget).items():
                by_keyword.setdefault(name, text)
    return by_keyword


# ---- PNG: specification, 11.3.3 --------------------------------------------------------------------


def _png(data: bytes, by_keyword: dict[str, str], budget: Budget) -> bytes | None:
    """Add the texts; returns the first eXIf. Of equal keywords only the first is unpacked."""
    exif = None
    for kind, body in _png_chunks(data, budget):
        if kind == b"eXIf":
            exif = body if exif is None else exif
            continue
        keyword, separator, rest = body.partition(b"\0")
        name = keyword.decode("latin-1")
        if not separator or name in by_keyword:
            continue
        if len(by_keyword) >= MAX_TEXTS:
            break
        if (text := _png_text(kind, rest, budget)) is not None:
            by_keyword[name] = text
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
    """The text of a text chunk, after its keyword."""
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


def _jpeg(data: bytes, by_keyword: dict[str, str], budget: Budget) -> bytes | None:
    """Add XMP and the comment before the pixels; returns the first EXIF block. Source: ITU T.81, B.1.1."""
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
        elif marker == _APP1 and XMP not in by_keyword and data.startswith(_XMP_SEGMENT, at + 4):
            _take(by_keyword, XMP, data[at + 4 + len(_XMP_SEGMENT) : at + 2 + size], budget)
        elif marker == _COM and COMMENT not in by_keyword and size > 2:
            _take(by_keyword, COMMENT, data[at + 4 : at + 2 + size], budget)
        at += 2 + max(2, size)
    return exif


def _webp(data: bytes, by_keyword: dict[str, str], budget: Budget) -> bytes | None:
    """Add XMP; returns the first EXIF block. Source: WebP container specification."""
    exif, at = None, 12
    while at + 8 <= len(data):
        budget.visit()
        (size,) = struct.unpack_from("<I", data, at + 4)
        if size <= MAX_TEXT_BYTES and exif is None and data.startswith(b"EXIF", at):
            exif = data[at + 8 : at + 8 + size]
        elif size <= MAX_TEXT_BYTES and XMP not in by_keyword and data.startswith(b"XMP ", at):
            _take(by_keyword, XMP, data[at + 8 : at + 8 + size], budget)
        at += 8 + size + size % 2
    return exif


def _take(by_keyword: dict[str, str], name: str, body: bytes, budget: Budget) -> None:
    budget.spend(len(body))
    by_keyword[name] = body.decode("utf-8", "replace")
