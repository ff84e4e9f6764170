"""Metadata stripping: a file with only what its pixels need, without EXIF, XMP, ICC, comments, thumbnails, more frames.

Pure bytes: no pixel is decoded. Files are untrusted: every length is checked against the bytes that are there, and a
file that is not fully understood is not stripped (None). Of its EXIF only the orientation is written again.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

from gateway.images.png_chunks import END, SIGNATURE

_ORIENTATION = 0x0112
_SHORT = 3
_UPRIGHT = 1


def stripped(data: bytes, orientation: int) -> bytes | None:
    """The same pixels in a new file with this EXIF orientation (1 to 8); None if it cannot be stripped."""
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data, orientation)
    if data.startswith(SIGNATURE):
        return _png(data, orientation)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data, orientation)
    return None


def says_more_behind_its_pixels(data: bytes) -> bool:
    """Whether a PNG has chunks after its pixels, which Pillow reads only together with them."""
    if not data.startswith(SIGNATURE):
        return False
    kinds = [kind for kind, _ in _png_chunks(data)]
    return b"IDAT" in kinds and bool(set(kinds[kinds.index(b"IDAT") :]) - {b"IDAT", b"IEND"})


def _tiff(orientation: int) -> bytes:
    """A TIFF block of one directory with one entry. Source: TIFF 6.0, section 2."""
    return b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, _ORIENTATION, _SHORT, 1, orientation, 0, 0)


# ---- JPEG: ITU T.81, annex B ------------------------------------------------------------------------

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""A JPEG marker; restart markers and stuffed zeros are parts of a scan, other bytes between segments are skipped."""
_SOF = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)))
_DHT, _DAC, _EOI, _SOS, _DQT, _DRI, _COM, _TEM = 0xC4, 0xCC, 0xD9, 0xDA, 0xDB, 0xDD, 0xFE, 0x01
_NEEDED = _SOF | {_DHT, _DAC, _DQT, _DRI}
_APP0, _APP14 = 0xE0, 0xEE
_LEFT_OUT = frozenset((*range(0xE0, 0xF0), _COM))
_JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"
"""JFIF segment of version 1.1, without density and thumbnail. Its presence means that the colours are YCbCr."""


def _jpeg(data: bytes, orientation: int) -> bytes | None:
    """A JPEG. JFIF and Adobe segments are written again: from them libjpeg knows what the components are."""
    segments: list[bytes] = []
    jfif, adobe, has_scan, at = b"", b"", False, 2
    while (match := _MARKER.search(data, at)) is not None:
        marker, at = data[match.end() - 1], match.end()
        if marker == _EOI:
            exif = b"" if orientation == _UPRIGHT else b"\xff\xe1\0\x22Exif\0\0" + _tiff(orientation)
            return b"".join((b"\xff\xd8", jfif, exif, adobe, *segments, b"\xff\xd9")) if has_scan else None
        if marker == _TEM:
            continue
        end = at + int.from_bytes(data[at : at + 2])
        body = data[at + 2 : end]
        if end < at + 2 or end > len(data) or marker not in _NEEDED | _LEFT_OUT | {_SOS}:
            return None
        if marker == _SOS:
            after = _MARKER.search(data, end)
            if after is None:
                return None
            has_scan, end = True, after.start()
        if marker not in _LEFT_OUT:
            segments.append(data[match.start() : end])
        elif not has_scan and marker == _APP0 and body.startswith(b"JFIF\0") and len(body) >= 14:
            jfif = _JFIF
        elif not has_scan and marker == _APP14 and body.startswith(b"Adobe") and len(body) >= 12:
            adobe = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + body[11:12]
        at = end
    return None


# ---- PNG: specification, 5 and 11 -------------------------------------------------------------------

_PNG_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"acTL", b"fcTL")
"""Chunks that are kept. The last two mark an animation; Pillow decodes one with a single frame by them, too."""
_FRAME = b"fdAT"


def _png(data: bytes, orientation: int) -> bytes | None:
    chunks, kinds = [SIGNATURE], list[bytes]()
    for kind, chunk in _png_chunks(data):
        if kind == b"IEND":
            break
        is_needed = kind in _PNG_NEEDED
        if len(chunk) < 12 or kind == _FRAME or (kind[:1].isupper() and not is_needed):
            return None
        if kind == b"IDAT" and kind in kinds and kinds[-1] != kind:
            return None
        kinds.append(kind)
        if is_needed:
            chunks.append(chunk)
    if kinds[:1] != [b"IHDR"] or b"IDAT" not in kinds:
        return None
    if orientation != _UPRIGHT:
        body = b"eXIf" + _tiff(orientation)
        chunks.insert(2, struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)))
    return b"".join((*chunks, END))


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and complete chunk; a truncated one is empty."""
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        yield data[at + 4 : at + 8], data[at:end] if end <= len(data) else b""
        at = end


# ---- WebP: container specification ------------------------------------------------------------------

_ALPHA, _EXIF, _ANIMATED = 0x10, 0x08, 0x02
_PIXELS = ([b"VP8 "], [b"VP8L"], [b"ALPH", b"VP8 "])
_FRAME_HEAD = 16
_WEBP_LEFT_OUT = (b"EXIF", b"XMP ", b"ICCP")


def _webp(data: bytes, orientation: int) -> bytes | None:
    """A WebP. An animation of one frame stays one: its frame has an offset and a background of its own."""
    chunks = [(kind, body) for kind, body in _webp_chunks(data, 12) if kind not in _WEBP_LEFT_OUT]
    kinds, turned = [kind for kind, _ in chunks], orientation != _UPRIGHT
    if kinds[:1] != [b"VP8X"]:
        return _riff(chunks) if kinds in _PIXELS[:2] and all(body for _, body in chunks) and not turned else None
    (_, header), *parts = chunks
    if len(header) != 10 or not all(body for _, body in parts):
        return None
    if kinds[1:] == [b"ANIM", b"ANMF"]:
        frame = parts[1][1]
        inner = [(kind, body) for kind, body in _webp_chunks(frame, _FRAME_HEAD) if kind in (b"ALPH", b"VP8 ", b"VP8L")]
        if [kind for kind, _ in inner] not in _PIXELS or not all(body for _, body in inner) or len(parts[0][1]) != 6:
            return None
        parts[1] = (b"ANMF", frame[:_FRAME_HEAD] + _chunks(inner))
    elif kinds[1:] not in _PIXELS:
        return None
    flags = header[0] & (_ALPHA | _ANIMATED) | (_EXIF if turned else 0)
    parts.insert(0, (b"VP8X", bytes((flags, 0, 0, 0)) + header[4:]))
    return _riff([*parts, (b"EXIF", _tiff(orientation))] if turned else parts)


def _webp_chunks(data: bytes, at: int) -> Iterator[tuple[bytes, bytes]]:
    """Kind and body of the chunks up to the size that the file states; a truncated one is empty."""
    whole = min(len(data), 8 + int.from_bytes(data[4:8], "little")) if at == 12 else len(data)
    while at + 8 <= whole:
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], data[at + 8 : at + 8 + size] if at + 8 + size <= whole else b""
        at += 8 + size + size % 2


def _chunks(parts: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(kind + struct.pack("<I", len(part)) + part + bytes(len(part) % 2) for kind, part in parts)


def _riff(parts: list[tuple[bytes, bytes]]) -> bytes:
    body = _chunks(parts)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body
