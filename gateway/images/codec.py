"""Image codec: base64 in, PNG out, files under names made by the server. Knows no job and no protocol.

No text from a user becomes a path or a URL here, and Pillow opens images from clients only in a child process
(`gateway.images.decoder`).
"""

from __future__ import annotations

import binascii
import io
import re
import string
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gateway.errors import InvalidRequest, RemoteImagesDisabled
from gateway.files.folder import read_regular
from gateway.images.decoder import CheckedImage as CheckedImage
from gateway.images.decoder import ImageDecoder as ImageDecoder
from gateway.round_robin import ANYBODY, Share

if TYPE_CHECKING:
    from PIL import Image

MAX_IMAGE_BYTES = 50 * 1024 * 1024
"""Source: OpenAI's `images/edits`, which takes files of less than 50 MB."""

Format = Literal["png", "jpeg", "webp"]

_IMAGE_NAME = re.compile(r"[0-9a-f]{32}\.\d{1,9}\.\d{1,9}\.png")


_DATA_URL = re.compile(r"data:([^,;]{0,64})((?:;[^,;]{0,64}){0,4}),", re.IGNORECASE)
_URL = re.compile(r"[a-z][a-z0-9+.-]{0,31}://", re.IGNORECASE)
_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
_DESCRIPTION = 0x010E
_ASCII, _LONG, _UNDEFINED = 2, 4, 7
_COMMENT_BYTES = 65_000
_PIECE_CHARS = 1024 * 1024
_BLANKS = string.whitespace.encode()
_ESCAPED = {"%2B": "+", "%2F": "/", "%3D": "=", "%0D": "", "%0A": "", "%20": ""}
"""Percent-encoded characters that base64 in a URL may hold (RFC 2397)."""


def base64_image(text: str, param: str = "image") -> bytes:
    """The bytes of an image sent as base64 or as a data URL; white space and missing padding are accepted.

    Raises: InvalidRequest, RemoteImagesDisabled.
    """
    start, begin = text[:512].lstrip(), 0
    if match := _DATA_URL.match(start):
        if not match[2].lower().endswith(";base64"):  # its media type is ignored: the bytes decide
            raise InvalidRequest("A data URL must be base64.", param=param)
        begin = len(text[:512]) - len(start) + match.end()
    elif _URL.match(start):
        raise RemoteImagesDisabled(param=param)
    if (len(text) - begin) // 4 * 3 > MAX_IMAGE_BYTES * 1.1:  # 10 % more for line ends
        raise _too_many_bytes((len(text) - begin) // 4 * 3, param)
    try:
        data = _decode_base64(text, begin)
    except (binascii.Error, ValueError):
        raise InvalidRequest("The picture is not valid base64.", param=param) from None
    if not data:
        raise InvalidRequest("The picture is empty.", param=param)
    if len(data) > MAX_IMAGE_BYTES:
        raise _too_many_bytes(len(data), param)
    return data


def _too_many_bytes(count: int, param: str) -> InvalidRequest:
    return InvalidRequest(f"A picture may have at most {MAX_IMAGE_BYTES} bytes; this one has {count}.", param=param)


def _decode_base64(text: str, begin: int) -> bytes:
    """The bytes of the base64 after `begin`, decoded in pieces, so that neither text nor bytes are in memory twice.

    Raises: binascii.Error, ValueError.
    """
    decoded, rest, ending = io.BytesIO(), "", ""
    for raw in _pieces(text, begin):
        # split() would make a list forty times as large of a text of single letters
        piece = raw.encode("ascii").translate(None, _BLANKS).decode()
        bare = piece.rstrip("=")
        if "=" in bare or (ending and bare):
            raise binascii.Error
        ending += piece[len(bare) :]
        if len(ending) > 2:
            raise binascii.Error
        rest += bare
        whole = len(rest) // 4 * 4
        decoded.write(binascii.a2b_base64(rest[:whole], strict_mode=True))
        rest = rest[whole:]
    if rest:
        decoded.write(binascii.a2b_base64(rest + "=" * (-len(rest) % 4), strict_mode=True))
    return decoded.getvalue()  # shares the buffer, no copy


def _pieces(text: str, begin: int) -> Iterator[str]:
    """The text after `begin` in pieces; in a data URL percent-encoding is decoded, and no escape is cut in two."""
    is_url = begin > 0 and text.find("%", begin) >= 0
    while begin < len(text):
        end = begin + _PIECE_CHARS
        if is_url and end < len(text) and (cut := text.rfind("%", end - 2, end)) > begin:
            end = cut
        piece, begin = text[begin:end], end
        if is_url:
            for escape, char in _ESCAPED.items():
                piece = piece.replace(escape, char).replace(escape.lower(), char)
        yield piece


async def check_image(data: bytes, decoder: ImageDecoder, param: str = "image", share: Share = ANYBODY) -> CheckedImage:
    """A client's image, decoded; its format is recognised from its bytes.

    `share`: whose turn the decoding takes. Raises: InvalidRequest, TooManyFiles, Unavailable.
    """
    if not data:
        raise InvalidRequest("The picture is empty.", param=param)
    if len(data) > MAX_IMAGE_BYTES:
        raise _too_many_bytes(len(data), param)
    return await decoder.check(data, param, share)


# ---- the gateway's own images --------------------------------------------------------------------


def encode(
    pixels: bytes | Path,
    *,
    format: Format = "png",
    quality: int = 90,
    text: str | None = None,
    description: str | None = None,
    max_px: int | None = None,
) -> bytes:
    """An image file for a client, from the gateway's own PPM or PNG; blocks for tens of milliseconds: use a thread.

    `quality` is 1 to 100, for JPEG and WebP. `text` is written where AUTOMATIC1111's clients read it: into the PNG
    chunk `parameters`, or into EXIF's UserComment, and `description`, which is ASCII, into EXIF's ImageDescription.
    `max_px` bounds the longer edge.
    """
    from PIL import Image, PngImagePlugin

    data = pixels.read_bytes() if isinstance(pixels, Path) else pixels
    out = io.BytesIO()
    with Image.open(io.BytesIO(data), formats=("PPM", "PNG")) as image:
        image.load()
        image.info = {}
        if max_px is not None:
            image.thumbnail((max_px, max_px), Image.Resampling.LANCZOS)
        if format == "png":
            chunks = PngImagePlugin.PngInfo()
            if text is not None:
                chunks.add_text("parameters", text)
            image.save(out, "PNG", compress_level=1, pnginfo=chunks)
        else:
            flat = image.convert("RGB") if format == "jpeg" else image
            exif = b"" if text is None else _exif(text, description or "")
            flat.save(out, format.upper(), quality=quality, exif=exif)
    return out.getvalue()


def opened(png: bytes) -> Image.Image:
    """The image of a PNG made by the decoder or the engine, its pixels loaded."""
    from PIL import Image

    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        image.load()
        return image


def to_png(image: Image.Image) -> bytes:
    """The image as a PNG, weakly compressed for speed."""
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()


def _exif(text: str, description: str) -> bytes:
    """EXIF block with UserComment and, unless it is empty, ImageDescription.

    UserComment has the type UNDEFINED; some readers skip one of type BYTE, as Pillow writes it. A JPEG segment ends at
    64 KiB: a text that is too long for it in UTF-16 is written in ASCII, or else cut.
    Source: EXIF 2.32, 4.6.5; TIFF 6.0, section 2.
    """
    description_bytes = description.encode("ascii") + b"\0" if description else b""
    room = _COMMENT_BYTES - len(description_bytes)
    comment = b"UNICODE\0" + text.encode("utf-16-be", "replace")
    if len(comment) > room and text.isascii():
        comment = b"ASCII\0\0\0" + text.encode("ascii")
    comment = comment[:room]
    entries = 2 if description_bytes else 1
    second_at = 8 + 2 + 12 * entries + 4
    comment_at = second_at + 2 + 12 + 4
    description_at = comment_at + len(comment)
    first = struct.pack(">H", entries)
    if description_bytes:
        first += struct.pack(">HHII", _DESCRIPTION, _ASCII, len(description_bytes), description_at)
    first += struct.pack(">HHIII", _EXIF_IFD, _LONG, 1, second_at, 0)
    second = struct.pack(">HHHIII", 1, _USER_COMMENT, _UNDEFINED, len(comment), comment_at, 0)
    return b"Exif\0\0MM\0*" + struct.pack(">I", 8) + first + second + comment + description_bytes


def open_image(folder: Path, name: str) -> bytes | None:
    """The bytes of an image by its server-made name; None for other names and other kinds of files (S-33). Blocks."""
    if not _IMAGE_NAME.fullmatch(name):
        return None
    return read_regular(folder, name)
