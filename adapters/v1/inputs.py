"""How the pictures of a request are used: followed as references, begun from, or repainted where a mask says so.

Knows what OpenAI and Xinference mean by a mask. Pillow opens only what the picture decoder made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageFilter, ImageOps
from starlette.requests import Request

from adapters.shared.context import core_of, share_of
from adapters.v1.payloads import Edit, FromPictures, Inpainting, Variation
from adapters.v1.sent import Role, Sent
from engine.catalog import ModelSpec
from gateway.errors import InvalidRequest
from gateway.images.codec import CheckedImage, checked_picture, opened, to_png
from gateway.jobs.resolve import SIZE_STEP_PX, Adjustment, Limits

Pixels = tuple[int, int]

MASK_DENOISE = 1.0
"""What is masked is drawn anew, unless a strength is asked for."""
REFERENCE_MIN_PX = 16
"""FLUX.2 sees a picture in squares of this edge."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Pictures as a request names them, the size they bring, and what was done otherwise than the route says."""

    width_px: int
    height_px: int
    init_image: str | None = None
    denoise: float | None = None
    mask: str | None = None
    references: tuple[str, ...] = ()
    told: tuple[Adjustment, ...] = ()


@dataclass(frozen=True, slots=True)
class Uses:
    """Which of the pictures serve for what."""

    starts: bool
    """The first picture is begun from."""
    follows: bool
    """All pictures are references."""


def uses_of(asked: FromPictures, sent: Sent, spec: ModelSpec) -> Uses:
    """Decide before any picture is opened. Raises: InvalidRequest.

    A model that can edit follows the pictures of an edit; one that cannot begins from the only one.
    """
    images, references = sent.pictures.get("image", []), sent.pictures.get("reference", [])
    masks, markups = sent.pictures.get("mask", []), sent.pictures.get("markup", [])
    if not images:
        raise _missing("image")
    if isinstance(asked, Inpainting) and not masks:
        raise _missing("mask_image")
    for several in (masks, markups):
        if len(several) > 1:
            raise InvalidRequest("Send one of these.", param=several[0].param)
    if masks and isinstance(asked, Variation):
        raise InvalidRequest("A variation takes no mask: use /v1/images/edits.", param=masks[0].param)
    if markups and not isinstance(asked, Edit):
        raise InvalidRequest("Only an edit takes a markup.", param="markup")
    if markups and masks:
        raise InvalidRequest("A markup and a mask cannot go together.", param="markup")
    count = len(images) + len(references)
    if count > max(1, spec.max_references):
        most = f"{spec.max_references} pictures" if spec.max_references > 1 else "one picture"
        raise InvalidRequest(f"{spec.name} takes at most {most}.", param=(references or images)[0].param)
    follows = spec.max_references > 0 and (isinstance(asked, Edit) or count > 1)
    return Uses(starts=bool(masks) or asked.denoise is not None or not follows, follows=follows)


def _missing(param: str) -> InvalidRequest:
    return InvalidRequest(param=param, details={"errors": [{"type": "missing"}]})


async def inputs_of(request: Request, asked: FromPictures, sent: Sent, spec: ModelSpec) -> Inputs:
    """Check, prepare and store the pictures of a request. Raises: InvalidRequest, Unavailable, StorageFull."""
    core, share = core_of(request), share_of(request)
    uses = uses_of(asked, sent, spec)

    async def checked(role: Role) -> list[CheckedImage]:
        pictures = sent.pictures.get(role, [])
        return [await checked_picture(picture.data, core.decoder, picture.param, share) for picture in pictures]

    async def kept(picture: CheckedImage | bytes) -> str:
        return await core.service.inputs.keep(picture, share)

    images, references = await checked("image"), await checked("reference")
    if uses.follows:
        check_followed([*images, *references], sent.pictures["image"][0].param)
    masks, markups = await checked("mask"), await checked("markup")
    limits = core.settings.generation.limits.of(spec)
    ready = await core.files.run(share, prepared, asked, _pngs(images), _pngs(masks), _pngs(markups), limits)
    begins = uses.starts or ready.mask is not None
    followed = [images[0].unless_same(ready.first), *images[1:], *references] if uses.follows else []
    return Inputs(
        width_px=ready.size[0],
        height_px=ready.size[1],
        init_image=await kept(images[0].unless_same(await core.files.run(share, ready.start))) if begins else None,
        denoise=MASK_DENOISE if ready.mask is not None and asked.denoise is None else asked.denoise,
        mask=None if ready.mask is None else await kept(ready.mask),
        references=tuple([await kept(picture) for picture in followed]),
        told=(*ready.told, *told_of(asked, spec, sent, repaints=ready.mask is not None)),
    )


def _pngs(pictures: Sequence[CheckedImage]) -> list[bytes]:
    return [picture.png for picture in pictures]


def check_followed(pictures: Sequence[CheckedImage], param: str) -> None:
    """Raises: InvalidRequest for a picture that is too small to be seen as a reference."""
    for picture in pictures:
        if min(picture.size_px) < REFERENCE_MIN_PX:
            raise InvalidRequest(f"A picture to follow has at least {REFERENCE_MIN_PX} pixels a side.", param=param)


def told_of(asked: FromPictures, spec: ModelSpec, sent: Sent, *, repaints: bool) -> tuple[Adjustment, ...]:
    """Where an edit is another thing than OpenAI's."""
    if not isinstance(asked, Edit):
        return ()
    told = []
    if spec.max_references == 0 and not repaints:
        reason = f"{spec.name} cannot follow a picture: it began from it and drew over it"
        param = sent.pictures["image"][0].param
        told.append(Adjustment(param=param, asked="edit", used="image-to-image", reason=reason))
    if asked.input_fidelity == "high":
        reason = "there is no such setting; a lower strength keeps more of the picture"
        told.append(Adjustment(param="input_fidelity", asked="high", used=None, reason=reason))
    return tuple(told)


# ---- pixels: blocking, for a thread ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ready:
    """The pictures at the size of the result. PNG files but for `picture`."""

    size: Pixels
    picture: Image.Image
    """The first one, RGB, before it is fitted."""
    first: bytes
    mask: bytes | None
    """Mode L: white is repainted."""
    told: tuple[Adjustment, ...] = ()

    def start(self) -> bytes:
        """The first picture as the one to begin from."""
        return to_png(fitted(self.picture, self.size))


def prepared(
    asked: FromPictures, images: Sequence[bytes], masks: Sequence[bytes], markups: Sequence[bytes], limits: Limits
) -> Ready:
    """Raises: InvalidRequest."""
    first = opened(images[0])
    mask = None
    if masks:
        mask = mask_of(opened(masks[0]), by_alpha=isinstance(asked, Edit))
    elif isinstance(asked, Edit) and asked.model == "dall-e-2" and first.mode == "RGBA" and not markups:
        mask = mask_of(first, by_alpha=True)  # DALL-E 2: "if mask is not provided, image must have transparency"
    if markups:
        first = marked(first, opened(markups[0]))
    size, told = size_of(asked, first.size, limits)
    return Ready(
        size=size,
        picture=flat(first),
        first=to_png(first) if markups else images[0],
        mask=None if mask is None else to_png(softened(fitted(at(mask, first.size), size), asked.mask_blur)),
        told=told,
    )


def at(image: Image.Image, size: Pixels) -> Image.Image:
    """Stretched to exactly `size`."""
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


def fitted(image: Image.Image, size: Pixels) -> Image.Image:
    """Scaled to cover `size` and cut to its middle, so that nothing is distorted."""
    return image if image.size == size else ImageOps.fit(image, size, Image.Resampling.LANCZOS)


def flat(image: Image.Image) -> Image.Image:
    """RGB; what is transparent becomes white."""
    if image.mode == "RGB":
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")


def mask_of(image: Image.Image, *, by_alpha: bool) -> Image.Image:
    """Mode L, white where the picture is repainted.

    OpenAI's masks are transparent there, Xinference's and LocalAI's white: one that has any transparency is taken as
    OpenAI's where `by_alpha` allows. Raises: InvalidRequest for one that changes nothing.
    """
    if by_alpha and image.mode == "RGBA":
        mask = ImageOps.invert(image.getchannel("A"))
    else:
        mask = image.convert("RGB").convert("L")
    if mask.getextrema()[1] == 0:
        raise InvalidRequest("The mask leaves nothing to change: make it transparent or white there.", param="mask")
    return mask


def marked(image: Image.Image, markup: Image.Image) -> Image.Image:
    """`markup` drawn over `image`. Raises: InvalidRequest for one that would cover it all."""
    if markup.mode != "RGBA":
        raise InvalidRequest("A markup is a transparent PNG that is drawn over the first picture.", param="markup")
    return Image.alpha_composite(flat(image).convert("RGBA"), at(markup, image.size)).convert("RGB")


def softened(mask: Image.Image, radius_px: float | None) -> Image.Image:
    return mask.filter(ImageFilter.GaussianBlur(radius_px)) if radius_px else mask


def size_of(asked: FromPictures, picture: Pixels, limits: Limits) -> tuple[Pixels, tuple[Adjustment, ...]]:
    """The size asked for; what is not asked is the picture's, scaled into the limits and cut to whole steps.

    Raises: InvalidRequest for one out of the limits, before any picture is scaled to it.
    """
    width, height = asked.size_px
    own = limits.unasked
    for param, edge in (("width", width), ("height", height)):
        if edge is not None:
            limits.check_side(edge, param)
    if width is not None or height is not None:
        size = (width or within(picture[0], own), height or within(picture[1], own))
        limits.check_area(*size)
        return size, ()
    size = scaled(picture, limits)
    if size == picture:
        return size, ()
    sides = f"each side {own.min_px} to {own.max_px}, {own.max_pixels} pixels at most where no size is asked for"
    reason = f"sizes are multiples of {SIZE_STEP_PX}, {sides}"
    told = Adjustment(param="size", asked=f"{picture[0]}x{picture[1]}", used=f"{size[0]}x{size[1]}", reason=reason)
    return size, (told,)


def scaled(picture: Pixels, limits: Limits) -> Pixels:
    """The largest size of about these proportions that is drawn unasked; no larger than the picture where it can be."""
    limits = limits.unasked
    short, long = min(picture), max(picture)
    scale = min(1.0, limits.max_px / long, math.sqrt(limits.max_pixels / (short * long)))
    scale = max(scale, limits.min_px / short)
    width, height = (within(math.floor(edge * scale + 1e-6), limits) for edge in picture)
    return width, height


def within(edge_px: int, limits: Limits) -> int:
    return max(limits.min_px, min(limits.max_px, edge_px) // SIZE_STEP_PX * SIZE_STEP_PX)
