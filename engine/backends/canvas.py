"""Fits pictures to sizes: the input to what a model draws at, and what it drew to what was asked. Knows no model."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image, ImageOps

from engine.backends.base import BackendError, Picture
from engine.protocol import Generate

Size = tuple[int, int]
"""Width and height in pixels."""

PREVIEW_PX = 256
"""Longest side of a preview."""


def open_input(path: str) -> Image.Image:
    """The picture at `path` as RGB, upright, transparency laid on white. Raises: BackendError("bad_input")."""
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
        if image.has_transparency_data:
            rgba = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BackendError("bad_input", "The input picture could not be read.") from error


def stretch(image: Image.Image, size: Size) -> Image.Image:
    """`image` at exactly `size`, proportions not kept."""
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def box_of(inner: Size, outer: Size) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of a picture of the proportions of `inner`, centred and as large as `outer` allows."""
    scale = min(outer[0] / inner[0], outer[1] / inner[1])
    width, height = (max(1, min(o, round(i * scale))) for i, o in zip(inner, outer, strict=True))
    left, top = (outer[0] - width) // 2, (outer[1] - height) // 2
    return left, top, left + width, top + height


def contain(image: Image.Image, size: Size) -> Image.Image:
    """`image` whole and undistorted in the middle of `size`; its edge rows and columns fill the borders."""
    left, top, right, bottom = box_of(image.size, size)
    inner = stretch(image, (right - left, bottom - top))
    if inner.size == size:
        return inner
    canvas = Image.new("RGB", size)
    canvas.paste(inner, (left, top))
    width, height = size
    for source, target in (
        ((left, top, left + 1, bottom), (0, top, left, bottom)),
        ((right - 1, top, right, bottom), (right, top, width, bottom)),
        ((0, top, width, top + 1), (0, 0, width, top)),
        ((0, bottom - 1, width, bottom), (0, bottom, width, height)),
    ):
        band = (target[2] - target[0], target[3] - target[1])
        if min(band) > 0:
            canvas.paste(canvas.crop(source).resize(band, Image.Resampling.NEAREST), target[:2])
    return canvas


def uncontain(image: Image.Image, size: Size) -> Image.Image:
    """The way back from `contain`: cuts the middle of the proportions of `size` out of `image` and scales it up."""
    return image.resize(size, Image.Resampling.LANCZOS, box=box_of(size, image.size))


@dataclass(frozen=True, slots=True)
class Frame:
    """The sizes of one picture, and what it begins from."""

    asked: Size
    drawn: Size
    """What the model draws at."""
    init: Image.Image | None = None
    """The input picture, fitted to `drawn`."""
    untouched: Image.Image | None = None
    """The whole answer, where nothing is to be drawn."""

    def finish(self, image: Image.Image) -> Image.Image:
        """What the model drew, at the size asked for."""
        if image.size == self.asked:
            return image
        return contain(image, self.asked) if self.init is None else uncontain(image, self.asked)

    def preview(self, image: Image.Image) -> bytes:
        """A small JPEG with the proportions of the finished picture; `image` is a sketch of any size."""
        scale = min(1.0, PREVIEW_PX / max(self.asked))
        small = (max(1, round(self.asked[0] * scale)), max(1, round(self.asked[1] * scale)))
        if self.asked == self.drawn:
            fitted = stretch(image, small)
        else:
            fitted = contain(image, small) if self.init is None else uncontain(image, small)
        buffer = io.BytesIO()
        fitted.save(buffer, "JPEG", quality=75)
        return buffer.getvalue()


def frame_of(plan: Generate, native_px: int | None, init_image_path: str | None) -> Frame:
    """Denoise 1 ignores the input picture, 0 keeps it. Raises: BackendError("bad_input")."""
    asked = (plan.width_px, plan.height_px)
    drawn = asked if native_px is None else (native_px, native_px)
    if init_image_path is None or plan.denoise >= 1:
        return Frame(asked, drawn)
    init = stretch(open_input(init_image_path), asked)
    if plan.denoise <= 0:
        return Frame(asked, asked, untouched=init)
    return Frame(asked, drawn, init=contain(init, drawn))


def to_picture(image: Image.Image, drawn_px: Size) -> Picture:
    return Picture(image.width, image.height, image.convert("RGB").tobytes(), drawn_px)
