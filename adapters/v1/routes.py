"""The routes of /v1, with what each takes and answers. Source: openai 3.52 and xinference_client 4.1."""

from __future__ import annotations

from pydantic import BaseModel

from adapters.shared.table import Row, described, routes_of
from adapters.v1 import content, launches, ocr, openai, registrations, xinference
from adapters.v1.request_schemas import (
    CachedQuery,
    ContentQuery,
    EditForm,
    EditJson,
    Generation,
    InpaintingForm,
    InpaintingJson,
    InstanceQuery,
    Launch,
    Login,
    OcrForm,
    OcrJson,
    RegistrationsQuery,
    VariationForm,
    VariationJson,
    WaitQuery,
)
from adapters.v1.response_schemas import (
    Auth,
    Cached,
    Engines,
    Instance,
    Launched,
    Message,
    Model,
    Models,
    OcrAnswer,
    Pictures,
    Progress,
    Registration,
    Shown,
    Terminated,
    Token,
)
from adapters.v1.responses import CONTENT
from gateway.http.openapi import EVENTS, Operation

GENERATIONS, EDITS, VARIATIONS = "/v1/images/generations", "/v1/images/edits", "/v1/images/variations"
INPAINTING, OCR = "/v1/images/inpainting", "/v1/images/ocr"
AUTH, LOGIN = "/v1/cluster/auth", "/token"
MODELS, BY_UID = "/v1/models", "/v1/models/{uid:path}"
REGISTRATIONS = "/v1/model_registrations/{model_type}"
REGISTRATION = f"{REGISTRATIONS}/{{model_name:path}}"

ONCE = ("Idempotency-Key",)
CONDITIONS = ("If-None-Match", "Range")
IMAGES = ("image/png", "image/jpeg", "image/webp")
PARTS = {206: "The part that was asked for.", 304: "The client has it already."}
LAUNCH = Operation(body=Launch, query=WaitQuery, answer=Launched, headers=ONCE)
READ_TEXT = Operation(body=OcrJson, form=OcrForm, answer=OcrAnswer, headers=ONCE)


def _streamable(events: str, body: type[BaseModel], form: type[BaseModel] | None = None) -> Operation:
    """An operation that answers images whole or as events, whose names begin with `events`."""
    types = {f"{events}.{name}": Shown for name in ("partial_image", "completed")}
    return Operation(body=body, form=form, answer=Pictures, headers=ONCE, media=(EVENTS,), events=types)


def _whole(body: type[BaseModel], form: type[BaseModel]) -> Operation:
    """An operation that answers images in one JSON body."""
    return Operation(body=body, form=form, answer=Pictures, headers=ONCE)


TABLE = (
    Row("GET", AUTH, xinference.cluster_auth, Operation(answer=Auth)),
    Row("POST", INPAINTING, xinference.inpaint, _whole(InpaintingJson, InpaintingForm), waits=True),
    Row("GET", "/v1/requests/{request_id}/progress", xinference.request_progress, Operation(answer=Progress)),
    Row("POST", MODELS, launches.launch, LAUNCH, waits=True),
    Row("GET", f"{MODELS}/instances", launches.list_instances, Operation(query=InstanceQuery, answer=list[Instance])),
    Row("GET", f"{BY_UID}/progress", launches.launch_progress, Operation(answer=Progress)),
    Row("POST", f"{BY_UID}/cancel", launches.cancel_launch, Operation(answer=Message)),
    Row("POST", f"{BY_UID}/requests/{{request_id}}/abort", xinference.abort, Operation(answer=Message)),
    Row("DELETE", BY_UID, launches.terminate, Operation(answer=Terminated)),
    Row(
        "GET",
        REGISTRATIONS,
        registrations.list_registrations,
        Operation(query=RegistrationsQuery, answer=list[Registration]),
    ),
    Row("GET", REGISTRATION, registrations.retrieve_registration, Operation(answer=Registration)),
    Row("GET", "/v1/engines/{model_name}", registrations.list_engines, Operation(answer=Engines)),
    Row("GET", "/v1/engines/{model_type}/{model_name:path}", registrations.list_engines, Operation(answer=Engines)),
    Row("GET", "/v1/cache/models", registrations.list_cached, Operation(query=CachedQuery, answer=Cached)),
    Row("POST", LOGIN, xinference.login, Operation(body=Login, answer=Token)),
    Row("POST", GENERATIONS, openai.generate, _streamable("image_generation", Generation), waits=True),
    Row("POST", EDITS, openai.edit, _streamable("image_edit", EditJson, EditForm), waits=True),
    Row("POST", VARIATIONS, openai.vary, _whole(VariationJson, VariationForm), waits=True),
    Row("GET", MODELS, openai.list_models, Operation(answer=Models)),
    Row("GET", f"{MODELS}/{{id:path}}", openai.retrieve_model, Operation(answer=Model)),
    Row("POST", OCR, ocr.read_text, READ_TEXT, waits=True),
    Row(
        "GET",
        f"{CONTENT}{{name}}",
        content.get_content,
        Operation(query=ContentQuery, media=IMAGES, headers=CONDITIONS, also=PARTS),
    ),
)
ROUTES = routes_of(TABLE)
DESCRIBED = described(TABLE)
IMAGE_PATHS = (EDITS, VARIATIONS, INPAINTING, OCR)
OPEN_PATHS = (AUTH, LOGIN)
