"""POST /v1/images/ocr, Xinference's route: the text of a picture or a PDF. Knows no other dialect of /v1."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from adapters.shared.body import let_go, validated
from adapters.shared.context import core_of, idempotency_key, owner_of, share_of
from adapters.shared.responses import raise_for
from adapters.shared.waiting import attached
from adapters.v1.errors import render_error
from adapters.v1.launched import launches
from adapters.v1.models import served_names
from adapters.v1.payloads import known_model, kwargs_of
from adapters.v1.sent import Sent, sent
from adapters.v1.state import request_ids
from adapters.v1.values import refusal
from gateway.access.round_robin import Share
from gateway.context import Core
from gateway.errors import GatewayError, InvalidRequest, ModelNotFound
from gateway.images.codec import CheckedImage, checked_picture
from gateway.jobs.facts import PageRead
from gateway.jobs.job import Job
from gateway.jobs.plans import Ocr
from gateway.ocr.packages import MODEL
from gateway.ocr.request import OcrRequest, is_pdf
from gateway.service.service import Origin

OCR = "/v1/images/ocr"


def _pages(value: object) -> object:
    """One page or a list of them. Source: `normalize_pages` of Xinference."""
    pages = value if isinstance(value, list) else [value]
    if any(isinstance(page, bool | float) for page in pages):
        raise refusal("pages is a page number, counted from 1, or a list of them.")
    return pages


class OcrFields(BaseModel):
    """What may be said beside the picture, in the form itself or in its `kwargs`. The rest is ignored.

    Source: `create_ocr` of Xinference; `boxes` is ours.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str | None = None
    pages: Annotated[tuple[int, ...], BeforeValidator(_pages, json_schema_input_type=int | list[int])] | None = None
    dpi: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    return_dict: bool = False
    boxes: bool = False
    task: Literal["ocr"] | None = None
    request_id: Annotated[str, Field(max_length=256)] | None = None

    @property
    def is_structured(self) -> bool:
        """Lines with their boxes instead of text."""
        return self.return_dict or self.boxes


async def ocr(request: Request) -> Response:
    """POST /v1/images/ocr: a JSON string, or lines with boxes where the client asks for them."""
    core, owner = core_of(request), owner_of(request)
    came = await sent(request)
    asked = validated(OcrFields, unfolded(came.fields))
    if asked.model is not None:
        asked = asked.model_copy(update={"model": launches(core, owner).model_of(asked.model)})
    reader = reader_of(core, asked)
    share = share_of(request)
    origin = Origin(owner=owner, protocol="xinference", attached=True, idempotency_key=idempotency_key(request))
    wanted = OcrRequest(model=reader, pages=asked.pages, dpi=asked.dpi)
    job = await core.service.submit_ocr(wanted, await document_of(core, came, share), origin, share)
    came.let_go()
    let_go(request, came.fields)
    if asked.request_id is not None:
        request_ids(core).put(owner, asked.request_id, job.id)
    try:
        ended = await attached(request, job)
        raise_for_text(ended)
    except GatewayError as error:
        return render_error(error, job.id)
    return JSONResponse(to_response(ended, asked), headers={"x-request-id": job.id, **told_of(ended)})


def unfolded(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields with null and "" as unset, and `kwargs`, a JSON string, beside them; what stands outside goes first.

    Raises: InvalidRequest.
    """
    said = {key: value for key, value in fields.items() if value not in (None, "")}
    inner = kwargs_of(said.pop("kwargs", {}))
    return {key: value for key, value in inner.items() if value is not None} | said


def reader_of(core: Core, asked: OcrFields) -> str:
    """What is to read: every model that draws stands for the default one. Raises: ModelNotFound, InvalidRequest."""
    readers, name = (MODEL, *core.settings.ocr.models), asked.model
    if name not in readers:
        try:
            core.library.find(known_model(name, served_names(core.library)))
        except ModelNotFound as error:
            known = [*readers, *error.details.get("available_models", ())]
            raise ModelNotFound(error.message, param="model", details={"available_models": known}) from None
        name = core.settings.ocr.default
    if asked.is_structured and name != MODEL:
        param = "return_dict" if asked.return_dict else "boxes"
        raise InvalidRequest(f"'{name}' does not say where a line is: use {MODEL}.", param=param)
    return name


async def document_of(core: Core, came: Sent, share: Share) -> CheckedImage | bytes:
    """The one picture, checked, or the PDF as it came. Raises: InvalidRequest."""
    for picture in [one for role, sent_as in came.pictures.items() if role != "image" for one in sent_as]:
        raise InvalidRequest("Text is read from one picture: send it as image.", param=picture.param)
    found = came.pictures.get("image", [])
    if len(found) != 1:
        missing = {"errors": [{"type": "missing"}]} if not found else {}
        raise InvalidRequest("Send one picture or PDF.", param="image", details=missing)
    (picture,) = found
    if is_pdf(picture.data):
        return picture.data
    return await checked_picture(picture.data, core.decoder, picture.param, share)


def raise_for_text(job: Job) -> None:
    """Raises: InvalidRequest where the document was at fault, GenerationFailed, ClientGone."""
    if job.failure is not None and job.failure.code == "bad_input":
        raise InvalidRequest(job.failure.message, param="image")
    raise_for(job)


def to_response(job: Job, asked: OcrFields) -> object:
    """Source: Xinference's answer, a JSON string; structured: `[{box, txt, score}]`, for a PDF one such list a page."""
    plan = job.plan
    assert isinstance(plan, Ocr)
    if not asked.is_structured:
        return job.text
    if not plan.pages:
        return to_lines(job.pages[0])
    return {"pages": [{"page": plan.pages[read.page], "result": to_lines(read)} for read in job.pages]}


def told_of(job: Job) -> dict[str, str]:
    """Ours: `x-unread-lines`, how many lines were found and not read; absent where all were."""
    number = sum(len(read.unread) for read in job.pages)
    return {"x-unread-lines": str(number)} if number else {}


def to_lines(read: PageRead) -> list[dict[str, Any]]:
    """Source: `RapidOCROutput.to_json` of rapidocr 3.10."""
    return [{"box": line.box, "txt": line.text, "score": line.score} for line in read.lines]


ROUTES = (Route(OCR, ocr, methods=["POST"]),)
