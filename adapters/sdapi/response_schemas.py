"""Response bodies of /sdapi/v1, and its query parameters.

Source: A1111 1.10.1 modules/api/models.py.
"""

from __future__ import annotations

from typing import Any, NotRequired

from pydantic import ConfigDict
from typing_extensions import TypedDict

from gateway.lazy_model import LazyModel

Row = dict[str, Any]


class ProgressQuery(LazyModel):
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
