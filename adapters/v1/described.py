"""What each route of /v1 takes and answers, for the documentation. Knows no handler.

Source: openai 3.52 and xinference_client 4.1.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from adapters.v1.answers import CONTENT
from adapters.v1.ocr import OCR, OcrFields
from adapters.v1.openai import EDITS, GENERATIONS, VARIATIONS
from adapters.v1.payloads import Edit, Generation, Inpainting, Variation
from adapters.v1.registered import CACHED, ENGINES, LOGIN, REGISTRATIONS, CachedQuery, Login, RegistrationsQuery
from adapters.v1.xinference import AUTH, INPAINTING, INSTANCES, InstanceQuery, Launch
from gateway.http.openapi import EVENTS, File, Operation

Row = dict[str, Any]
MEDIA = ("image/png", "image/jpeg", "image/webp")


class EditJson(Edit):
    """Pictures are data URLs or base64."""

    image: str | list[str]
    reference_image: list[str] | None = None
    mask: str | None = None
    markup: str | None = None


class EditForm(Edit):
    """Several pictures come as parts of the name `image` or `image[]`."""

    image: list[File]
    reference_image: list[File] | None = None
    mask: File | None = None
    markup: File | None = None


class VariationJson(Variation):
    """Pictures are data URLs or base64."""

    image: str


class VariationForm(Variation):
    image: File


class InpaintingJson(Inpainting):
    """Pictures are data URLs or base64."""

    image: str
    mask_image: str


class InpaintingForm(Inpainting):
    image: File
    mask_image: File


class OcrJson(OcrFields):
    """The picture is a data URL or base64; so is a PDF."""

    image: str


class OcrForm(OcrFields):
    image: File


class WaitQuery(BaseModel):
    """POST models."""

    model_config = ConfigDict(frozen=True)

    wait_ready: bool = True


class ContentQuery(BaseModel):
    """GET a picture by its address."""

    model_config = ConfigDict(frozen=True)

    output_compression: int | None = Field(None, ge=0, le=100)


class Picture(TypedDict):
    b64_json: str | None
    url: str | None
    revised_prompt: str | None
    seed: int


class Pictures(TypedDict):
    """`job_id` and `adjustments` are ours."""

    created: int
    background: str
    output_format: str
    quality: str | None
    size: str
    data: list[Picture]
    usage: Row
    safety_identifier: str | None
    model: str
    job_id: str
    adjustments: list[Row]


class Model(TypedDict):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    model_type: str
    model_name: str
    model_ability: list[str]
    model_family: str
    model_engine: str
    model_revision: str | None
    controlnet: list[Row] | None
    address: str | None
    accelerators: list[str] | None
    replica: int
    model_description: str
    description: str
    licence: NotRequired[str]


class Models(TypedDict):
    object: Literal["list"]
    data: list[Model]


class Auth(TypedDict):
    auth: bool


class Launched(TypedDict):
    model_uid: str
    ignored: list[str]


class Terminated(TypedDict):
    id: str
    object: Literal["model"]
    deleted: bool
    unloaded: bool


class Replica(TypedDict):
    replica_id: int
    replica_model_uid: str
    worker_address: str
    status: str
    model_state: str
    created_ts: int
    error_message: str | None


class Instance(TypedDict):
    model_name: str
    model_uid: str
    model_version: str | None
    model_ability: list[str]
    replica: int
    status: str
    instance_created_ts: int
    n_worker: int
    replica_statuses: list[Replica]


class Registration(TypedDict):
    """Short: its name and whether it is built in. The rest where `detailed`, and of one model."""

    model_name: str
    is_builtin: bool
    version: NotRequired[int]
    model_family: NotRequired[str]
    model_id: NotRequired[str]
    model_revision: NotRequired[str | None]
    model_hub: NotRequired[str]
    model_ability: NotRequired[list[str]]
    controlnet: NotRequired[list[Row] | None]
    model_specs: NotRequired[list[Row]]
    download_hubs: NotRequired[list[str]]
    default_generate_config: NotRequired[Row]
    model_description: NotRequired[str]
    licence: NotRequired[str]


class Cached(TypedDict):
    list: list[Row]


class Token(TypedDict):
    access_token: str
    token_type: str


class Progress(TypedDict):
    progress: float
    launching: NotRequired[bool]


class Message(TypedDict):
    msg: str


class ErrorShown(TypedDict):
    message: str
    type: str
    param: str | None
    code: str
    available_models: NotRequired[list[str]]


class Problem(TypedDict):
    """`error` is for OpenAI's clients, `detail` for Xinference's."""

    error: ErrorShown
    detail: str


class Shown(TypedDict):
    """A picture on a stream, partial or complete."""

    type: str
    b64_json: str
    created_at: int
    size: str
    quality: str
    background: str
    output_format: str
    image_index: int
    partial_image_index: NotRequired[int]
    usage: NotRequired[Row]
    safety_identifier: NotRequired[str | None]
    seed: NotRequired[int]
    job_id: NotRequired[str]
    adjustments: NotRequired[list[Row]]


ONCE = ("Idempotency-Key",)


def _draws(name: str, body: type[BaseModel], form: type[BaseModel] | None = None) -> Operation:
    events = {f"{name}.{what}": Shown for what in ("partial_image", "completed")}
    return Operation(body=body, form=form, answer=Pictures, headers=ONCE, media=(EVENTS,), events=events)


_MODEL = "/v1/models/{uid:path}"
DESCRIBED = {
    f"POST {GENERATIONS}": _draws("image_generation", Generation),
    f"POST {EDITS}": _draws("image_edit", EditJson, EditForm),
    f"POST {VARIATIONS}": Operation(body=VariationJson, form=VariationForm, answer=Pictures, headers=ONCE),
    f"POST {INPAINTING}": Operation(body=InpaintingJson, form=InpaintingForm, answer=Pictures, headers=ONCE),
    f"POST {OCR}": Operation(body=OcrJson, form=OcrForm, answer=str | list[Row] | Row, headers=ONCE),
    f"GET {CONTENT}{{name}}": Operation(
        query=ContentQuery,
        media=MEDIA,
        headers=("If-None-Match", "Range"),
        also={206: "The part that was asked for.", 304: "The client has it already."},
    ),
    f"GET {AUTH}": Operation(answer=Auth),
    "GET /v1/models": Operation(answer=Models),
    "POST /v1/models": Operation(body=Launch, query=WaitQuery, answer=Launched),
    f"GET {INSTANCES}": Operation(query=InstanceQuery, answer=list[Instance]),
    f"GET {REGISTRATIONS}/{{model_type}}": Operation(query=RegistrationsQuery, answer=list[Registration]),
    f"GET {REGISTRATIONS}/{{model_type}}/{{model_name:path}}": Operation(answer=Registration),
    f"GET {ENGINES}/{{model_name}}": Operation(answer=dict[str, list[Row]]),
    f"GET {ENGINES}/{{model_type}}/{{model_name:path}}": Operation(answer=dict[str, list[Row]]),
    f"GET {CACHED}": Operation(query=CachedQuery, answer=Cached),
    f"POST {LOGIN}": Operation(body=Login, answer=Token),
    "GET /v1/models/{id:path}": Operation(answer=Model),
    f"DELETE {_MODEL}": Operation(answer=Terminated),
    f"GET {_MODEL}/progress": Operation(answer=Progress),
    f"POST {_MODEL}/cancel": Operation(answer=Message),
    f"POST {_MODEL}/requests/{{request_id}}/abort": Operation(answer=Message),
    "GET /v1/requests/{request_id}/progress": Operation(answer=Progress),
}
