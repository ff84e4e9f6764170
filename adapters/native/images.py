"""Endpoints of single images: finished ones, previews of a running job, and uploads."""

from __future__ import annotations

import asyncio
import base64
import re
import time

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapters.native.errors import NO_IMAGE, NO_UPLOAD
from adapters.native.jobs import own_job
from adapters.native.presigned import redirect_to
from adapters.native.request_schemas import ImageQuery, UploadBody
from adapters.native.requests import UPLOAD_ID
from adapters.native.response_schemas import Uploaded
from adapters.native.responses import image_id, iso
from adapters.shared.body import parse, query
from adapters.shared.context import core_of, share_of
from adapters.shared.forms import form_of, only_image
from adapters.shared.responses import adjustments_header, png_of
from gateway.errors import NotFound
from gateway.images.codec import base64_image, check_image, encode
from gateway.images.provenance import Carried, carried
from gateway.jobs.job import Job
from gateway.service.retention import UNUSED_INPUTS_S

IMAGE_ID = re.compile(r"([0-9a-f]{32})-([0-9]{1,4})")
PRIVATE = {"Cache-Control": "private, no-cache"}
"""Clients may keep the image, and ask again each time: the owner may be another one by then."""


async def get_job_image(request: Request) -> Response:
    """GET jobs/{id}/images/{n}: Fetch a finished picture of a job."""
    return await _image(request, request.path_params["job_id"], request.path_params["index"])


async def get_image(request: Request) -> Response:
    """GET images/{id}: Fetch a finished picture by its id."""
    return await _image(request, *split_id(request.path_params["image_id"]))


def split_id(image_id: str) -> tuple[str, int]:
    """The job and the number of an image, from its id. Raises: NotFound."""
    match = IMAGE_ID.fullmatch(image_id)
    if match is None:
        raise NotFound(NO_IMAGE)
    return match[1], int(match[2])


async def own_image(request: Request, image_id: str) -> tuple[Job, int]:
    """The job of an image, and the image's number there. Raises: NotFound, JobNotFound."""
    job_id, index = split_id(image_id)
    job = await own_job(request, job_id)
    if index >= len(job.images):
        raise NotFound("That picture is not there yet." if index < 10 else NO_IMAGE)
    return job, index


async def _image(request: Request, job_id: str, index: int) -> Response:
    params = query(ImageQuery, request)
    name = image_id(job_id, index)
    job, _ = await own_image(request, name)
    tag = f'"{name}.{params.format}.{params.quality if params.format != "png" else 0}.{params.max_px or 0}"'
    headers = {
        **PRIVATE,
        "ETag": tag,
        "Content-Disposition": f'inline; filename="{name}.{params.format}"',
        **adjustments_header(job.all_adjustments),
    }
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    is_stored = params.format == "png" and params.max_px is None
    if is_stored and (moved := await redirect_to(request, job.images[index], headers)) is not None:
        return moved
    data = await png_of(request, job.images[index])
    if not is_stored:
        data = await asyncio.to_thread(_convert, data, params)
    return Response(data, media_type=f"image/{params.format}", headers=headers)


def _convert(png: bytes, params: ImageQuery) -> bytes:
    texts = carried(png) if params.max_px is None else Carried()
    return encode(
        png,
        format=params.format,
        quality=params.quality,
        max_px=params.max_px,
        text=texts.comment,
        description=texts.description,
    )


async def get_preview(request: Request) -> Response:
    """GET jobs/{id}/preview: Fetch the newest preview of a running job, a small JPEG; 204 where there is none now."""
    job = await own_job(request)
    progress = core_of(request).service.events.progress(job.id)
    newest = progress.preview if progress else None
    if newest is None:
        return Response(status_code=204, headers=PRIVATE)  # its event may come when the job has just ended
    tag = f'"{job.id}-{newest.image}-{newest.step}"'
    headers = {**PRIVATE, "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(base64.b64decode(newest.jpeg_base64), media_type="image/jpeg", headers=headers)


async def get_upload(request: Request) -> Response:
    """GET uploads/{id}: Fetch an input picture of yours, as long as it is kept."""
    name = request.path_params["upload_id"]
    if not UPLOAD_ID.fullmatch(name):
        raise NotFound(NO_UPLOAD)
    try:
        data = await core_of(request).service.inputs.png(name, share_of(request))
    except KeyError:
        raise NotFound(NO_UPLOAD) from None
    return Response(data, media_type="image/png", headers=PRIVATE)


async def upload(request: Request) -> Response:
    """POST uploads: Store a picture for requests to come, as JSON or as a form."""
    core, share = core_of(request), share_of(request)
    checked = await check_image(await read_upload(request), core.decoder, "image", share)
    name, (width, height) = await core.service.inputs.keep(checked, share), checked.size_px
    answer: Uploaded = {
        "id": name,
        "width": width,
        "height": height,
        "bytes": await core.service.inputs.size_bytes(name),
        "expires_at": iso(time.time() + UNUSED_INPUTS_S),
    }
    return JSONResponse(answer)


async def read_upload(request: Request) -> bytes:
    """The bytes of the one image of a form or of a JSON body. Raises: InvalidRequest, RemoteImagesDisabled."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        body = await parse(UploadBody, request)
        return await core_of(request).files.read(share_of(request), base64_image, body.image, "image")
    async with form_of(
        request, lambda name: name == "image", max_files=1, max_fields=8, field_bytes=64 * 1024
    ) as parts:
        return await only_image(request, parts)
