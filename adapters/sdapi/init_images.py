"""Init images, masks and reference images of a request: checked, resized, stored. Knows no route."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from adapters.sdapi.errors import AsA1111
from adapters.sdapi.masks import MASK_CONTENT, MaskUse, Prepared, mask_of, mask_use, prepare
from adapters.sdapi.options import OutputOptions
from adapters.sdapi.request_schemas import Generation, Img2Img, Txt2Img
from adapters.sdapi.resize import on_background, resize, size_of, step_of
from engine.catalog import ModelSpec
from engine.protocol import MaskContent, Paste
from gateway.context import Core
from gateway.errors import InvalidRequest
from gateway.images.codec import CheckedImage, base64_image, check_image, opened, to_png
from gateway.jobs.limits import Limits
from gateway.jobs.resolve import Adjustment
from gateway.jobs.resolve_tiles import TilesRequest
from gateway.round_robin import ANYBODY, Share

if TYPE_CHECKING:
    from PIL import Image

EDIT = "edit"
LATENT_RESIZE = 3
REFERENCE_MIN_PX = 16
REFERENCE_MAX_PIXELS = 1024 * 1024
"""mflux shrinks larger references to this, and needs 16 pixels on each side after that."""


@dataclass(frozen=True, slots=True)
class InputImages:
    """The stored images of a request, by name, and adjustments for those that are not used."""

    init_images: tuple[str, ...] = ()
    mask: str | None = None
    mask_content: MaskContent = "original"
    paste: Paste | None = None
    references: tuple[str, ...] = ()
    denoise: float | None = None
    """The denoising strength, where the kind of request decides it."""
    stretch_latents: bool = False
    overlay: bytes | None = None
    """The mask as a PNG, where the response includes it."""
    tiles: TilesRequest | None = None
    params: Mapping[str, object] = field(default_factory=dict)
    """Infotext parameters of a script."""
    adjustments: tuple[Adjustment, ...] = ()


@dataclass(frozen=True, slots=True)
class FitOptions:
    """Options for resizing the images of one request."""

    size: tuple[int, int]
    output: OutputOptions
    mask: MaskUse
    own: Limits
    """The limits of an image whose latents are stretched: it is encoded at its own size."""


async def store_images(
    core: Core, body: Txt2Img | Img2Img, spec: ModelSpec, output: OutputOptions, share: Share = ANYBODY
) -> InputImages:
    """Every image of the request, checked, resized and stored. Models that cannot edit get no references.

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
    size = size_of(body.width, body.height, limits, step_of(spec))
    _check_count(body, edits=edits)
    images = [await _read(core, text, "init_images", share) for text in body.init_images]
    named = "extra_images" if extra else "init_images"
    references = await _references(core, extra, spec, named, share, before=images if follows else ())
    if edits and not has_mask:
        return InputImages(references=references, denoise=1.0, adjustments=tuple(adjustments))
    by_latents = body.resize_mode == LATENT_RESIZE and not has_mask and spec.native_px is None
    if body.resize_mode == LATENT_RESIZE and not by_latents:
        reason = "with a mask, or a model of one size, a picture is stretched as pixels, not as latents"
        adjustments.append(Adjustment(param="resize_mode", asked=LATENT_RESIZE, used=0, reason=reason))
    fit = FitOptions(size, output, mask_use(body), limits.unasked)
    denoise = 1.0 if edits else None
    if has_mask:
        mask = await _read(core, body.mask or "", "mask", share)
        masked = await core.files.run(share, _prepare_all, images, mask.png, fit)
        if masked:
            return await _store_masked(
                core,
                masked,
                fit,
                InputImages(references=references, denoise=denoise, adjustments=tuple(adjustments)),
                share,
            )
        reason = "the mask is blank: the whole picture is redrawn, as A1111 does it"
        adjustments.append(Adjustment(param="mask", asked="a blank mask", used=None, reason=reason))
    resize_one = _shrink if by_latents else _resize
    resized = [image.unless_same(await core.files.run(share, resize_one, image.png, fit)) for image in images]
    names = tuple([await core.service.inputs.keep(image, share) for image in resized])
    return InputImages(
        init_images=names,
        references=references,
        denoise=denoise,
        adjustments=tuple(adjustments),
        stretch_latents=by_latents,
    )


def _check_count(body: Img2Img, *, edits: bool) -> None:
    """Check the number of init images. Raises: InvalidRequest, AsA1111.

    Source: A1111 1.10.1 StableDiffusionProcessingImg2Img.init.
    """
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
    images = [*before, *[await _read(core, text, param, share) for text in texts]]
    for width, height in (image.size_px for image in images):
        scale = min(1.0, math.sqrt(REFERENCE_MAX_PIXELS / (width * height)))
        if min(round(width * scale), round(height * scale)) < REFERENCE_MIN_PX:
            raise InvalidRequest(f"A reference must be {REFERENCE_MIN_PX} pixels wide and high at least.", param=param)
    return tuple([await core.service.inputs.keep(image, share) for image in images])


async def _read(core: Core, text: str, param: str, share: Share) -> CheckedImage:
    data = await core.files.read(share, base64_image, text, param)
    return await check_image(data, core.decoder, param, share)


def _resize(png: bytes, fit: FitOptions) -> bytes:
    return to_png(resize(on_background(opened(png), fit.output.background), fit.size, fit.mask.resize_mode))


def _shrink(png: bytes, fit: FitOptions) -> bytes:
    from PIL import Image

    image = on_background(opened(png), fit.output.background)
    scale = min(1.0, math.sqrt(fit.own.max_pixels / (image.width * image.height)))
    most = [min(fit.own.max_px, max(1, int(px * scale))) for px in image.size]
    image.thumbnail((most[0], most[1]), Image.Resampling.LANCZOS)
    return to_png(image)


def _prepare(png: bytes, mask: bytes, fit: FitOptions) -> tuple[Prepared, tuple[bytes, ...]] | None:
    """The prepared inpainting of an image, and its PNG files in the order of `_store_masked`."""
    image = on_background(opened(png), fit.output.background)
    prepared = prepare(image, mask_of(opened(mask)), fit.mask, fit.size)
    if prepared is None:
        return None
    parts: tuple[Image.Image, ...] = (prepared.init, prepared.mask, prepared.whole, prepared.overlay)
    return prepared, tuple(to_png(part) for part in parts)


def _prepare_all(
    images: Sequence[CheckedImage], mask: bytes, fit: FitOptions
) -> list[tuple[Prepared, tuple[bytes, ...]]]:
    """Each image prepared with the same mask; an empty list where the mask is blank. Raises: InvalidRequest."""
    if len({image.size_px for image in images}) > 1:
        raise InvalidRequest("Pictures with one mask must have one size.", param="init_images")
    return [masked for image in images if (masked := _prepare(image.png, mask, fit)) is not None]


async def _store_masked(
    core: Core, masked: list[tuple[Prepared, tuple[bytes, ...]]], fit: FitOptions, rest: InputImages, share: Share
) -> InputImages:
    (prepared, files), *_ = masked
    _, mask, _, overlay = [await core.service.inputs.keep(file, share) for file in files]
    init_images, whole_images = [
        [await core.service.inputs.keep(parts[i], share) for _, parts in masked] for i in (0, 2)
    ]
    left, top, right, bottom = prepared.box
    paste = Paste(
        picture=whole_images[0],
        further_pictures=tuple(whole_images[1:]),
        mask=overlay,
        left_px=left,
        top_px=top,
        width_px=right - left,
        height_px=bottom - top,
    )
    returns_mask = fit.output.with_mask or fit.output.with_cut_out
    return InputImages(
        init_images=tuple(init_images),
        mask=mask,
        mask_content=MASK_CONTENT[fit.mask.content],
        paste=paste,
        references=rest.references,
        denoise=rest.denoise,
        overlay=files[-1] if returns_mask else None,
        adjustments=rest.adjustments,
    )
