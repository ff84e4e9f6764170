"""The pictures a drawing begins from: checked, fitted, stored. Knows the core, no request and no route."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image

from adapters.sdapi.fit import on_background, resized, size_of
from adapters.sdapi.inpaint import MASK_CONTENT, MOST_BLUR, MaskUse, Prepared, mask_of, prepared
from adapters.sdapi.options import OutputOptions
from adapters.sdapi.payloads import Generation, Img2Img, Txt2Img
from adapters.sdapi.refusals import AsA1111
from adapters.sdapi.request import Inputs, dropped
from engine.catalog import ModelSpec
from engine.protocol import Paste
from gateway.access.round_robin import ANYBODY, Share
from gateway.context import Core
from gateway.errors import InvalidRequest
from gateway.images.codec import CheckedImage, base64_picture, checked_picture, opened, to_png
from gateway.jobs.limits import Limits
from gateway.jobs.resolve import Adjustment

EDIT = "edit"
LATENT_RESIZE = 3
REFERENCE_MIN_PX = 16
REFERENCE_MAX_PIXELS = 1024 * 1024
"""mflux shrinks larger references to this, and needs 16 pixels each way after that."""


@dataclass(frozen=True, slots=True)
class Start:
    """How one request begins, besides its pictures."""

    size: tuple[int, int]
    look: OutputOptions
    mask: MaskUse
    own: Limits
    """Of a picture whose latents are stretched: it is encoded at its own size."""


async def inputs_of(
    core: Core, asked: Txt2Img | Img2Img, spec: ModelSpec, look: OutputOptions, share: Share = ANYBODY
) -> Inputs:
    """Every picture of the request, stored. References are left out where the model cannot edit.

    Raises: InvalidRequest, AsA1111.
    """
    can_edit = spec.max_references > 0
    notes = list(_left_out(asked, spec)) if not can_edit else []
    extra = asked.extra_images if can_edit else []
    if not isinstance(asked, Img2Img):
        return Inputs(references=await _references(core, extra, spec, "extra_images", share), dropped=tuple(notes))
    edits = can_edit and (asked.mode == EDIT or not (spec.init_image or spec.masks))
    follows = edits or (can_edit and asked.image_strength is not None)
    has_mask = bool(asked.mask)
    limits = core.settings.generation.limits.of(spec)
    size = size_of(asked.width, asked.height, limits)
    _check_count(asked, edits=edits, has_mask=has_mask)
    pictures = [await _checked(core, text, "init_images", share) for text in asked.init_images]
    named = "extra_images" if extra else "init_images"
    references = await _references(core, extra, spec, named, share, before=pictures if follows else ())
    if edits and not has_mask:
        return Inputs(references=references, denoise=1.0, dropped=tuple(notes))
    by_latents = asked.resize_mode == LATENT_RESIZE and not has_mask and spec.native_px is None
    if asked.resize_mode == LATENT_RESIZE and not by_latents:
        reason = "with a mask, or a model of one size, a picture is stretched as pixels, not as latents"
        notes.append(Adjustment(param="resize_mode", asked=LATENT_RESIZE, used=0, reason=reason))
    start = Start(size, look, mask_use(asked), limits.unasked)
    denoise = 1.0 if edits else None
    if has_mask:
        mask = await _checked(core, asked.mask or "", "mask", share)
        made = await core.files.run(share, _all_masked, pictures, mask.png, start)
        if made:
            return await _stored(
                core, made, start, Inputs(references=references, denoise=denoise, dropped=tuple(notes)), share
            )
        reason = "the mask is blank: the whole picture is redrawn, as A1111 does it"
        notes.append(Adjustment(param="mask", asked="a blank mask", used=None, reason=reason))
    fit = _laid if by_latents else _fitted
    fitted = [picture.unless_same(await core.files.run(share, fit, picture.png, start)) for picture in pictures]
    names = tuple([await core.service.inputs.keep(picture, share) for picture in fitted])
    return Inputs(
        init_images=names, references=references, denoise=denoise, dropped=tuple(notes), stretch_latents=by_latents
    )


def mask_use(asked: Img2Img) -> MaskUse:
    """Raises: InvalidRequest."""
    blur = (asked.mask_blur_x, asked.mask_blur_y) if asked.mask_blur is None else (asked.mask_blur, asked.mask_blur)
    if max(blur) > MOST_BLUR:
        raise InvalidRequest(f"mask_blur must be at most {MOST_BLUR:g}.", param="mask_blur")
    if asked.inpainting_fill not in range(len(MASK_CONTENT)):
        message = "inpainting_fill must be 0 (fill), 1 (original), 2 (latent noise) or 3 (latent nothing)."
        raise InvalidRequest(message, param="inpainting_fill")
    return MaskUse(
        blur=blur,
        invert=asked.inpainting_mask_invert,
        content=asked.inpainting_fill,
        only_masked=asked.inpaint_full_res,
        padding_px=asked.inpaint_full_res_padding,
        resize_mode=asked.resize_mode,
    )


def _check_count(asked: Img2Img, *, edits: bool, has_mask: bool) -> None:
    """Source: A1111 1.10.1 StableDiffusionProcessingImg2Img.init. Raises: InvalidRequest, AsA1111."""
    count = len(asked.init_images)
    if not edits and asked.num_images is None and count > max(1, asked.batch_size):
        expecting = f"bad number of images passed: {count}; expecting {asked.batch_size} or less"
        raise AsA1111("RuntimeError", expecting)


def _left_out(asked: Generation, spec: ModelSpec) -> Iterator[Adjustment]:
    reason = f"{spec.name} cannot edit pictures"
    if asked.extra_images:
        yield dropped("extra_images", len(asked.extra_images), None, reason)
    if asked.mode == EDIT:
        yield dropped("mode", EDIT, "img2img" if isinstance(asked, Img2Img) else "txt2img", reason)


async def _references(
    core: Core, texts: Sequence[str], spec: ModelSpec, param: str, share: Share, before: Sequence[CheckedImage] = ()
) -> tuple[str, ...]:
    if len(texts) + len(before) > spec.max_references:
        if spec.max_references == 0:
            return ()
        raise InvalidRequest(f"{spec.name} takes at most {spec.max_references} reference pictures.", param=param)
    pictures = [*before, *[await _checked(core, text, param, share) for text in texts]]
    for width, height in (picture.size_px for picture in pictures):
        scale = min(1.0, math.sqrt(REFERENCE_MAX_PIXELS / (width * height)))
        if min(round(width * scale), round(height * scale)) < REFERENCE_MIN_PX:
            raise InvalidRequest(f"A reference must be {REFERENCE_MIN_PX} pixels wide and high at least.", param=param)
    return tuple([await core.service.inputs.keep(picture, share) for picture in pictures])


async def _checked(core: Core, text: str, param: str, share: Share) -> CheckedImage:
    data = await core.files.read(share, base64_picture, text, param)
    return await checked_picture(data, core.decoder, param, share)


def _fitted(png: bytes, start: Start) -> bytes:
    return to_png(resized(on_background(opened(png), start.look.background), start.size, start.mask.resize_mode))


def _laid(png: bytes, start: Start) -> bytes:
    picture = on_background(opened(png), start.look.background)
    scale = min(1.0, math.sqrt(start.own.max_pixels / (picture.width * picture.height)))
    most = [min(start.own.max_px, max(1, int(px * scale))) for px in picture.size]
    picture.thumbnail((most[0], most[1]), Image.Resampling.LANCZOS)
    return to_png(picture)


def _masked(png: bytes, mask: bytes, start: Start) -> tuple[Prepared, tuple[bytes, ...]] | None:
    """The parts of a masked drawing, and their files in the order of `_stored`."""
    picture = on_background(opened(png), start.look.background)
    found = prepared(picture, mask_of(opened(mask)), start.mask, start.size)
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


async def _stored(
    core: Core, made: list[tuple[Prepared, tuple[bytes, ...]]], start: Start, rest: Inputs, share: Share
) -> Inputs:
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
    wanted_back = start.look.with_mask or start.look.with_cut_out
    return Inputs(
        init_images=tuple(inits),
        mask=mask,
        mask_content=MASK_CONTENT[start.mask.content],
        paste=paste,
        references=rest.references,
        denoise=rest.denoise,
        overlay=files[-1] if wanted_back else None,
        dropped=rest.dropped,
    )
