"""What each route of /sdapi/v1 takes and answers, for the documentation. Knows no handler.

Source: A1111 1.10.1 modules/api/models.py.
"""

from __future__ import annotations

from typing import Any, NotRequired

from pydantic import BaseModel, ConfigDict
from typing_extensions import TypedDict

from adapters.sdapi.control import PREFIX as CONTROLNET
from adapters.sdapi.lists import EMPTY
from adapters.sdapi.payloads import (
    ExtraBatch,
    ExtraSingle,
    Img2Img,
    Interrogate,
    OptionsBody,
    PngInfo,
    TaskProgress,
    Txt2Img,
)
from adapters.sdapi.routing import INTERNAL, PAGE_CONFIG, PREFIX
from gateway.http.openapi import Operation

Row = dict[str, Any]


class ProgressQuery(BaseModel):
    """GET progress."""

    model_config = ConfigDict(frozen=True)

    skip_current_image: bool = False


class Drawn(TypedDict):
    """`images` are base64; `info` is JSON in a string."""

    images: list[str]
    parameters: Row
    info: str


class Enlarged(TypedDict):
    html_info: str
    image: str
    adjustments: list[Row]


class EnlargedAll(TypedDict):
    html_info: str
    images: list[str]
    adjustments: list[Row]


class Told(TypedDict):
    """What a picture says of how it was made."""

    info: str
    items: Row
    parameters: Row


class Progress(TypedDict):
    """`current_image` is the base64 of a small JPEG."""

    progress: float
    eta_relative: float
    state: Row
    current_image: str | None
    textinfo: str | None


class TaskShown(TypedDict):
    active: bool
    queued: bool
    completed: bool
    progress: float | None
    eta: float | None
    live_preview: str | None
    id_live_preview: int
    textinfo: str | None


class Pending(TypedDict):
    size: int
    tasks: list[str]


class Memory(TypedDict):
    ram: Row
    cuda: Row


class PageConfig(TypedDict):
    """Menus of A1111's page, as its clients look for them by `props.elem_id`."""

    components: list[Row]


class ControlModels(TypedDict):
    model_list: list[str]


class ControlModules(TypedDict):
    module_list: list[str]
    module_detail: Row


class ControlTypes(TypedDict):
    control_types: dict[str, Row]


class ControlSettings(TypedDict):
    control_net_unit_count: int


class ControlVersion(TypedDict):
    version: int


class Problem(TypedDict):
    """A1111's words, with the seed document's `code` and `details` beside them."""

    detail: str | list[Row]
    error: NotRequired[str]
    errors: NotRequired[str]
    body: NotRequired[str]
    code: NotRequired[str]
    details: NotRequired[Row]


ONCE = ("Idempotency-Key",)
_LISTS = ("sd-models", "loras", "prompt-styles", "samplers", "schedulers", "upscalers")
_CHANGES = ("refresh-checkpoints", "refresh-vae", "refresh-loras", "refresh-embeddings")
_TRAINING = ("create/embedding", "create/hypernetwork", "train/embedding", "train/hypernetwork")
NOTHING = Operation(answer=Any)

_SDAPI = {
    "POST /txt2img": Operation(body=Txt2Img, answer=Drawn, headers=ONCE),
    "POST /img2img": Operation(body=Img2Img, answer=Drawn, headers=ONCE),
    "POST /extra-single-image": Operation(body=ExtraSingle, answer=Enlarged),
    "POST /extra-batch-images": Operation(body=ExtraBatch, answer=EnlargedAll),
    "POST /png-info": Operation(body=PngInfo, answer=Told),
    "POST /interrogate": Operation(body=Interrogate, answer=Row),
    "GET /progress": Operation(query=ProgressQuery, answer=Progress),
    "POST /interrupt": NOTHING,
    "POST /skip": NOTHING,
    "GET /options": Operation(answer=Row),
    "POST /options": Operation(body=OptionsBody, answer=Any),
    "GET /cmd-flags": Operation(answer=Row),
    "GET /memory": Operation(answer=Memory),
    "GET /embeddings": Operation(answer=Row),
    "GET /scripts": Operation(answer=Row),
    "GET /script-info": Operation(answer=list[Row]),
    "POST /unload-checkpoint": NOTHING,
    "POST /reload-checkpoint": NOTHING,
    **{f"GET /{name}": Operation(answer=list[Row]) for name in (*_LISTS, *EMPTY)},
    **dict.fromkeys((f"POST /{name}" for name in (*_CHANGES, *_TRAINING)), NOTHING),
}
_INTERNAL = {
    "GET /ping": NOTHING,
    "POST /progress": Operation(body=TaskProgress, answer=TaskShown),
    "GET /pending-tasks": Operation(answer=Pending),
}
_PAGE = {f"GET {PAGE_CONFIG}": Operation(answer=PageConfig)}
_CONTROLNET = {
    "GET /model_list": Operation(answer=ControlModels),
    "GET /module_list": Operation(answer=ControlModules),
    "GET /control_types": Operation(answer=ControlTypes),
    "GET /settings": Operation(answer=ControlSettings),
    "GET /version": Operation(answer=ControlVersion),
}


def _below(prefix: str, table: dict[str, Operation]) -> dict[str, Operation]:
    return {name.replace(" ", f" {prefix}", 1): operation for name, operation in table.items()}


DESCRIBED = {**_PAGE, **_below(PREFIX, _SDAPI), **_below(INTERNAL, _INTERNAL), **_below(CONTROLNET, _CONTROLNET)}
