"""Pictures: finished ones by their ids, previews of those that are drawn, and uploads to draw upon."""

from __future__ import annotations

import asyncio
import base64
import re
import time

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapters.native.answers import image_id, iso
from adapters.native.jobs import own_job, service_of
from adapters.native.request import UPLOAD, PictureQuery, UploadBody
from adapters.native.shapes import Uploaded
from adapters.shared.body import parse, query
from adapters.shared.context import core_of, share_of
from adapters.shared.forms import form_of, only_picture
from adapters.shared.responses import adjustments_header, png_of
from gateway.errors import NotFound
from gateway.images.codec import base64_picture, checked_picture, encode
from gateway.images.provenance import Carried, carried
from gateway.jobs.job import Job
from gateway.service.retention import UNUSED_INPUTS_S

IMAGE_ID = re.compile(r"([0-9a-f]{32})-([0-9]{1,4})")
PRIVATE = {"Cache-Control": "private, no-cache"}
"""May be kept, but is asked for again each time: the owner may be another one by then."""


async def job_image(request: Request) -> Response:
    """GET jobs/{id}/images/{n}: Fetch a finished picture of a job."""
    return await _image(request, request.path_params["job_id"], request.path_params["index"])


async def image(request: Request) -> Response:
    """GET images/{id}: Fetch a finished picture by its id."""
    return await _image(request, *parts_of(request.path_params["image_id"]))


def parts_of(image_id: str) -> tuple[str, int]:
    """Job and number of a picture's id. Raises: NotFound."""
    found = IMAGE_ID.fullmatch(image_id)
    if found is None:
        raise NotFound("There is no such picture.")
    return found[1], int(found[2])


async def own_picture(request: Request, image_id: str) -> tuple[Job, int]:
    """The job of a picture, and its number there. Raises: NotFound, JobNotFound."""
    job_id, index = parts_of(image_id)
    own = await own_job(request, job_id)
    if index >= len(own.images):
        raise NotFound("That picture is not there yet." if index < 10 else "There is no such picture.")
    return own, index


async def _image(request: Request, job_id: str, index: int) -> Response:
    asked = query(PictureQuery, request)
    own, _ = await own_picture(request, image_id(job_id, index))
    name = image_id(job_id, index)
    tag = f'"{name}.{asked.format}.{asked.quality if asked.format != "png" else 0}.{asked.max_px or 0}"'
    headers = {
        **PRIVATE,
        "ETag": tag,
        "Content-Disposition": f'inline; filename="{name}.{asked.format}"',
        **adjustments_header(own.all_adjustments),
    }
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    data = await png_of(request, own.images[index])
    if asked.format != "png" or asked.max_px is not None:
        data = await asyncio.to_thread(_as_asked, data, asked)
    return Response(data, media_type=f"image/{asked.format}", headers=headers)


def _as_asked(png: bytes, asked: PictureQuery) -> bytes:
    said = carried(png) if asked.max_px is None else Carried()
    return encode(
        png,
        format=asked.format,
        quality=asked.quality,
        max_px=asked.max_px,
        text=said.comment,
        description=said.description,
    )


async def preview(request: Request) -> Response:
    """GET jobs/{id}/preview: Fetch the newest preview of a running job, a small JPEG; 204 where there is none now."""
    own = await own_job(request)
    progress = service_of(request).events.progress(own.id)
    newest = progress.preview if progress else None
    if newest is None:
        return Response(status_code=204, headers=PRIVATE)  # its event may come when the job has just ended
    tag = f'"{own.id}-{newest.image}-{newest.step}"'
    headers = {**PRIVATE, "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(base64.b64decode(newest.jpeg_base64), media_type="image/jpeg", headers=headers)


async def uploaded(request: Request) -> Response:
    """GET uploads/{id}: Fetch an input picture of yours, as long as it is kept."""
    name = request.path_params["upload_id"]
    if not UPLOAD.fullmatch(name):
        raise NotFound("There is no such upload, or it has expired.")
    try:
        data = await service_of(request).inputs.png(name, share_of(request))
    except KeyError:
        raise NotFound("There is no such upload, or it has expired.") from None
    return Response(data, media_type="image/png", headers=PRIVATE)


async def upload(request: Request) -> Response:
    """POST uploads: Store a picture for requests to come, as JSON or as a form."""
    core, share = core_of(request), share_of(request)
    picture = await checked_picture(await sent_picture(request), core.decoder, "image", share)
    name, (width, height) = await core.service.inputs.keep(picture, share), picture.size_px
    answer: Uploaded = {
        "id": name,
        "width": width,
        "height": height,
        "bytes": await core.service.inputs.size_bytes(name),
        "expires_at": iso(time.time() + UNUSED_INPUTS_S),
    }
    return JSONResponse(answer)


async def sent_picture(request: Request) -> bytes:
    """The file of an upload, in either spelling. Raises: InvalidRequest, RemoteImagesDisabled."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        body = await parse(UploadBody, request)
        return await core_of(request).files.read(share_of(request), base64_picture, body.image, "image")
    async with form_of(
        request, lambda name: name == "image", max_files=1, max_fields=8, field_bytes=64 * 1024
    ) as parts:
        return await only_picture(request, parts)
