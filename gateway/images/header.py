"""Headers of image files: how much work decoding will be, before a pixel is decoded. Pure; files are untrusted."""

from __future__ import annotations

import re
import struct
from contextlib import suppress

from gateway.images.exif_text import entry
from gateway.images.file_budget import Budget, OverBudget
from gateway.images.png_chunks import SIGNATURE, size_of

MOST_SCANS = 100
"""Scans of a JPEG. libjpeg writes 10 (progressive) or 18 (with four colours); its authors advise to stop at 500."""
MOST_SCANNED_PIXELS = 32 * 16_777_216
KIND_SCANS = 12
"""Pixels x scans of a JPEG, since each scan visits all pixels. A large progressive photo has so many."""
MOST_CHUNKS = 50_000
"""Chunks of a PNG or WebP, segments of a JPEG. Encoders write IDATs of 8 KiB: 2,600 in 20 MiB."""
SHORT_PIXELS = 1024 * 1024
SHORT_BYTES = 512 * 1024

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""A JPEG marker; restart markers and stuffed zeros are parts of a scan."""
_SOF = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)))
_SOS, _EOI = 0xDA, 0xD9
_STANDALONE = (0x01, 0xD8)
_ORIENTATION = 0x0112
_XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=\"|>)([1-8])")
_XMP_BYTES = 256 * 1024


class TooMuchWork(Exception):
    """The image is not decoded; the text is a sentence for the client."""


def check_work(data: bytes) -> None:
    """Refuse a file that is made to be slow. A damaged one is left for the decoder to refuse. Raises: TooMuchWork."""
    if data.startswith(b"\xff\xd8"):
        _check_jpeg(data)
    elif data.startswith(SIGNATURE):
        _check_chunks(data, len(SIGNATURE), ">I", 0, 12)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        _check_chunks(data, 12, "<I", 4, 8)


def _check_jpeg(data: bytes) -> None:
    scans, pixels, segments, at = 0, 0, 0, 2
    while (match := _MARKER.search(data, at)) is not None:
        marker, at = data[match.end() - 1], match.end()
        segments += 1
        if segments > MOST_CHUNKS:
            raise TooMuchWork("The picture has too many parts.")
        if marker == _EOI:
            return
        if marker in _STANDALONE:
            continue
        if at + 2 > len(data):
            return
        if marker in _SOF and at + 7 <= len(data):
            height, width = struct.unpack_from(">HH", data, at + 3)
            pixels = max(pixels, width * height)
        if marker == _SOS:
            scans += 1
            if scans > MOST_SCANS or (scans > KIND_SCANS and scans * pixels > MOST_SCANNED_PIXELS):
                raise TooMuchWork("The picture has too many scans; save it again as a plain JPEG.")
        at += max(2, int.from_bytes(data[at : at + 2]))


def _check_chunks(data: bytes, at: int, size: str, size_at: int, around: int) -> None:
    chunks = 0
    while at + 8 <= len(data):
        chunks += 1
        if chunks > MOST_CHUNKS:
            raise TooMuchWork("The picture has too many parts.")
        (length,) = struct.unpack_from(size, data, at + size_at)
        at += around + length + (length % 2 if around == 8 else 0)


def is_short_work(data: bytes) -> bool:
    """Whether decoding takes milliseconds, judged by PNG fields that cannot be wrong; other formats count as long."""
    if len(data) > SHORT_BYTES:
        return False
    width, height = size_of(data) or (0, 0)
    return 0 < width * height <= SHORT_PIXELS


def orientation(exif: bytes, xmp: bytes = b"") -> int:
    """Orientation 1 to 8 from EXIF, otherwise from XMP; 1 if neither has it. One directory is read, and bounded."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is not None:
        with suppress(struct.error, OverBudget):
            (first,) = struct.unpack_from(order + "I", exif, 4)
            count_and_value = entry(exif, order, first, _ORIENTATION, Budget())
            if count_and_value is not None:
                value = (
                    count_and_value[1] if order == "<" else count_and_value[1] >> 16
                )  # a SHORT is in the first two of four bytes
                value = value & 0xFFFF
                return value if 1 <= value <= 8 else 1
    match = _XMP_ORIENTATION.search(xmp[:_XMP_BYTES])
    return int(match[1]) if match else 1
