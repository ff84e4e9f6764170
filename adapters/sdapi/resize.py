"""Resizing of input images to the size at which they are drawn. Pure; takes checked images only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.catalog import ModelSpec
from gateway.images.codec import opened, to_png
from gateway.jobs.resolve import SIZE_STEP_PX, Limits
from gateway.jobs.resolve_sampling import is_sampled

if TYPE_CHECKING:
    from PIL import Image


def size_of(width_px: int, height_px: int, limits: Limits, step_px: int = SIZE_STEP_PX) -> tuple[int, int]:
    """Width and height in pixels, rounded down to multiples of `step_px`, as in the core.

    Raises: InvalidRequest for a size that the core would refuse, before an image is scaled to it.
    """
    limits.check_side(width_px, "width")
    limits.check_side(height_px, "height")
    width, height = (px // step_px * step_px for px in (width_px, height_px))
    limits.check_area(width, height)
    return width, height


def step_of(spec: ModelSpec) -> int:
    """The step of sizes of an image that is sent: the model's own for Stable Diffusion, 16 for others."""
    return spec.step_px if is_sampled(spec) else SIZE_STEP_PX


def resize(image: Image.Image, size: tuple[int, int], resize_mode: int) -> Image.Image:
    """An image or a mask at `size`.

    Source: A1111 1.10.1 modules/images.py resize_image; 0 stretches, 1 covers and crops, 2 fits and fills. 3 stretches
    in latent space there, and pixels here.
    """
    from PIL import Image, ImageOps

    match resize_mode:
        case 0 | 3:
            return image.resize(size, Image.Resampling.LANCZOS)
        case 1:
            return ImageOps.fit(image, size, Image.Resampling.LANCZOS)
        case _:
            return fill_as_a1111(contain(image, *size), *size)


def on_background(image: Image.Image, colour: str) -> Image.Image:
    """The image without alpha, on a background. Source: A1111 1.10.1 `img2img_background_color`."""
    from PIL import Image

    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    flat = Image.new("RGB", rgba.size, colour)
    flat.paste(rgba, mask=rgba.getchannel("A"))
    return flat


def as_rgb(mask: bytes) -> bytes:
    return to_png(opened(mask).convert("RGB"))


def cut_out(image: bytes, mask: bytes) -> bytes:
    """The part of an image where the mask is white; the rest is transparent."""
    from PIL import Image

    whole, shape = opened(image).convert("RGBA"), opened(mask).convert("L")
    if shape.size != whole.size:
        shape = contain(shape, *whole.size)
    clear = Image.new("RGBa", whole.size)
    return to_png(Image.composite(whole.convert("RGBa"), clear, shape).convert("RGBA"))


def contain(image: Image.Image, width: int, height: int) -> Image.Image:
    """The whole image, as large as fits into the size; each side has at least one pixel."""
    from PIL import Image

    scale = min(width / image.width, height / image.height)
    size = (min(width, max(1, round(image.width * scale))), min(height, max(1, round(image.height * scale))))
    return image.resize(size, Image.Resampling.LANCZOS)


def fill_as_a1111(image: Image.Image, width: int, height: int) -> Image.Image:
    """The image in the middle of the size; the rest is filled with its stretched edge rows, as in A1111.

    `contain` of engine/drawing/canvas.py fills the corners, too; they stay black here, as in A1111.
    """
    from PIL import Image

    left, top = (width - image.width) // 2, (height - image.height) // 2
    right, bottom = left + image.width, top + image.height
    first_row, last_row = (0, 0, image.width, 1), (0, image.height - 1, image.width, image.height)
    first_column, last_column = (0, 0, 1, image.height), (image.width - 1, 0, image.width, image.height)
    result = Image.new(image.mode, (width, height))
    for edge, box in (
        (first_row, (0, 0, width, top)),
        (last_row, (0, bottom, width, height)),
        (first_column, (0, 0, left, height)),
        (last_column, (right, 0, width, height)),
    ):
        size = (box[2] - box[0], box[3] - box[1])
        if min(size) > 0:
            result.paste(image.resize(size, box=edge), box[:2])
    result.paste(image, (left, top))
    return result
