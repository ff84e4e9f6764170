"""Texts hidden in the lowest bits of an image's pixels, as by NovelAI and by "stealth pnginfo" for A1111.

The pixels come from a PNG that the decoder made: no client's file is opened here. Bits are read column by column, from
the alpha channel or from red, green and blue: a name of 15 bytes, the number of following bits in four bytes, the text.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from gateway.clean_text import whole
from gateway.images.codec import opened
from gateway.images.foreign.values import json_object
from gateway.images.infotext import PNG_KEYWORD
from gateway.images.png_chunks import SIGNATURE

if TYPE_CHECKING:
    from PIL import Image

NAMES: Mapping[bytes, tuple[str, bool]] = {
    b"stealth_pnginfo": ("alpha", False),
    b"stealth_pngcomp": ("alpha", True),
    b"stealth_rgbinfo": ("rgb", False),
    b"stealth_rgbcomp": ("rgb", True),
}
"""By name: channel, and whether the text is compressed with gzip."""
NAME_BYTES, LENGTH_BYTES = 15, 4
MAX_HIDDEN_BYTES = 256 * 1024
"""Bytes of a text, packed and unpacked; a longer one is skipped."""
_LOWEST = bytes(ord("0") + (value & 1) for value in range(256))
_GZIP = 16 + zlib.MAX_WBITS


def may_hide(data: bytes) -> bool:
    """Whether a file can hold hidden bits: a colour PNG of 8 bits a channel, or a lossless WebP."""
    if data.startswith(SIGNATURE):
        return data[24:26] in (b"\x08\x02", b"\x08\x06")
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP" and (data[12:16] == b"VP8L" or b"VP8L" in data[12:65_536])


def hidden_texts(png: bytes) -> dict[str, str]:
    """Texts by keyword, like the texts in the file itself; empty if nothing is hidden."""
    image = opened(png)
    for channels in ("alpha", "rgb"):
        if channels == "alpha" and image.mode != "RGBA":
            continue
        if (text := _hidden(image, channels)) is not None:
            return _by_keyword(whole(text))
    return {}


def _by_keyword(text: str) -> dict[str, str]:
    """Texts by keyword: NovelAI hides an object of its texts, other programs A1111's text."""
    texts = json_object(text)
    if texts is None or "Comment" not in texts:
        return {PNG_KEYWORD: text}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in texts.items()}


def _hidden(image: Image.Image, channels: str) -> str | None:
    form = NAMES.get(_bits(image, channels, 0, NAME_BYTES) or b"")
    if form is None or form[0] != channels:
        return None
    length = _bits(image, channels, NAME_BYTES, LENGTH_BYTES)
    count = int.from_bytes(length or b"") // 8
    if not 0 < count <= MAX_HIDDEN_BYTES:
        return None
    body = _bits(image, channels, NAME_BYTES + LENGTH_BYTES, count)
    if body is None:
        return None
    if not form[1]:
        return body.decode("utf-8", "replace")
    unpacker = zlib.decompressobj(_GZIP)
    try:
        plain = unpacker.decompress(body, MAX_HIDDEN_BYTES)
    except zlib.error:
        return None
    return None if unpacker.unconsumed_tail else plain.decode("utf-8", "replace")


def _bits(image: Image.Image, channels: str, at: int, count: int) -> bytes | None:
    """`count` bytes from byte `at` on, from the lowest bits of the pixels; None if there are fewer."""
    from PIL import Image

    each = 1 if channels == "alpha" else 3
    first, last = at * 8, (at + count) * 8
    if last > each * image.width * image.height:
        return None
    columns = -(-last // (each * image.height))
    part = image.crop((0, 0, columns, image.height))
    part = part.getchannel("A") if channels == "alpha" else part.convert("RGB")
    digits = part.transpose(Image.Transpose.TRANSPOSE).tobytes().translate(_LOWEST)
    return int(digits[first:last], 2).to_bytes(count)
