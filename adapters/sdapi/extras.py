"""POST extra-single-image and extra-batch-images: the enlargement of images, with an upscaling model or without."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapters.sdapi.enlargement import Enlargement, as_png, enlarge, labels_of
from adapters.sdapi.lists import MODEL_UPSCALERS, STAND_IN, stands_in_for
from adapters.sdapi.png_info import infotext_of
from adapters.sdapi.protocol import body_of, origin_of
from adapters.sdapi.request_schemas import ExtraBatch, Extras, ExtraSingle
from adapters.sdapi.response_schemas import Enlarged, EnlargedAll, Row
from adapters.sdapi.upscalers import used_upscaler
from adapters.shared.context import core_of, share_of
from adapters.shared.responses import png_of, raise_for
from adapters.shared.waiting import attached
from engine.protocol import MemoryCheck
from gateway.errors import ClientGone, InvalidRequest
from gateway.images.codec import CheckedImage, base64_image, check_image
from gateway.images.decoder_child import MAX_PIXELS
from gateway.images.infotext import PNG_KEYWORD
from gateway.images.provenance import drawing_in
from gateway.jobs.job import State
from gateway.jobs.origin import Origin
from gateway.jobs.resolve_upscale import UpscaleRequest

MOST_IMAGES = 32
MOST_RESULT_PIXELS = 4 * MAX_PIXELS
"""Pixels of all results of one request: they stay in memory until the last one is done."""
POSTPROCESSING = "postprocessing"


async def extra_single_image(request: Request) -> Response:
    """One picture, enlarged."""
    body = await body_of(ExtraSingle, request)
    result, html = await _enlarged(request, body, body.image, "image")
    return JSONResponse(Enlarged(html_info=html, image=result[1], adjustments=adjustments_of(body)))


async def extra_batch_images(request: Request) -> Response:
    """Several pictures, each as extra-single-image does it."""
    body = await body_of(ExtraBatch, request)
    if len(body.imageList) > MOST_IMAGES:
        raise InvalidRequest(f"At most {MOST_IMAGES} pictures at a time.", param="imageList")
    images, pixels, html = [], 0, ""
    for n, item in enumerate(body.imageList):
        (count, image), html = await _enlarged(request, body, item.data, "imageList", n)
        pixels += count
        if pixels > MOST_RESULT_PIXELS:
            raise InvalidRequest(f"The results have more than {MOST_RESULT_PIXELS} pixels.", param="imageList")
        images.append(image)
    return JSONResponse(EnlargedAll(html_info=html, images=images, adjustments=adjustments_of(body)))


async def _enlarged(
    request: Request, body: Extras, text: str, param: str, index: int | None = None
) -> tuple[tuple[int, str], str]:
    """The pixel count and base64 of the result, and its html; `index` is the image's number in a batch.

    Raises: InvalidRequest, AsA1111.
    """
    how = enlargement_of(body)
    core, share = core_of(request), share_of(request)
    data = await core.files.read(share, base64_image, text, param)
    image = await check_image(data, core.decoder, param, share)
    memory = body.memory or "check"
    upscaled = None
    if how.first in MODEL_UPSCALERS:
        upscaled = await _upscaled(request, data, image, how, memory, _origin_in_batch(request, index))
    return await core.files.run(share, _enlarge, data, image, how, param, upscaled)


def _origin_in_batch(request: Request, index: int | None) -> Origin:
    """The origin of a job; the jobs of one batch have different keys."""
    origin = origin_of(request)
    if index is None or origin.idempotency_key is None:
        return origin
    return replace(origin, idempotency_key=f"{origin.idempotency_key}#{index}")


async def _upscaled(
    request: Request, data: bytes, image: CheckedImage, how: Enlargement, memory: MemoryCheck, origin: Origin
) -> bytes:
    """The PNG of an upscaling model, by a job that this connection waits for; `data` is the file that was sent.

    Raises: GatewayError.
    """
    core, share = core_of(request), share_of(request)
    service, (width, height) = core.service, image.size_px
    factor = how.factor_for(width, height)
    if factor < 1:
        raise InvalidRequest(f"{how.first} makes pictures larger, not smaller.", param="upscaling_resize")
    upscale = UpscaleRequest(
        image=await service.inputs.keep(image, share),
        from_width_px=width,
        from_height_px=height,
        model=MODEL_UPSCALERS[how.first],
        scale=factor,
        seed=0,
        drawn=await core.files.read(share, drawing_in, data),
        memory=memory,
    )
    try:
        job = await service.submit_upscale(upscale, origin)
    except InvalidRequest as error:
        error.param = "upscaling_resize" if error.param == "scale" else error.param
        raise
    job = await attached(request, job)
    if job.state is not State.SUCCEEDED:
        raise_for(job)
        raise ClientGone
    return await png_of(request, job.images[0])


def _enlarge(
    data: bytes, image: CheckedImage, how: Enlargement, param: str, upscaled: bytes | None
) -> tuple[tuple[int, str], str]:
    result = enlarge(image.png, how, param=param, upscaled=upscaled)
    labels = ", ".join(f"{key}: {value}" for key, value in labels_of(how, image.size_px).items())
    infotext, _ = infotext_of(data)
    texts = {PNG_KEYWORD: infotext, POSTPROCESSING: labels}
    png = as_png(result, {keyword: text for keyword, text in texts.items() if text})
    return (result.width * result.height, b64encode(png).decode()), f"<p>{labels}</p>" if labels else ""


def enlargement_of(body: Extras) -> Enlargement:
    """The enlargement of a body. Raises: InvalidRequest, AsA1111 for an unknown upscaler.

    Source: A1111 1.10.1 ExtrasBaseRequest.
    """
    if body.upscaler_2 in MODEL_UPSCALERS:
        raise InvalidRequest(f"{body.upscaler_2} can be the first upscaler only.", param="upscaler_2")
    first, second = used_upscaler(body.upscaler_1), used_upscaler(body.upscaler_2)
    if body.resize_mode not in (0, 1):
        raise InvalidRequest("resize_mode must be 0 (by factor) or 1 (to size).", param="resize_mode")
    if body.upscaling_resize <= 0:
        raise InvalidRequest("upscaling_resize must be above 0.", param="upscaling_resize")
    for field in ("upscaling_resize_w", "upscaling_resize_h"):
        if getattr(body, field) < 1:
            raise InvalidRequest(f"{field} must be at least 1.", param=field)
    for field in ("gfpgan_visibility", "codeformer_visibility", "codeformer_weight", "extras_upscaler_2_visibility"):
        if not 0 <= getattr(body, field) <= 1:
            raise InvalidRequest(f"{field} must be between 0 and 1.", param=field)
    return Enlargement(
        first=first,
        second=second,
        second_share=body.extras_upscaler_2_visibility,
        factor=body.upscaling_resize if body.resize_mode == 0 else None,
        size_px=(body.upscaling_resize_w, body.upscaling_resize_h),
        crop=body.upscaling_crop,
    )


def adjustments_of(body: Extras) -> list[Row]:
    """The adjustments of a body, in the format of `info.adjustments` of a generated image."""
    others = [
        {"param": name, "asked": upscaler, "used": STAND_IN, "reason": "that model is not here"}
        for name in ("upscaler_1", "upscaler_2")
        if stands_in_for(upscaler := getattr(body, name))
    ]
    return others + [
        {"param": name, "asked": getattr(body, name), "used": 0, "reason": "there is no face restoration here"}
        for name in ("gfpgan_visibility", "codeformer_visibility")
        if getattr(body, name) > 0
    ]
