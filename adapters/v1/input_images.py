"""The images of a request: references, a start for image-to-image, or an image that is repainted where a mask says so.

Knows what OpenAI and Xinference mean by a mask. Pillow opens only what the image decoder made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.requests import Request

from adapters.shared.context import core_of, share_of
from adapters.v1.errors import missing_parameter
from adapters.v1.payload import Payload, Role
from adapters.v1.request_schemas import Edit, Inpainting, InputImageBody, Variation
from engine.catalog import ModelSpec
from gateway.errors import InvalidRequest
from gateway.images.codec import CheckedImage, check_image, opened, to_png
from gateway.jobs.resolve import SIZE_STEP_PX, Adjustment, Limits

if TYPE_CHECKING:
    from PIL import Image

Pixels = tuple[int, int]

MASK_DENOISE = 1.0
"""The strength where there is a mask and the client sent no strength: the area is painted without what was there."""
REFERENCE_MIN_PX = 16
"""FLUX.2 sees an image in squares of this edge."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Input images by their names in the store, the size they bring, and what was not done as the client asked."""

    width_px: int
    height_px: int
    init_image: str | None = None
    denoise: float | None = None
    mask: str | None = None
    references: tuple[str, ...] = ()
    adjustments: tuple[Adjustment, ...] = ()


@dataclass(frozen=True, slots=True)
class Uses:
    """The purposes of the images of a request."""

    starts: bool
    """The first image is the start of image-to-image."""
    follows: bool
    """All images are references."""


def uses_of(body: InputImageBody, payload: Payload, spec: ModelSpec) -> Uses:
    """Decide before any image is opened. Raises: InvalidRequest.

    A model that can edit takes the images of an edit as references; any other model starts from the only one.
    """
    images, references = payload.images.get("image", []), payload.images.get("reference", [])
    masks, markups = payload.images.get("mask", []), payload.images.get("markup", [])
    if not images:
        raise missing_parameter("image")
    if isinstance(body, Inpainting) and not masks:
        raise missing_parameter("mask_image")
    for several in (masks, markups):
        if len(several) > 1:
            raise InvalidRequest("Send one of these.", param=several[0].param)
    if masks and isinstance(body, Variation):
        raise InvalidRequest("A variation takes no mask: use /v1/images/edits.", param=masks[0].param)
    if markups and not isinstance(body, Edit):
        raise InvalidRequest("Only an edit takes a markup.", param="markup")
    if markups and masks:
        raise InvalidRequest("A markup and a mask cannot go together.", param="markup")
    count = len(images) + len(references)
    if count > max(1, spec.max_references):
        most = f"{spec.max_references} pictures" if spec.max_references > 1 else "one picture"
        raise InvalidRequest(f"{spec.name} takes at most {most}.", param=(references or images)[0].param)
    follows = spec.max_references > 0 and (isinstance(body, Edit) or count > 1)
    return Uses(starts=bool(masks) or body.denoise is not None or not follows, follows=follows)


async def prepare_inputs(request: Request, body: InputImageBody, payload: Payload, spec: ModelSpec) -> Inputs:
    """Check, prepare and store the images of a request. Raises: InvalidRequest, Unavailable, StorageFull."""
    core, share = core_of(request), share_of(request)
    uses = uses_of(body, payload, spec)

    async def check(role: Role) -> list[CheckedImage]:
        images = payload.images.get(role, [])
        return [await check_image(image.data, core.decoder, image.param, share) for image in images]

    async def store(image: CheckedImage | bytes) -> str:
        return await core.service.inputs.keep(image, share)

    images, references = await check("image"), await check("reference")
    if uses.follows:
        check_references([*images, *references], payload.images["image"][0].param)
    masks, markups = await check("mask"), await check("markup")
    limits = core.settings.generation.limits.of(spec)
    ready = await core.files.run(share, prepare, body, _pngs(images), _pngs(masks), _pngs(markups), limits)
    has_start = uses.starts or ready.mask is not None
    followed = [images[0].unless_same(ready.first), *images[1:], *references] if uses.follows else []
    return Inputs(
        width_px=ready.size[0],
        height_px=ready.size[1],
        init_image=await store(images[0].unless_same(await core.files.run(share, ready.start))) if has_start else None,
        denoise=MASK_DENOISE if ready.mask is not None and body.denoise is None else body.denoise,
        mask=None if ready.mask is None else await store(ready.mask),
        references=tuple([await store(image) for image in followed]),
        adjustments=(*ready.adjustments, *edit_adjustments(body, spec, payload, repaints=ready.mask is not None)),
    )


def _pngs(images: Sequence[CheckedImage]) -> list[bytes]:
    return [image.png for image in images]


def check_references(images: Sequence[CheckedImage], param: str) -> None:
    """Raises: InvalidRequest for an image that is too small to be seen as a reference."""
    for image in images:
        if min(image.size_px) < REFERENCE_MIN_PX:
            raise InvalidRequest(f"A picture to follow has at least {REFERENCE_MIN_PX} pixels a side.", param=param)


def edit_adjustments(
    body: InputImageBody, spec: ModelSpec, payload: Payload, *, repaints: bool
) -> tuple[Adjustment, ...]:
    """The ways in which an edit differs from OpenAI's; `repaints` is whether there is a mask."""
    if not isinstance(body, Edit):
        return ()
    adjustments = []
    if spec.max_references == 0 and not repaints:
        reason = f"{spec.name} cannot follow a picture: it began from it and drew over it"
        param = payload.images["image"][0].param
        adjustments.append(Adjustment(param=param, asked="edit", used="image-to-image", reason=reason))
    if body.input_fidelity == "high":
        reason = "there is no such setting; a lower strength keeps more of the picture"
        adjustments.append(Adjustment(param="input_fidelity", asked="high", used=None, reason=reason))
    return tuple(adjustments)


# ---- pixels: blocking, for a thread ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PreparedImages:
    """The images at the size of the result. PNG files but for `image`."""

    size: Pixels
    image: Image.Image
    """The first one, RGB, at its own size."""
    first: bytes
    mask: bytes | None
    """Mode L: white is repainted."""
    adjustments: tuple[Adjustment, ...] = ()

    def start(self) -> bytes:
        """The first image as the start of image-to-image."""
        return to_png(crop_to(self.image, self.size))


def prepare(
    body: InputImageBody, images: Sequence[bytes], masks: Sequence[bytes], markups: Sequence[bytes], limits: Limits
) -> PreparedImages:
    """Raises: InvalidRequest."""
    first = opened(images[0])
    mask = None
    if masks:
        mask = mask_of(opened(masks[0]), by_alpha=isinstance(body, Edit))
    elif isinstance(body, Edit) and body.model == "dall-e-2" and first.mode == "RGBA" and not markups:
        mask = mask_of(first, by_alpha=True)  # DALL-E 2: "if mask is not provided, image must have transparency"
    if markups:
        first = draw_markup(first, opened(markups[0]))
    size, adjustments = size_of(body, first.size, limits)
    return PreparedImages(
        size=size,
        image=to_rgb(first),
        first=to_png(first) if markups else images[0],
        mask=None if mask is None else to_png(soften(crop_to(stretch_to(mask, first.size), size), body.mask_blur)),
        adjustments=adjustments,
    )


def stretch_to(image: Image.Image, size: Pixels) -> Image.Image:
    """The whole image at exactly `size`; its proportions may change."""
    from PIL import Image

    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


def crop_to(image: Image.Image, size: Pixels) -> Image.Image:
    """The middle of the image at exactly `size`, scaled to cover it; its proportions do not change."""
    from PIL import Image, ImageOps

    return image if image.size == size else ImageOps.fit(image, size, Image.Resampling.LANCZOS)


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in mode RGB; transparent pixels become white."""
    from PIL import Image

    if image.mode == "RGB":
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")


def mask_of(image: Image.Image, *, by_alpha: bool) -> Image.Image:
    """The mask in mode L, white where the image is repainted.

    OpenAI's masks are transparent there, Xinference's and LocalAI's white: one that has any transparency is taken as
    OpenAI's where `by_alpha` allows. Raises: InvalidRequest for one that changes nothing.
    """
    from PIL import ImageOps

    if by_alpha and image.mode == "RGBA":
        mask = ImageOps.invert(image.getchannel("A"))
    else:
        mask = image.convert("RGB").convert("L")
    if mask.getextrema()[1] == 0:
        raise InvalidRequest("The mask leaves nothing to change: make it transparent or white there.", param="mask")
    return mask


def draw_markup(image: Image.Image, markup: Image.Image) -> Image.Image:
    """`image` with `markup` drawn over it. Raises: InvalidRequest for a markup that would cover it all."""
    from PIL import Image

    if markup.mode != "RGBA":
        raise InvalidRequest("A markup is a transparent PNG that is drawn over the first picture.", param="markup")
    return Image.alpha_composite(to_rgb(image).convert("RGBA"), stretch_to(markup, image.size)).convert("RGB")


def soften(mask: Image.Image, radius_px: float | None) -> Image.Image:
    from PIL import ImageFilter

    return mask.filter(ImageFilter.GaussianBlur(radius_px)) if radius_px else mask


def size_of(body: InputImageBody, image_size: Pixels, limits: Limits) -> tuple[Pixels, tuple[Adjustment, ...]]:
    """The size that the client asked for; a side it left out is the image's, within the limits and in whole steps.

    Raises: InvalidRequest for one out of the limits, before any image is scaled to it.
    """
    width, height = body.size_px
    default_limits = limits.unasked
    for param, edge in (("width", width), ("height", height)):
        if edge is not None:
            limits.check_side(edge, param)
    if width is not None or height is not None:
        size = (width or clamp(image_size[0], default_limits), height or clamp(image_size[1], default_limits))
        limits.check_area(*size)
        return size, ()
    size = default_size(image_size, limits)
    if size == image_size:
        return size, ()
    sides = (
        f"each side {default_limits.min_px} to {default_limits.max_px}, "
        f"{default_limits.max_pixels} pixels at most where no size is asked for"
    )
    reason = f"sizes are multiples of {SIZE_STEP_PX}, {sides}"
    adjustment = Adjustment(
        param="size", asked=f"{image_size[0]}x{image_size[1]}", used=f"{size[0]}x{size[1]}", reason=reason
    )
    return size, (adjustment,)


def default_size(image_size: Pixels, limits: Limits) -> Pixels:
    """The largest size of about these proportions within the limits for requests that name no size.

    It is no larger than the image, unless the image is smaller than the limits allow.
    """
    limits = limits.unasked
    short, long = min(image_size), max(image_size)
    scale = min(1.0, limits.max_px / long, math.sqrt(limits.max_pixels / (short * long)))
    scale = max(scale, limits.min_px / short)
    width, height = (clamp(math.floor(edge * scale + 1e-6), limits) for edge in image_size)
    return width, height


def clamp(edge_px: int, limits: Limits) -> int:
    """A side within the limits, in whole steps."""
    return max(limits.min_px, min(limits.max_px, edge_px) // SIZE_STEP_PX * SIZE_STEP_PX)
