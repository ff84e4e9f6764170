"""Texts in an EXIF block, read as bytes from the TIFF directories in it. Does not interpret the texts.

Source: EXIF 2.32, 4.6; TIFF 6.0, section 2. The block is untrusted: each entry read counts as a visit of the budget.
"""

from __future__ import annotations

import struct
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator, Mapping
from contextlib import suppress

from gateway.images.file_budget import Budget

MAX_TEXT_BYTES = 256 * 1024
"""Bytes of one unpacked text; a longer one is skipped."""
USER_COMMENT = "UserComment"
"""Key of the EXIF UserComment among the texts of a JPEG or WebP."""
ASCII_TEXTS: Mapping[int, str] = {0x010E: "ImageDescription", 0x010F: "Make", 0x0110: "Model"}
"""EXIF tags in which ComfyUI and its nodes save their texts in WebP: `prompt:` and `workflow:`."""

_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
_INLINE_BYTES = 4
_TYPE_BYTES = {1: 1, 2: 1, 7: 1}
"""Bytes per value of the types of texts: BYTE, ASCII, UNDEFINED."""
_CODE_BYTES = 8
_SAMPLE_BYTES = 8192
"""Bytes by which the byte order of UTF-16 is guessed."""
_ASCII_UNITS = frozenset((9, 10, 13, *range(32, 127)))


def texts(exif: bytes, budget: Budget) -> dict[str, str]:
    """UserComment, and the ASCII texts of the first directory; damaged ones are skipped. Raises: OverBudget."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    by_keyword: dict[str, str] = {}
    if order is None:
        return by_keyword
    with suppress(struct.error):
        (first,) = struct.unpack_from(order + "I", tiff, 4)
        pointer = entry(tiff, order, first, _EXIF_IFD, budget)
        # Fooocus writes the comment into the first directory
        for directory in (first,) if pointer is None else (pointer[1], first):
            for tag, body in _bodies(tiff, order, directory, budget):
                if tag == _USER_COMMENT:
                    by_keyword.setdefault(USER_COMMENT, comment(body, order))
                elif directory == first and tag in ASCII_TEXTS:
                    by_keyword.setdefault(ASCII_TEXTS[tag], body.decode("utf-8", "replace").rstrip("\0"))
    return by_keyword


def entry(tiff: bytes, order: str, directory: int, wanted_tag: int, budget: Budget) -> tuple[int, int] | None:
    """Count and value (or offset) of one entry of the directory at `directory`. Raises: struct.error, OverBudget."""
    (entries,) = struct.unpack_from(order + "H", tiff, directory)
    for i in range(entries):
        budget.visit()
        tag, _, count, value = struct.unpack_from(order + "HHII", tiff, directory + 2 + 12 * i)
        if tag == wanted_tag:
            return count, value
    return None


def _bodies(tiff: bytes, order: str, directory: int, budget: Budget) -> Iterator[tuple[int, bytes]]:
    """Tag and bytes of each text of the directory that is not too long. Raises: struct.error, OverBudget."""
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
    """The text of a UserComment: eight bytes that name its encoding, then the text. Many programs omit the encoding.

    `order` is that of the TIFF, `<` or `>`; it decides if UTF-16 does not show its own.
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
    """UTF-16 in its BOM's order, or else the order that gives more ASCII: piexif writes big-endian in any TIFF."""
    if b"\0" not in body.rstrip(b"\0") and (body.startswith((BOM_UTF8, b"{")) or b"Steps: " in body):
        return _bytes(body, order)  # labelled as UTF-16, but is not
    if body.startswith(BOM_UTF16_BE):
        return body[2:].decode("utf-16-be", "replace")
    if body.startswith(BOM_UTF16_LE):
        return body[2:].decode("utf-16-le", "replace")
    body = body[: len(body) // 2 * 2]
    big, little = _ascii_units(body[:_SAMPLE_BYTES], high=0), _ascii_units(body[:_SAMPLE_BYTES], high=1)
    is_big = big > little or (big == little and order == ">")
    return body.decode("utf-16-be" if is_big else "utf-16-le", "replace")


def _ascii_units(body: bytes, high: int) -> int:
    """How many 2-byte units are ASCII if the high byte is the first (0) or the second (1)."""
    pairs = zip(body[high::2], body[1 - high :: 2], strict=False)
    return sum(top == 0 and low in _ASCII_UNITS for top, low in pairs)
