"""Finished images and previews in the format a client asked for. Takes long: call it in a thread. Knows no protocol."""

from __future__ import annotations

import io

from adapters.v1.values import ImageFormat
from gateway.images.codec import encode
from gateway.images.png_chunks import without_text

MEDIA_TYPES: dict[ImageFormat, str] = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
QUALITY_MAX = {"png": 100, "jpeg": 95, "webp": 100}
"""Pillow: a JPEG above 95 grows and does not get better."""


def from_png(png: bytes, image_format: ImageFormat, compression: int | None = None) -> bytes:
    """A stored image without its prompt (S-32). `compression` is 0, smallest, to 100, best."""
    return without_text(png) if image_format == "png" else _encode(png, image_format, compression)


def from_preview(
    jpeg: bytes, size_px: tuple[int, int], image_format: ImageFormat, compression: int | None = None
) -> bytes:
    """A small preview at the size and in the format of the image it will become."""
    from PIL import Image

    pixels = io.BytesIO()
    with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
        image.convert("RGB").resize(size_px, Image.Resampling.BICUBIC).save(pixels, "PPM")
    return _encode(pixels.getvalue(), image_format, compression)


def _encode(pixels: bytes, image_format: ImageFormat, compression: int | None) -> bytes:
    quality = min(100 if compression is None else max(1, compression), QUALITY_MAX[image_format])
    return encode(pixels, format=image_format, quality=quality)
