"""POST extra-single-image and extra-batch-images, png-info and interrogate: work on pictures that needs no model."""

from __future__ import annotations

from base64 import b64encode

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
from gateway.images.codec import CheckedImage, base64_picture, checked_picture
from gateway.images.decoder_child import MAX_PIXELS
from gateway.images.infotext import PNG_KEYWORD
from gateway.images.provenance import drawing_in
from gateway.jobs.job import State
from gateway.jobs.resolve_upscale import UpscaleRequest

MOST_PICTURES = 32
MOST_RESULT_PIXELS = 4 * MAX_PIXELS
"""Over all pictures of one request: they wait in memory until the last one is done."""
POSTPROCESSING = "postprocessing"


async def extra_single_image(request: Request) -> Response:
    """One picture, enlarged."""
    body = await body_of(ExtraSingle, request)
    done, html = await _worked(request, body, body.image, "image")
    return JSONResponse(Enlarged(html_info=html, image=done[1], adjustments=not_done(body)))


async def extra_batch_images(request: Request) -> Response:
    """Several pictures, each as extra-single-image does it."""
    body = await body_of(ExtraBatch, request)
    if len(body.imageList) > MOST_PICTURES:
        raise InvalidRequest(f"At most {MOST_PICTURES} pictures at a time.", param="imageList")
    images, pixels, html = [], 0, ""
    for item in body.imageList:
        (count, image), html = await _worked(request, body, item.data, "imageList")
        pixels += count
        if pixels > MOST_RESULT_PIXELS:
            raise InvalidRequest(f"The results have more than {MOST_RESULT_PIXELS} pixels.", param="imageList")
        images.append(image)
    return JSONResponse(EnlargedAll(html_info=html, images=images, adjustments=not_done(body)))


async def _worked(request: Request, body: Extras, text: str, param: str) -> tuple[tuple[int, str], str]:
    """Pixels and base64 of the result, and what was done. Raises: InvalidRequest, AsA1111."""
    how = enlargement_of(body)
    core, share = core_of(request), share_of(request)
    data = await core.files.read(share, base64_picture, text, param)
    picture = await checked_picture(data, core.decoder, param, share)
    memory = body.memory or "check"
    drawn = await _drawn(request, data, picture, how, memory) if how.first in MODEL_UPSCALERS else None
    return await core.files.run(share, _enlarge, data, picture, how, param, drawn)


async def _drawn(request: Request, data: bytes, picture: CheckedImage, how: Enlargement, memory: MemoryCheck) -> bytes:
    """The PNG that a model makes of it, as a job that ends with this connection; `data` is what was sent.

    Raises: GatewayError.
    """
    core, share = core_of(request), share_of(request)
    service, (width, height) = core.service, picture.size_px
    factor = how.factor_for(width, height)
    if factor < 1:
        raise InvalidRequest(f"{how.first} makes pictures larger, not smaller.", param="upscaling_resize")
    wanted = UpscaleRequest(
        image=await service.inputs.keep(picture, share),
        from_width_px=width,
        from_height_px=height,
        model=MODEL_UPSCALERS[how.first],
        scale=factor,
        seed=0,
        drawn=await core.files.read(share, drawing_in, data),
        memory=memory,
    )
    try:
        job = await service.submit_upscale(wanted, origin_of(request))
    except InvalidRequest as error:
        error.param = "upscaling_resize" if error.param == "scale" else error.param
        raise
    job = await attached(request, job)
    if job.state is not State.SUCCEEDED:
        raise_for(job)
        raise ClientGone
    return await png_of(request, job.images[0])


def _enlarge(
    data: bytes, sent: CheckedImage, how: Enlargement, param: str, drawn: bytes | None
) -> tuple[tuple[int, str], str]:
    picture = enlarge(sent.png, how, param=param, drawn=drawn)
    line = ", ".join(f"{key}: {value}" for key, value in labels_of(how, sent.size_px).items())
    infotext, _ = infotext_of(data)
    texts = {PNG_KEYWORD: infotext, POSTPROCESSING: line}
    made = as_png(picture, {keyword: text for keyword, text in texts.items() if text})
    return (picture.width * picture.height, b64encode(made).decode()), f"<p>{line}</p>" if line else ""


def enlargement_of(body: Extras) -> Enlargement:
    """Source: A1111 1.10.1 ExtrasBaseRequest. Raises: InvalidRequest, AsA1111 for an upscaler that is not there."""
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


def not_done(body: Extras) -> list[Row]:
    """What was asked for and done otherwise or left out, as `info.adjustments` of a drawn picture tells it."""
    others = [
        {"param": name, "asked": said, "used": STAND_IN, "reason": "that model is not here"}
        for name in ("upscaler_1", "upscaler_2")
        if stands_in_for(said := getattr(body, name))
    ]
    return others + [
        {"param": name, "asked": getattr(body, name), "used": 0, "reason": "there is no face restoration here"}
        for name in ("gfpgan_visibility", "codeformer_visibility")
        if getattr(body, name) > 0
    ]
