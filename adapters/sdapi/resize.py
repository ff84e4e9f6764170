"""Fits pictures to the size at which they are drawn. Pure; takes checked pictures only."""

from __future__ import annotations

from PIL import Image, ImageOps

from gateway.images.codec import opened, to_png
from gateway.jobs.resolve import SIZE_STEP_PX, Limits


def size_of(width_px: int, height_px: int, limits: Limits) -> tuple[int, int]:
    """Width and height as the core will round them.

    Raises: InvalidRequest for what the core would refuse, before a picture is scaled to it.
    """
    limits.check_side(width_px, "width")
    limits.check_side(height_px, "height")
    width, height = (px // SIZE_STEP_PX * SIZE_STEP_PX for px in (width_px, height_px))
    limits.check_area(width, height)
    return width, height


def resize(picture: Image.Image, size: tuple[int, int], resize_mode: int) -> Image.Image:
    """A picture or a mask at `size`.

    Source: A1111 1.10.1 modules/images.py resize_image; 0 stretches, 1 covers and crops, 2 fits and fills. 3 stretches
    in latent space there, and pixels here.
    """
    match resize_mode:
        case 0 | 3:
            return picture.resize(size, Image.Resampling.LANCZOS)
        case 1:
            return ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
        case _:
            return fill_as_a1111(contain(picture, *size), *size)


def on_background(picture: Image.Image, colour: str) -> Image.Image:
    """Without alpha. Source: A1111 1.10.1 `img2img_background_color`."""
    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return picture.convert("RGB")
    rgba = picture.convert("RGBA")
    flat = Image.new("RGB", rgba.size, colour)
    flat.paste(rgba, mask=rgba.getchannel("A"))
    return flat


def as_rgb(mask: bytes) -> bytes:
    return to_png(opened(mask).convert("RGB"))


def cut_out(picture: bytes, mask: bytes) -> bytes:
    """What of the picture lies where the mask is white; the rest is transparent."""
    whole, shape = opened(picture).convert("RGBA"), opened(mask).convert("L")
    if shape.size != whole.size:
        shape = contain(shape, *whole.size)
    clear = Image.new("RGBa", whole.size)
    return to_png(Image.composite(whole.convert("RGBa"), clear, shape).convert("RGBA"))


def contain(picture: Image.Image, width: int, height: int) -> Image.Image:
    """The whole picture, as large as fits; at least one pixel each way, however thin it is."""
    scale = min(width / picture.width, height / picture.height)
    size = (min(width, max(1, round(picture.width * scale))), min(height, max(1, round(picture.height * scale))))
    return picture.resize(size, Image.Resampling.LANCZOS)


def fill_as_a1111(picture: Image.Image, width: int, height: int) -> Image.Image:
    """The picture in the middle of the size; A1111 fills what it leaves free with its edge rows, stretched.

    `contain` of engine/backends/canvas.py fills the corners, too; they stay black here, as in A1111.
    """
    left, top = (width - picture.width) // 2, (height - picture.height) // 2
    right, bottom = left + picture.width, top + picture.height
    first_row, last_row = (0, 0, picture.width, 1), (0, picture.height - 1, picture.width, picture.height)
    first_column, last_column = (0, 0, 1, picture.height), (picture.width - 1, 0, picture.width, picture.height)
    result = Image.new(picture.mode, (width, height))
    for edge, box in (
        (first_row, (0, 0, width, top)),
        (last_row, (0, bottom, width, height)),
        (first_column, (0, 0, left, height)),
        (last_column, (right, 0, width, height)),
    ):
        size = (box[2] - box[0], box[3] - box[1])
        if min(size) > 0:
            result.paste(picture.resize(size, box=edge), box[:2])
    result.paste(picture, (left, top))
    return result
