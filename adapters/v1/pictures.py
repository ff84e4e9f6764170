"""Finished pictures and previews in the format a client asked for. Slow: call it in a thread. Knows no protocol."""

from __future__ import annotations

import io

from PIL import Image

from adapters.v1.values import PictureFormat
from gateway.images.codec import encode
from gateway.images.png_chunks import without_text

QUALITY_MAX = {"png": 100, "jpeg": 95, "webp": 100}
"""Pillow: a JPEG above 95 grows and does not get better."""


def from_png(png: bytes, picture_format: PictureFormat, compression: int | None = None) -> bytes:
    """A stored picture without a word of its prompt (S-32). `compression` is 0, smallest, to 100, best."""
    return without_text(png) if picture_format == "png" else _encoded(png, picture_format, compression)


def from_preview(
    jpeg: bytes, size_px: tuple[int, int], picture_format: PictureFormat, compression: int | None = None
) -> bytes:
    """A small preview at the size and in the format of the picture it will become."""
    pixels = io.BytesIO()
    with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
        image.convert("RGB").resize(size_px, Image.Resampling.BICUBIC).save(pixels, "PPM")
    return _encoded(pixels.getvalue(), picture_format, compression)


def _encoded(pixels: bytes, picture_format: PictureFormat, compression: int | None) -> bytes:
    quality = min(100 if compression is None else max(1, compression), QUALITY_MAX[picture_format])
    return encode(pixels, format=picture_format, quality=quality)
