"""The endpoint that makes a job of drawing an image larger."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapters.native.errors import NO_VIDEO, client_param_names
from adapters.native.images import IMAGE_ID, own_image
from adapters.native.jobs import show_submitted
from adapters.native.request_schemas import UpscaleBody, UpscaleFields
from adapters.native.requests import UPLOAD_ID, find_upload, to_origin
from adapters.shared.body import parse, validated
from adapters.shared.context import core_of, share_of
from adapters.shared.forms import form_of, only_image
from adapters.shared.responses import png_of
from gateway.errors import InvalidRequest
from gateway.images.codec import base64_image, check_image
from gateway.images.provenance import drawing_in, drawing_of
from gateway.jobs.drawing import Drawing
from gateway.jobs.resolve_upscale import UpscaleRequest, is_video

FORM_FIELDS, FIELD_BYTES = 16, 64 * 1024


async def upscale(request: Request) -> Response:
    """POST upscale: Make a job that draws a picture larger with SeedVR2; it is on disk when this answers."""
    body, image, drawing = await _parse(request)
    if body.video is not None:
        raise InvalidRequest(NO_VIDEO, param="video")
    if is_video(image):
        raise InvalidRequest(NO_VIDEO, param="image")
    core, share = core_of(request), share_of(request)
    checked = await check_image(image, core.decoder, "image", share)
    upscale_request = UpscaleRequest(
        image=await core.service.inputs.keep(checked, share),
        from_width_px=checked.size_px[0],
        from_height_px=checked.size_px[1],
        model=body.model,
        scale=body.scale,
        width_px=body.width,
        height_px=body.height,
        softness=body.softness,
        seed=body.seed,
        drawn=drawing or await core.files.read(share, drawing_in, image),
        memory=body.memory,
    )
    with client_param_names():
        job = await core.service.submit_upscale(upscale_request, to_origin(request, body.priority))
    return JSONResponse(await show_submitted(request, job, body))


async def _parse(request: Request) -> tuple[UpscaleFields, bytes, Drawing | None]:
    """The fields of a form or a JSON body, the image, and how it was drawn where its job says that.

    Raises: InvalidRequest, NotFound.
    """
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return (*await _parse_form(request), None)
    body = await parse(UpscaleBody, request)
    return (body, *await _find_image(request, body.image))


async def _parse_form(request: Request) -> tuple[UpscaleFields, bytes]:
    bounds = {"max_files": 1, "max_fields": FORM_FIELDS, "field_bytes": FIELD_BYTES}
    async with form_of(request, lambda name: name == "image", **bounds) as parts:
        fields = {name: value for name, value in parts if isinstance(value, str) and value != ""}
        return validated(UpscaleFields, fields), await only_image(request, parts)


async def _find_image(request: Request, text: str) -> tuple[bytes, Drawing | None]:
    """An image that was sent, uploaded or drawn here, and how it was drawn where its job says that.

    Raises: InvalidRequest, NotFound.
    """
    core, share = core_of(request), share_of(request)
    if UPLOAD_ID.fullmatch(text):
        name = await find_upload(request, text, "image")
        return await core.service.inputs.png(name, share), None
    if IMAGE_ID.fullmatch(text):
        job, index = await own_image(request, text)
        done = job.images[index]
        return await png_of(request, done), drawing_of(job.plan, done.seed)
    return await core.files.read(share, _decode, text), None


def _decode(text: str) -> bytes:
    if text[:32].lower().startswith("data:video/"):
        raise InvalidRequest(NO_VIDEO, param="image")
    return base64_image(text, "image")
