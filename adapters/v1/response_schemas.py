"""The bodies that /v1 answers with. Their names are those of the OpenAPI document.

Source: openai 3.52 and xinference_client 4.1.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

JsonObject = dict[str, Any]
OcrAnswer = str | list[JsonObject] | JsonObject
"""The text; or, structured, its lines, of a PDF under `pages`."""


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
    usage: JsonObject
    safety_identifier: str | None
    model: str
    job_id: str
    adjustments: list[JsonObject]


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
    controlnet: list[JsonObject] | None
    address: str | None
    accelerators: list[str] | None
    replica: int
    model_description: str
    description: str
    licence: NotRequired[str]


class DrawingModel(Model):
    """A model that draws. `max_references` is ours: how many images an edit follows, 0 for a model that cannot."""

    max_references: int


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
    controlnet: NotRequired[list[JsonObject] | None]
    model_specs: NotRequired[list[JsonObject]]
    download_hubs: NotRequired[list[str]]
    default_generate_config: NotRequired[JsonObject]
    model_description: NotRequired[str]
    licence: NotRequired[str]


Engines = dict[str, list[JsonObject]]
"""Model formats and bits by the name of the engine."""


class Cached(TypedDict):
    list: list[JsonObject]


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
    usage: NotRequired[JsonObject]
    safety_identifier: NotRequired[str | None]
    seed: NotRequired[int]
    job_id: NotRequired[str]
    adjustments: NotRequired[list[JsonObject]]
