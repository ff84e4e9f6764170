"""Init images, masks and reference images of a request: checked, fitted to its size, stored. Knows no route."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from PIL import Image

from adapters.sdapi.errors import AsA1111
from adapters.sdapi.masks import MASK_CONTENT, MaskUse, Prepared, mask_of, mask_use, prepare
from adapters.sdapi.options import OutputOptions
from adapters.sdapi.request_schemas import Generation, Img2Img, Txt2Img
from adapters.sdapi.resize import on_background, resize, size_of
from engine.catalog import ModelSpec
from engine.protocol import MaskContent, Paste
from gateway.context import Core
from gateway.errors import InvalidRequest
from gateway.images.codec import CheckedImage, base64_picture, checked_picture, opened, to_png
from gateway.jobs.limits import Limits
from gateway.jobs.resolve import Adjustment
from gateway.jobs.resolve_tiles import TilesRequest
from gateway.round_robin import ANYBODY, Share

EDIT = "edit"
LATENT_RESIZE = 3
REFERENCE_MIN_PX = 16
REFERENCE_MAX_PIXELS = 1024 * 1024
"""mflux shrinks larger references to this, and needs 16 pixels each way after that."""


@dataclass(frozen=True, slots=True)
class InputImages:
    """The images of a request by the names under which they are stored, and what of them was left out."""

    init_images: tuple[str, ...] = ()
    mask: str | None = None
    mask_content: MaskContent = "original"
    paste: Paste | None = None
    references: tuple[str, ...] = ()
    denoise: float | None = None
    """Where the kind of request decides it."""
    stretch_latents: bool = False
    overlay: bytes | None = None
    """The mask as a PNG, where the answer has to hold it."""
    tiles: TilesRequest | None = None
    params: Mapping[str, object] = field(default_factory=dict)
    """What the infotext says of a script."""
    adjustments: tuple[Adjustment, ...] = ()


@dataclass(frozen=True, slots=True)
class Start:
    """What decides how the images of one request are fitted."""

    size: tuple[int, int]
    output: OutputOptions
    mask: MaskUse
    own: Limits
    """Of a picture whose latents are stretched: it is encoded at its own size."""


async def store_images(
    core: Core, body: Txt2Img | Img2Img, spec: ModelSpec, output: OutputOptions, share: Share = ANYBODY
) -> InputImages:
    """Every picture of the request, stored. References are left out where the model cannot edit.

    Raises: InvalidRequest, AsA1111.
    """
    can_edit = spec.max_references > 0
    adjustments = list(_ignored(body, spec)) if not can_edit else []
    extra = body.extra_images if can_edit else []
    if not isinstance(body, Img2Img):
        return InputImages(
            references=await _references(core, extra, spec, "extra_images", share), adjustments=tuple(adjustments)
        )
    edits = can_edit and (body.mode == EDIT or not (spec.init_image or spec.masks))
    follows = edits or (can_edit and body.image_strength is not None)
    has_mask = bool(body.mask)
    limits = core.settings.generation.limits.of(spec)
    size = size_of(body.width, body.height, limits)
    _check_count(body, edits=edits, has_mask=has_mask)
    pictures = [await _read(core, text, "init_images", share) for text in body.init_images]
    named = "extra_images" if extra else "init_images"
    references = await _references(core, extra, spec, named, share, before=pictures if follows else ())
    if edits and not has_mask:
        return InputImages(references=references, denoise=1.0, adjustments=tuple(adjustments))
    by_latents = body.resize_mode == LATENT_RESIZE and not has_mask and spec.native_px is None
    if body.resize_mode == LATENT_RESIZE and not by_latents:
        reason = "with a mask, or a model of one size, a picture is stretched as pixels, not as latents"
        adjustments.append(Adjustment(param="resize_mode", asked=LATENT_RESIZE, used=0, reason=reason))
    start = Start(size, output, mask_use(body), limits.unasked)
    denoise = 1.0 if edits else None
    if has_mask:
        mask = await _read(core, body.mask or "", "mask", share)
        made = await core.files.run(share, _all_masked, pictures, mask.png, start)
        if made:
            return await _store_masked(
                core,
                made,
                start,
                InputImages(references=references, denoise=denoise, adjustments=tuple(adjustments)),
                share,
            )
        reason = "the mask is blank: the whole picture is redrawn, as A1111 does it"
        adjustments.append(Adjustment(param="mask", asked="a blank mask", used=None, reason=reason))
    fit = _shrunk if by_latents else _fitted
    fitted = [picture.unless_same(await core.files.run(share, fit, picture.png, start)) for picture in pictures]
    names = tuple([await core.service.inputs.keep(picture, share) for picture in fitted])
    return InputImages(
        init_images=names,
        references=references,
        denoise=denoise,
        adjustments=tuple(adjustments),
        stretch_latents=by_latents,
    )


def _check_count(body: Img2Img, *, edits: bool, has_mask: bool) -> None:
    """Source: A1111 1.10.1 StableDiffusionProcessingImg2Img.init. Raises: InvalidRequest, AsA1111."""
    count = len(body.init_images)
    if not edits and body.num_images is None and count > max(1, body.batch_size):
        expecting = f"bad number of images passed: {count}; expecting {body.batch_size} or less"
        raise AsA1111("RuntimeError", expecting)


def _ignored(body: Generation, spec: ModelSpec) -> Iterator[Adjustment]:
    reason = f"{spec.name} cannot edit pictures"
    if body.extra_images:
        yield Adjustment(param="extra_images", asked=len(body.extra_images), used=None, reason=reason)
    if body.mode == EDIT:
        yield Adjustment(
            param="mode", asked=EDIT, used="img2img" if isinstance(body, Img2Img) else "txt2img", reason=reason
        )


async def _references(
    core: Core, texts: Sequence[str], spec: ModelSpec, param: str, share: Share, before: Sequence[CheckedImage] = ()
) -> tuple[str, ...]:
    if len(texts) + len(before) > spec.max_references:
        if spec.max_references == 0:
            return ()
        raise InvalidRequest(f"{spec.name} takes at most {spec.max_references} reference pictures.", param=param)
    pictures = [*before, *[await _read(core, text, param, share) for text in texts]]
    for width, height in (picture.size_px for picture in pictures):
        scale = min(1.0, math.sqrt(REFERENCE_MAX_PIXELS / (width * height)))
        if min(round(width * scale), round(height * scale)) < REFERENCE_MIN_PX:
            raise InvalidRequest(f"A reference must be {REFERENCE_MIN_PX} pixels wide and high at least.", param=param)
    return tuple([await core.service.inputs.keep(picture, share) for picture in pictures])


async def _read(core: Core, text: str, param: str, share: Share) -> CheckedImage:
    data = await core.files.read(share, base64_picture, text, param)
    return await checked_picture(data, core.decoder, param, share)


def _fitted(png: bytes, start: Start) -> bytes:
    return to_png(resize(on_background(opened(png), start.output.background), start.size, start.mask.resize_mode))


def _shrunk(png: bytes, start: Start) -> bytes:
    picture = on_background(opened(png), start.output.background)
    scale = min(1.0, math.sqrt(start.own.max_pixels / (picture.width * picture.height)))
    most = [min(start.own.max_px, max(1, int(px * scale))) for px in picture.size]
    picture.thumbnail((most[0], most[1]), Image.Resampling.LANCZOS)
    return to_png(picture)


def _masked(png: bytes, mask: bytes, start: Start) -> tuple[Prepared, tuple[bytes, ...]] | None:
    """The parts of a masked drawing, and their files in the order of `_store_masked`."""
    picture = on_background(opened(png), start.output.background)
    found = prepare(picture, mask_of(opened(mask)), start.mask, start.size)
    if found is None:
        return None
    parts: tuple[Image.Image, ...] = (found.init, found.mask, found.whole, found.overlay)
    return found, tuple(to_png(part) for part in parts)


def _all_masked(
    pictures: Sequence[CheckedImage], mask: bytes, start: Start
) -> list[tuple[Prepared, tuple[bytes, ...]]]:
    """Each picture with the same mask; nothing where the mask is blank. Raises: InvalidRequest."""
    if len({picture.size_px for picture in pictures}) > 1:
        raise InvalidRequest("Pictures with one mask must have one size.", param="init_images")
    return [made for picture in pictures if (made := _masked(picture.png, mask, start)) is not None]


async def _store_masked(
    core: Core, made: list[tuple[Prepared, tuple[bytes, ...]]], start: Start, rest: InputImages, share: Share
) -> InputImages:
    (found, files), *_ = made
    _, mask, _, overlay = [await core.service.inputs.keep(file, share) for file in files]
    inits, wholes = [[await core.service.inputs.keep(parts[i], share) for _, parts in made] for i in (0, 2)]
    left, top, right, bottom = found.box
    paste = Paste(
        picture=wholes[0],
        further_pictures=tuple(wholes[1:]),
        mask=overlay,
        left_px=left,
        top_px=top,
        width_px=right - left,
        height_px=bottom - top,
    )
    wanted_back = start.output.with_mask or start.output.with_cut_out
    return InputImages(
        init_images=tuple(inits),
        mask=mask,
        mask_content=MASK_CONTENT[start.mask.content],
        paste=paste,
        references=rest.references,
        denoise=rest.denoise,
        overlay=files[-1] if wanted_back else None,
        adjustments=rest.adjustments,
    )
