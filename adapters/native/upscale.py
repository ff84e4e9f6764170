"""POST upscale: a picture drawn larger, as a job like any other."""

from __future__ import annotations

from pydantic import AliasChoices, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapters.native.jobs import IGNORED_MOST, own_names, service_of, shown
from adapters.native.pictures import IMAGE_ID, own_picture
from adapters.native.request import UPLOAD, Said, kept_upload, origin_at
from adapters.native.shapes import Priority, Submitted
from adapters.shared.body import parse, validated
from adapters.shared.context import core_of, share_of
from adapters.shared.forms import form_of, only_picture
from adapters.shared.responses import png_of
from engine.protocol import MemoryCheck
from gateway.errors import InvalidRequest
from gateway.http.openapi import File
from gateway.images.codec import base64_picture, checked_picture
from gateway.images.provenance import Drawing, drawing_in, drawing_of
from gateway.jobs.resolve_upscale import UpscaleRequest, is_video

NO_VIDEO = "Videos cannot be upscaled here; send one picture."
FORM_FIELDS, FIELD_BYTES = 16, 64 * 1024


class UpscaleFields(Said):
    """How a picture is drawn larger. Without `scale`, `width` and `height` it becomes twice as large."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    """`seedvr2-3b` or `seedvr2-7b`; without it, the one that is here."""
    scale: float | None = Field(None, validation_alias=AliasChoices("scale", "upscale_factor"))
    """1 to 16."""
    width: int | None = None
    """Of the result, whose height follows."""
    height: int | None = None
    """Of the result, whose width follows; with both, the result covers them."""
    softness: float | None = None
    """0 keeps the picture's own detail, 1 gives the model the most freedom."""
    seed: int | None = None
    """-1 and null are random."""
    video: str | None = None
    """Refused: videos cannot be upscaled here."""
    memory: MemoryCheck = "check"
    """`try`: draw it even where it seems not to fit into memory."""
    priority: Priority = "normal"


class UpscaleBody(UpscaleFields):
    """POST upscale, as JSON."""

    image: str
    """base64, a data URL, the id of an upload, or of a picture of yours."""


class UpscaleForm(UpscaleFields):
    """POST upscale, as a form."""

    image: File


async def upscale(request: Request) -> Response:
    """POST upscale: Make a job that draws a picture larger with SeedVR2; it is on disk when this answers."""
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        (asked, image), drawn = await _form(request), None
    else:
        body = await parse(UpscaleBody, request)
        asked, (image, drawn) = body, await _named(request, body.image)
    if asked.video is not None:
        raise InvalidRequest(NO_VIDEO, param="video")
    if is_video(image):
        raise InvalidRequest(NO_VIDEO, param="image")
    core, share = core_of(request), share_of(request)
    picture = await checked_picture(image, core.decoder, "image", share)
    wanted = UpscaleRequest(
        image=await core.service.inputs.keep(picture, share),
        from_width_px=picture.size_px[0],
        from_height_px=picture.size_px[1],
        model=asked.model,
        scale=asked.scale,
        width_px=asked.width,
        height_px=asked.height,
        softness=asked.softness,
        seed=asked.seed,
        drawn=drawn or await core.files.read(share, drawing_in, image),
        memory=asked.memory,
    )
    with own_names():
        job = await service_of(request).submit_upscale(wanted, origin_at(asked.priority, request))
    ignored = sorted(name[:64] for name in asked.model_extra or {})[:IGNORED_MOST]
    answer: Submitted = {**await shown(request, job), "ignored": ignored}
    return JSONResponse(answer)


async def _named(request: Request, text: str) -> tuple[bytes, Drawing | None]:
    """A picture that was sent, uploaded or drawn here, and how it was drawn where its job says that.

    Raises: InvalidRequest, NotFound.
    """
    if UPLOAD.fullmatch(text):
        name = await kept_upload(request, text, "image")
        return await service_of(request).inputs.png(name, share_of(request)), None
    if IMAGE_ID.fullmatch(text):
        own, index = await own_picture(request, text)
        done = own.images[index]
        return await png_of(request, done), drawing_of(own.plan, done.seed)
    return await core_of(request).files.read(share_of(request), _decoded, text), None


def _decoded(text: str) -> bytes:
    if text[:32].lower().startswith("data:video/"):
        raise InvalidRequest(NO_VIDEO, param="image")
    return base64_picture(text, "image")


async def _form(request: Request) -> tuple[UpscaleFields, bytes]:
    bounds = {"max_files": 1, "max_fields": FORM_FIELDS, "field_bytes": FIELD_BYTES}
    async with form_of(request, lambda name: name == "image", **bounds) as parts:
        said = {name: value for name, value in parts if isinstance(value, str) and value != ""}
        return validated(UpscaleFields, dict(said)), await only_picture(request, parts)
