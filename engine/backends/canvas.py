"""Fits pictures to sizes: the input to what a model draws at, and what it drew to what was requested. Knows no model."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace

from PIL import Image, ImageOps

from engine.backends.base import BackendError, FinishedImage
from engine.backends.canny import edges_of
from engine.protocol import Generate

Size = tuple[int, int]
"""Width and height in pixels."""

PREVIEW_PX = 256
"""Longest side of a preview."""

PART_SCALE = 1.5
"""Side of what is drawn round a mask, in sides of the mask."""


def open_mask(path: str) -> Image.Image:
    """The mask at `path`, one byte a pixel. Raises: BackendError("bad_input")."""
    return open_input(path).convert("L")


def open_input(path: str) -> Image.Image:
    """The picture at `path` as RGB, upright, transparency pasted on white. Raises: BackendError("bad_input")."""
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
        return opaque(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BackendError("bad_input", "The input picture could not be read.") from error


def opaque(image: Image.Image) -> Image.Image:
    """`image` as RGB, transparency pasted on white."""
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("RGB")


def stretch(image: Image.Image, size: Size) -> Image.Image:
    """`image` at exactly `size`, proportions not kept."""
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def box_of(inner: Size, outer: Size) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of a picture of the proportions of `inner`, centre_position and as large as `outer` allows."""
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
    """The way back from `contain`: cuts the middle of the proportions of `size` out of `image` and scales it up."""
    return image.resize(size, Image.Resampling.LANCZOS, box=box_of(size, image.size))


@dataclass(frozen=True, slots=True)
class Patch:
    """A picture that a drawn one is pasted into: at `box` (left, top, right, bottom), where `mask` is white."""

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
    """The sizes of one picture, and what it begins from and ends in."""

    requested: Size
    drawn: Size
    """What the model draws at."""
    init: Image.Image | None = None
    """The input picture, fitted to `drawn`, or at a size of its own, whose latents are to be stretched."""
    untouched: Image.Image | None = None
    """The whole answer, where nothing is to be drawn."""
    mask: Image.Image | None = None
    """Fitted to `drawn`: white is repainted, black stays."""
    references: tuple[Image.Image, ...] = ()
    control: Image.Image | None = None
    """The map to follow, at `drawn`: white edges on black, or depths."""
    part: Patch | None = None
    """Where in the picture asked for the model drew, where it drew only a part of it."""
    patch: Patch | None = None

    def finish(self, image: Image.Image) -> Image.Image:
        """What the model drew, at the size asked for, or in the picture it belongs to."""
        image = self._whole(image, self.requested)
        return image if self.patch is None else self.patch.apply(image)

    def _whole(self, image: Image.Image, size: Size) -> Image.Image:
        if self.part is not None:
            return stretch(self.part.apply(image), size)
        if self.requested == self.drawn:
            return stretch(image, size)
        return contain(image, size) if self.init is None else uncontain(image, size)

    def preview(self, image: Image.Image) -> bytes:
        """A small JPEG with the proportions of the finished picture; `image` is a sketch of any size."""
        scale = min(1.0, PREVIEW_PX / max(self.requested))
        small = (max(1, round(self.requested[0] * scale)), max(1, round(self.requested[1] * scale)))
        buffer = io.BytesIO()
        self._whole(image, small).save(buffer, "JPEG", quality=75)
        return buffer.getvalue()


def frame_of(plan: Generate, native_px: int | None, inputs: Mapping[str, str], *, grey_edges: bool = False) -> Frame:
    """Denoise 1 ignores the input picture outside the part that a mask keeps, 0 keeps it.

    Raises: BackendError("bad_input").
    """
    frame = _frame_of(plan, native_px, inputs)
    if plan.control is None or frame.untouched is not None:
        return frame
    followed = stretch(open_input(inputs[plan.control.image]), frame.drawn)
    finds = plan.control.kind == "canny" and not plan.control.is_map
    return replace(frame, control=edges_of(followed, grey=grey_edges) if finds else followed)


def _frame_of(plan: Generate, native_px: int | None, inputs: Mapping[str, str]) -> Frame:
    requested = (plan.width_px, plan.height_px)
    drawn = requested if native_px is None else (native_px, native_px)
    references = tuple(open_input(inputs[name]) for name in plan.references)
    if native_px is not None:
        # What is drawn into a mask is a part of the picture, where a reference would be seen out of place.
        references = () if plan.mask else tuple(contain(reference, drawn) for reference in references)
    if plan.init_image is None or (plan.denoise >= 1 and plan.mask is None):
        return Frame(requested, drawn, references=references)
    init = stretch(open_input(inputs[plan.init_image]), requested)
    mask = None if plan.mask is None else stretch(open_mask(inputs[plan.mask]), requested)
    patch = _patch_of(plan, init, mask, inputs)
    if plan.denoise <= 0:
        return Frame(requested, requested, untouched=init if patch is None else patch.base)
    if plan.stretch_latents and native_px is None and mask is None:
        whole = open_input(inputs[plan.init_image])
        own = (max(16, whole.width // 16 * 16), max(16, whole.height // 16 * 16))
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
    """A square round the white part of a mask, with half as much again to either side together: what a model that
    draws small draws instead of the whole picture. None where it does not fit in or nothing is white.
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
    """Where the picture is pasted; a masked one without a word about it goes into its own input."""
    if plan.paste is None:
        return None if mask is None else Patch(init, mask, (0, 0, *init.size))
    base = open_input(inputs[plan.paste.picture])
    left, top = plan.paste.left_px, plan.paste.top_px
    box = (left, top, left + plan.paste.width_px, top + plan.paste.height_px)
    return Patch(base, stretch(open_mask(inputs[plan.paste.mask]), base.size), box)


def png_file(image: Image.Image) -> io.BytesIO:
    """The picture as a file in memory."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file


def to_finished_image(image: Image.Image, drawn_px: Size) -> FinishedImage:
    return FinishedImage(image.width, image.height, image.convert("RGB").tobytes(), drawn_px)
