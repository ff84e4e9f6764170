"""Finished pictures and previews in the format a client asked for. Slow: call it in a thread. Knows no protocol."""

from __future__ import annotations

import io

from PIL import Image

from adapters.v1.payloads import PictureFormat

JPEG_QUALITY_MAX = 95
"""Pillow: above it files grow and pictures do not get better."""


def from_png(png: bytes, picture_format: PictureFormat, compression: int | None = None) -> bytes:
    """A stored picture as `picture_format`; a PNG stays the very file. `compression` is 0, smallest, to 100, best."""
    if picture_format == "png":
        return png
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        return _encoded(image.convert("RGB"), picture_format, compression)


def from_preview(
    jpeg: bytes, size_px: tuple[int, int], picture_format: PictureFormat, compression: int | None = None
) -> bytes:
    """A small preview at the size and in the format of the picture it will become."""
    with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
        return _encoded(image.resize(size_px, Image.Resampling.BICUBIC), picture_format, compression)


def _encoded(image: Image.Image, picture_format: PictureFormat, compression: int | None) -> bytes:
    out = io.BytesIO()
    quality = 100 if compression is None else compression
    match picture_format:
        case "png":
            image.save(out, "PNG", compress_level=1)
        case "jpeg":
            image.save(out, "JPEG", quality=max(1, min(quality, JPEG_QUALITY_MAX)))
        case "webp":
            image.save(out, "WEBP", quality=quality, method=2)
    return out.getvalue()
