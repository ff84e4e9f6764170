"""Texts in an EXIF block, read as bytes: a TIFF whose directories hold them. Knows nothing of what the texts say.

Source: EXIF 2.32, 4.6; TIFF 6.0, section 2. The block comes from a stranger: each entry read is a visit of the budget.
"""

from __future__ import annotations

import struct
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator, Mapping
from contextlib import suppress

from gateway.images.file_budget import Budget

MAX_TEXT_BYTES = 256 * 1024
"""Of one text, unpacked; a longer one is left out."""
USER_COMMENT = "UserComment"
"""Name of the EXIF text among the texts of a JPEG or WebP."""
ASCII_TEXTS: Mapping[int, str] = {0x010E: "ImageDescription", 0x010F: "Make", 0x0110: "Model"}
"""Where ComfyUI and nodes for it put their texts. Source: ComfyUI nodes that save WebP: `prompt:` and `workflow:`."""

_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
_INLINE_BYTES = 4
_TYPE_BYTES = {1: 1, 2: 1, 7: 1}
"""BYTE, ASCII, UNDEFINED: the types of texts."""
_CODE_BYTES = 8
_SAMPLE_BYTES = 8192
"""By which the order of UTF-16 is told."""
_ASCII_UNITS = frozenset((9, 10, 13, *range(32, 127)))


def texts(exif: bytes, budget: Budget) -> dict[str, str]:
    """UserComment, and the ASCII texts of the first directory; damaged ones are left out. Raises: OverBudget."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    found: dict[str, str] = {}
    if order is None:
        return found
    with suppress(struct.error):
        (first,) = struct.unpack_from(order + "I", tiff, 4)
        pointer = entry(tiff, order, first, _EXIF_IFD, budget)
        # Fooocus writes the comment into the first directory
        for directory in (first,) if pointer is None else (pointer[1], first):
            for tag, body in _bodies(tiff, order, directory, budget):
                if tag == _USER_COMMENT:
                    found.setdefault(USER_COMMENT, comment(body, order))
                elif directory == first and tag in ASCII_TEXTS:
                    found.setdefault(ASCII_TEXTS[tag], body.decode("utf-8", "replace").rstrip("\0"))
    return found


def entry(tiff: bytes, order: str, directory: int, wanted: int, budget: Budget) -> tuple[int, int] | None:
    """Count and value (or offset) of one entry of the directory at `directory`. Raises: struct.error, OverBudget."""
    (entries,) = struct.unpack_from(order + "H", tiff, directory)
    for i in range(entries):
        budget.visit()
        tag, _, count, value = struct.unpack_from(order + "HHII", tiff, directory + 2 + 12 * i)
        if tag == wanted:
            return count, value
    return None


def _bodies(tiff: bytes, order: str, directory: int, budget: Budget) -> Iterator[tuple[int, bytes]]:
    """Tag and bytes of each text of the directory but those that are too long. Raises: struct.error, OverBudget."""
    (entries,) = struct.unpack_from(order + "H", tiff, directory)
    for i in range(entries):
        budget.visit()
        at = directory + 2 + 12 * i
        tag, kind, count, offset = struct.unpack_from(order + "HHII", tiff, at)
        if (tag != _USER_COMMENT and tag not in ASCII_TEXTS) or kind not in _TYPE_BYTES or count > MAX_TEXT_BYTES:
            continue
        begin = at + 8 if count <= _INLINE_BYTES else offset
        body = tiff[begin : begin + count]
        budget.spend(len(body))
        yield tag, body


def comment(body: bytes, order: str) -> str:
    """A UserComment: eight bytes that name its code, then the text. Many programs leave the code out.

    `order` is that of the TIFF, `<` or `>`, and decides where UTF-16 does not show its own.
    """
    code, rest = body[:_CODE_BYTES], body[_CODE_BYTES:]
    match code:
        case b"UNICODE\0":
            text = _utf16(rest, order)
        case b"JIS\0\0\0\0\0":
            text = rest.decode("shift_jis", "replace")
        case b"ASCII\0\0\0" | b"\0\0\0\0\0\0\0\0":
            text = _bytes(rest, order)
        case _:
            text = _bytes(body, order)
    return text.strip("\0")


def _bytes(body: bytes, order: str) -> str:
    if body.startswith((BOM_UTF16_BE, BOM_UTF16_LE)):
        return _utf16(body, order)
    return body.removeprefix(BOM_UTF8).decode("utf-8", "replace")


def _utf16(body: bytes, order: str) -> str:
    """UTF-16 in its BOM's order, else the one that gives more ASCII: piexif writes big-endian in any TIFF."""
    if b"\0" not in body.rstrip(b"\0") and (body.startswith((BOM_UTF8, b"{")) or b"Steps: " in body):
        return _bytes(body, order)  # said to be UTF-16, and is not
    if body.startswith(BOM_UTF16_BE):
        return body[2:].decode("utf-16-be", "replace")
    if body.startswith(BOM_UTF16_LE):
        return body[2:].decode("utf-16-le", "replace")
    body = body[: len(body) // 2 * 2]
    big, little = _ascii_units(body[:_SAMPLE_BYTES], high=0), _ascii_units(body[:_SAMPLE_BYTES], high=1)
    is_big = big > little or (big == little and order == ">")
    return body.decode("utf-16-be" if is_big else "utf-16-le", "replace")


def _ascii_units(body: bytes, high: int) -> int:
    """How many units of two bytes are ASCII, the high byte being the first (0) or the second (1)."""
    pairs = zip(body[high::2], body[1 - high :: 2], strict=False)
    return sum(top == 0 and low in _ASCII_UNITS for top, low in pairs)
