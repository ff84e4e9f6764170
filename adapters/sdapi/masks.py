"""Inpainting: prepares an image and its mask. Pure; takes checked images only, blocks as long as Pillow does.

Source: A1111 1.10.1 modules/processing.py StableDiffusionProcessingImg2Img.init, modules/masking.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapters.sdapi.request_schemas import Img2Img
from adapters.sdapi.resize import contain, fill_as_a1111, resize
from engine.protocol import MaskContent
from gateway.errors import InvalidRequest

if TYPE_CHECKING:
    from PIL import Image

MOST_BLUR = 1024.0
MASK_CONTENT: tuple[MaskContent, ...] = ("original", "original", "noise", "nothing")
"""The mask content by `inpainting_fill`; 0 first fills the masked part with colours from around it."""
MASKED_CONTENT = ("fill", "original", "latent noise", "latent nothing")
"""The names in infotexts by `inpainting_fill`."""
SMEAR = 0
SMEARS = ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1))
"""Blur radius in pixels and number of layers, from far to near."""

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""


@dataclass(frozen=True, slots=True)
class MaskUse:
    """Options of a mask."""

    blur: tuple[float, float] = (4.0, 4.0)
    """Standard deviation in pixels, horizontal and vertical."""
    invert: bool = False
    content: int = SMEAR
    only_masked: bool = True
    padding_px: int = 0
    resize_mode: int = 0


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared inpainting: what is drawn from, and where the result is pasted; `box` may reach beyond `whole`."""

    init: Image.Image
    mask: Image.Image
    """The mask at the size of `init`: white is repainted."""
    whole: Image.Image
    overlay: Image.Image
    """The mask at the size of `whole`: the result shows where it is white."""
    box: Box


def mask_use(body: Img2Img) -> MaskUse:
    """The mask options of a body. Raises: InvalidRequest."""
    blur = (body.mask_blur_x, body.mask_blur_y) if body.mask_blur is None else (body.mask_blur, body.mask_blur)
    if max(blur) > MOST_BLUR:
        raise InvalidRequest(f"mask_blur must be at most {MOST_BLUR:g}.", param="mask_blur")
    if body.inpainting_fill not in range(len(MASK_CONTENT)):
        message = "inpainting_fill must be 0 (fill), 1 (original), 2 (latent noise) or 3 (latent nothing)."
        raise InvalidRequest(message, param="inpainting_fill")
    return MaskUse(
        blur=blur,
        invert=body.inpainting_mask_invert,
        content=body.inpainting_fill,
        only_masked=body.inpaint_full_res,
        padding_px=body.inpaint_full_res_padding,
        resize_mode=body.resize_mode,
    )


def mask_of(image: Image.Image) -> Image.Image:
    """The mask of an image, white where it is repainted: its alpha where that is not opaque, else its brightness."""
    if "A" in image.getbands():
        alpha = image.getchannel("A")
        if alpha.getextrema() != (255, 255):
            return alpha.point([255 if value > 128 else 0 for value in range(256)])
    return image.convert("L")


def prepare(image: Image.Image, mask: Image.Image, use: MaskUse, size: tuple[int, int]) -> Prepared | None:
    """The part that is drawn, at `size`; None where only the masked part is drawn and the mask is blank."""
    from PIL import Image, ImageFilter, ImageOps

    if mask.size != image.size:
        mask = mask.resize(image.size, Image.Resampling.BILINEAR)
    if use.invert:
        mask = ImageOps.invert(mask)
    if max(use.blur) > 0:
        across, down = (max(0.0, radius) for radius in use.blur)
        mask = mask.filter(ImageFilter.GaussianBlur((across, down)))
    if use.only_masked:
        masked = mask.getbbox()
        return None if masked is None else _cut_out(image, mask, use, size, masked)
    image, mask = resize(image, size, use.resize_mode), resize(mask, size, use.resize_mode)
    overlay = mask.point([min(255, 2 * value) for value in range(256)])
    return Prepared(_content(image, mask, use), mask, image, overlay, (0, 0, *size))


def _cut_out(image: Image.Image, mask: Image.Image, use: MaskUse, size: tuple[int, int], masked: Box) -> Prepared:
    from PIL import Image

    part = grow(masked, use.padding_px, size, image.size)
    width, height = part[2] - part[0], part[3] - part[1]
    scale = min(size[0] / width, size[1] / height)
    # The size of the result in pixels of the image: wider or higher than `part` at the edge of the image.
    frame_width, frame_height = round(size[0] / scale), round(size[1] / scale)
    left, top = part[0] - (frame_width - width) // 2, part[1] - (frame_height - height) // 2
    init = fill_as_a1111(contain(image.crop(part), *size), *size)
    small = contain(mask.crop(part), *size)
    area = Image.new("L", size)
    area.paste(small, ((size[0] - small.width) // 2, (size[1] - small.height) // 2))
    box = (left, top, left + frame_width, top + frame_height)
    return Prepared(_content(init, area, use), area, image, mask, box)


def _content(image: Image.Image, mask: Image.Image, use: MaskUse) -> Image.Image:
    return image if use.content == 1 else smear(image, mask)


def grow(box: Box, padding_px: int, size: tuple[int, int], within: tuple[int, int]) -> Box:
    """The box with padding, enlarged to the proportions of `size` as far as `within` allows."""
    padding = max(0, min(padding_px, max(within)))
    left, top = max(0, box[0] - padding), max(0, box[1] - padding)
    right, bottom = min(within[0], box[2] + padding), min(within[1], box[3] + padding)
    width = max(right - left, round((bottom - top) * size[0] / size[1]))
    height = max(bottom - top, round((right - left) * size[1] / size[0]))
    left, right = _stretched(left, right, width, within[0])
    top, bottom = _stretched(top, bottom, height, within[1])
    return left, top, right, bottom


def _stretched(first: int, last: int, length: int, most: int) -> tuple[int, int]:
    """The span from `first` to `last`, extended on both sides to `length`, moved and cut to 0..`most`."""
    length = min(length, most)
    start = min(max(0, first - (length - (last - first)) // 2), most - length)
    return start, start + length


def smear(image: Image.Image, mask: Image.Image) -> Image.Image:
    """The image with its masked part filled with colours from around it.

    Source: A1111 1.10.1 modules/masking.py fill.
    """
    from PIL import Image, ImageChops, ImageFilter

    unmasked = Image.new("RGBa", image.size)
    unmasked.paste(image.convert("RGBA").convert("RGBa"), mask=ImageChops.invert(mask))
    *mean, opacity = unmasked.resize((1, 1), Image.Resampling.BOX).convert("RGBA").getpixel((0, 0))  # type: ignore[misc]
    result = Image.new("RGBA", image.size, (*mean, 255) if opacity else "grey")
    for radius, times in SMEARS:
        layer = (unmasked.filter(ImageFilter.GaussianBlur(radius)) if radius else unmasked).convert("RGBA")
        for _ in range(times):
            result.alpha_composite(layer)
    return result.convert("RGB")
