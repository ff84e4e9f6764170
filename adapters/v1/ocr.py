"""POST /v1/images/ocr, Xinference's route: the text of an image or a PDF. Knows no other dialect of /v1."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapters.shared.body import let_go, validated
from adapters.shared.context import core_of, idempotency_key, is_attached, owner_of, share_of
from adapters.shared.responses import raise_for
from adapters.shared.waiting import attached
from adapters.v1.errors import render_error
from adapters.v1.payload import Payload, parse_kwargs, read_payload
from adapters.v1.request_schemas import OcrBody
from adapters.v1.requests import library_name, served_names
from adapters.v1.responses import request_id, to_ocr_answer
from adapters.v1.state import launches_of, request_ids
from gateway.context import Core
from gateway.errors import GatewayError, InvalidRequest, ModelNotFound
from gateway.images.codec import CheckedImage, check_image
from gateway.jobs.job import Job
from gateway.jobs.origin import Origin
from gateway.ocr.packages import MODEL
from gateway.ocr.request import OcrRequest, is_pdf
from gateway.round_robin import Share


async def read_text(request: Request) -> Response:
    """POST /v1/images/ocr: a JSON string, or lines with boxes where the client asks for them."""
    core, owner = core_of(request), owner_of(request)
    payload = await read_payload(request)
    body = validated(OcrBody, merge_kwargs(payload.fields))
    if body.model is not None:
        body = body.model_copy(update={"model": launches_of(core, owner).model_of(body.model)})
    reader, share = reader_of(core, body), share_of(request)
    origin = Origin(
        owner=owner,
        protocol="xinference",
        attached=is_attached(request),
        idempotency_key=idempotency_key(request),
    )
    ocr_request = OcrRequest(model=reader, pages=body.pages, dpi=body.dpi)
    job = await core.service.submit_ocr(ocr_request, await document_of(core, payload, share), origin, share)
    payload.release_images()
    let_go(request, payload.fields)
    if body.request_id is not None:
        request_ids(core).put(owner, body.request_id, job.id)
    try:
        job = await attached(request, job)
        raise_for_text(job)
    except GatewayError as error:
        return render_error(error, job.id)
    return JSONResponse(to_ocr_answer(job, body), headers={**request_id(job.id), **unread_header(job)})


def merge_kwargs(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields without null and "", and those of `kwargs`, a JSON string; a field of the top level goes first.

    Raises: InvalidRequest.
    """
    fields = {key: value for key, value in fields.items() if value not in (None, "")}
    kwargs = parse_kwargs(fields.pop("kwargs", {}))
    return {key: value for key, value in kwargs.items() if value is not None} | fields


def is_reader(core: Core, name: str) -> bool:
    """Whether a model of this name reads text and draws nothing."""
    return name == MODEL or name in core.settings.ocr.models


def reader_of(core: Core, body: OcrBody) -> str:
    """The model that reads; one that draws stands for the default one. Raises: ModelNotFound, InvalidRequest."""
    readers, name = (MODEL, *core.settings.ocr.models), body.model
    if name not in readers:
        try:
            core.library.find(library_name(name, served_names(core.library)))
        except ModelNotFound as error:
            available = [*readers, *error.details.get("available_models", ())]
            raise ModelNotFound(error.message, param="model", details={"available_models": available}) from None
        name = core.settings.ocr.default
    if body.is_structured and name != MODEL:
        param = "return_dict" if body.return_dict else "boxes"
        raise InvalidRequest(f"'{name}' does not say where a line is: use {MODEL}.", param=param)
    return name


async def document_of(core: Core, payload: Payload, share: Share) -> CheckedImage | bytes:
    """The one image, checked, or the PDF as the client sent it. Raises: InvalidRequest."""
    for image in [image for role, images in payload.images.items() if role != "image" for image in images]:
        raise InvalidRequest("Text is read from one picture: send it as image.", param=image.param)
    images = payload.images.get("image", [])
    if len(images) != 1:
        missing = {"errors": [{"type": "missing"}]} if not images else {}
        raise InvalidRequest("Send one picture or PDF.", param="image", details=missing)
    (image,) = images
    if is_pdf(image.data):
        return image.data
    return await check_image(image.data, core.decoder, image.param, share)


def raise_for_text(job: Job) -> None:
    """Raises: InvalidRequest where the document was at fault, GenerationFailed, ClientGone."""
    if job.failure is not None and job.failure.code == "bad_input":
        raise InvalidRequest(job.failure.message, param="image")
    raise_for(job)


def unread_header(job: Job) -> dict[str, str]:
    """Ours: `x-unread-lines`, how many lines were found and not read; absent where all were."""
    number = sum(len(page.unread) for page in job.pages)
    return {"x-unread-lines": str(number)} if number else {}
