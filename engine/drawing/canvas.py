"""Image sizes: fits input images to the size at which the model generates, and the generated image to the requested
size. It knows no model.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace

from PIL import Image, ImageOps

from engine.drawing.base import BackendError, FinishedImage
from engine.protocol import Generate

Size = tuple[int, int]
"""Width and height in pixels."""

PREVIEW_PX = 256
"""Longest side of a preview."""

PART_SCALE = 1.5
"""Side of the square that is generated around a mask, in sides of the mask."""


def open_mask(path: str) -> Image.Image:
    """Mask at `path`, one byte a pixel. Raises: BackendError("bad_input")."""
    return open_input(path).convert("L")


def open_input(path: str) -> Image.Image:
    """Image at `path` as RGB, upright, transparency composited on white. Raises: BackendError("bad_input")."""
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
        return opaque(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BackendError("bad_input", "The input picture could not be read.") from error


def opaque(image: Image.Image) -> Image.Image:
    """`image` as RGB, transparency composited on white."""
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("RGB")


def stretch(image: Image.Image, size: Size) -> Image.Image:
    """`image` at exactly `size`, proportions not kept."""
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def box_of(inner: Size, outer: Size) -> tuple[int, int, int, int]:
    """Box (left, top, right, bottom) with the proportions of `inner`, centred in `outer` and as large as it allows."""
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
    canvas = Image.new(image.mode, size)
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
    """Inverse of `contain`: crops the middle of `image` to the proportions of `size`, and scales it to `size`."""
    return image.resize(size, Image.Resampling.LANCZOS, box=box_of(size, image.size))


@dataclass(frozen=True, slots=True)
class Patch:
    """Image into which a generated one is pasted: at `box` (left, top, right, bottom), where `mask` is white."""

    base: Image.Image
    mask: Image.Image
    box: tuple[int, int, int, int]

    def apply(self, image: Image.Image) -> Image.Image:
        left, top, right, bottom = self.box
        pasted = self.base.copy()
        pasted.paste(stretch(image, (right - left, bottom - top)), (left, top))
        return Image.composite(pasted, self.base, self.mask)


@dataclass(frozen=True, slots=True)
class Frame:
    """Sizes of one image, its input images and its masks."""

    requested: Size
    drawn: Size
    """Size at which the model generates."""
    init: Image.Image | None = None
    """Input image, fitted to `drawn`; or at a size of its own, whose latents are resized."""
    untouched: Image.Image | None = None
    """The whole result, where nothing is to be generated."""
    mask: Image.Image | None = None
    """Mask at the size `drawn`: white is repainted, black is kept."""
    references: tuple[Image.Image, ...] = ()
    control: Image.Image | None = None
    """Control map at the size `drawn`: white edges on black, or depths."""
    part: Patch | None = None
    """Place of the generated part in the requested image, where the model generated only a part of it."""
    patch: Patch | None = None

    def finish(self, image: Image.Image) -> Image.Image:
        """The generated image at the requested size, or pasted into the image it belongs to."""
        image = self._whole(image, self.requested)
        return image if self.patch is None else self.patch.apply(image)

    def _whole(self, image: Image.Image, size: Size) -> Image.Image:
        if self.part is not None:
            return stretch(self.part.apply(image), size)
        if self.requested == self.drawn:
            return stretch(image, size)
        return contain(image, size) if self.init is None else uncontain(image, size)

    def preview(self, image: Image.Image) -> bytes:
        """Preview as a small JPEG with the proportions of the finished image; `image` may have any size."""
        scale = min(1.0, PREVIEW_PX / max(self.requested))
        small = (max(1, round(self.requested[0] * scale)), max(1, round(self.requested[1] * scale)))
        buffer = io.BytesIO()
        self._whole(image, small).save(buffer, "JPEG", quality=75)
        return buffer.getvalue()


def frame_of(plan: Generate, native_px: int | None, inputs: Mapping[str, str], *, grey_edges: bool = False) -> Frame:
    """Frame of a plan. Denoise 1 ignores the input image outside the part that a mask keeps; denoise 0 keeps it. Not so
    where Stable Diffusion is sampled as in A1111, which adds noise to the input image at any denoise.

    Raises: BackendError("bad_input").
    """
    frame = _frame_of(plan, native_px, inputs)
    if plan.control is None or frame.untouched is not None:
        return frame
    followed = stretch(open_input(inputs[plan.control.image]), frame.drawn)
    if plan.control.kind == "canny" and not plan.control.is_map:
        from engine.drawing.canny import edges_of  # numpy is a fifth of the start of an engine that draws none

        followed = edges_of(followed, grey=grey_edges)
    return replace(frame, control=followed)


def _frame_of(plan: Generate, native_px: int | None, inputs: Mapping[str, str]) -> Frame:
    requested = (plan.width_px, plan.height_px)
    drawn = requested if native_px is None else (native_px, native_px)
    references = tuple(open_input(inputs[name]) for name in plan.references)
    if native_px is not None:
        # What is generated inside a mask is only a part of the image, where a whole reference image would be out of
        # place.
        references = () if plan.mask else tuple(contain(reference, drawn) for reference in references)
    is_sampled = plan.sampling is not None
    if plan.init_image is None or (plan.denoise >= 1 and plan.mask is None and not is_sampled):
        second = plan.second_pass
        if second is not None and second.enlarges_latents:
            requested = (second.width_px, second.height_px)
        return Frame(requested, drawn, references=references)
    init = stretch(open_input(inputs[plan.init_image]), requested)
    mask = None if plan.mask is None else stretch(open_mask(inputs[plan.mask]), requested)
    patch = _patch_of(plan, init, mask, inputs)
    if plan.denoise <= 0 and not is_sampled:
        return Frame(requested, requested, untouched=init if patch is None else patch.base)
    if plan.stretch_latents and native_px is None and mask is None:
        whole = open_input(inputs[plan.init_image])
        cell = 8 if is_sampled else 16
        own = (max(cell, whole.width // cell * cell), max(cell, whole.height // cell * cell))
        return Frame(requested, drawn, stretch(whole, own), references=references, patch=patch)
    part = None if mask is None or native_px is None else _surroundings(mask)
    if mask is not None and part is not None:
        pasted = Patch(init, Image.new("L", requested, 255), part)
        init, mask = init.crop(part), mask.crop(part)
        return Frame(
            requested,
            drawn,
            stretch(init, drawn),
            mask=stretch(mask, drawn),
            references=references,
            part=pasted,
            patch=patch,
        )
    fitted = None if mask is None else contain(mask, drawn)
    return Frame(requested, drawn, contain(init, drawn), mask=fitted, references=references, patch=patch)


def _surroundings(mask: Image.Image) -> tuple[int, int, int, int] | None:
    """Square around the white part of a mask, 1.5 times as wide: a model of a small native size generates this part
    instead of the whole image. None where it does not fit into the image, or where nothing is white.
    """
    white = mask.point(lambda value: 255 * (value > 127)).getbbox()
    if white is None:
        return None
    left, top, right, bottom = white
    side = round(PART_SCALE * max(right - left, bottom - top))
    if side > min(mask.size):
        return None
    x = min(max(0, (left + right - side) // 2), mask.width - side)
    y = min(max(0, (top + bottom - side) // 2), mask.height - side)
    return x, y, x + side, y + side


def _patch_of(plan: Generate, init: Image.Image, mask: Image.Image | None, inputs: Mapping[str, str]) -> Patch | None:
    """Patch of a plan: where the generated image is pasted. Without `paste` a masked plan's own input image is used."""
    if plan.paste is None:
        return None if mask is None else Patch(init, mask, (0, 0, *init.size))
    base = open_input(inputs[plan.paste.picture])
    left, top = plan.paste.left_px, plan.paste.top_px
    box = (left, top, left + plan.paste.width_px, top + plan.paste.height_px)
    return Patch(base, stretch(open_mask(inputs[plan.paste.mask]), base.size), box)


def png_file(image: Image.Image) -> io.BytesIO:
    """The image as a PNG file in memory."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file


def to_finished_image(image: Image.Image, drawn_px: Size) -> FinishedImage:
    return FinishedImage(image.width, image.height, image.convert("RGB").tobytes(), drawn_px)
