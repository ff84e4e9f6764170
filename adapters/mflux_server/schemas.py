"""Bodies and queries that mflux-server's clients send, and types of what it answers. Knows no task.

Source: the READMEs of mflux-server. The OpenAPI document is made of these.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import BeforeValidator, ConfigDict, Field
from typing_extensions import TypedDict

from engine.protocol import MemoryCheck
from gateway.lazy_model import DocumentedModel, LazyModel

GUIDANCE = 3.5
TRUE = frozenset({"true", "1", "t", "y", "yes"})
Truth = Annotated[bool, BeforeValidator(lambda value: str(value).lower() in TRUE, json_schema_input_type=str)]
"""`true`, `1`, `t`, `y` and `yes` in any case; everything else is false. Source: `str_to_bool` of mflux-server."""


class GenerateBody(DocumentedModel):
    """POST generate. Source: `TaskInput` of mflux-server; unknown fields are ignored, null is a wrong type."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    prompt: str
    seed: str | int = ""
    height: int = 1024
    width: int = 1024
    steps: int = 0
    """0: as many as the model's own."""
    guidance: float = GUIDANCE
    format: str = "JPEG"
    quality: int = 85
    priority: bool = False
    init_image: str | None = None
    lora_paths: list[str] = Field([])
    """LoRAs by name, or by a path inside the folders of LoRAs. Not in mflux-server: mflux's own words."""
    lora_scales: list[float] = Field([])
    """One a LoRA; 1 where there are fewer."""
    memory: MemoryCheck = "check"
    """`try`: draw what seems not to fit into memory. Not in mflux-server."""


class LoadBody(DocumentedModel):
    """POST load. Source: the web page of mflux-server generation 2."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    model: str
    quantize: int | None = None
    memory: MemoryCheck = "check"
    """`try`: load what seems not to fit into memory. Not in mflux-server."""


class TaskQuery(LazyModel):
    """Which task; one that is missing is unknown."""

    model_config = ConfigDict(frozen=True)

    task_id: str = ""


class ImageQuery(TaskQuery):
    """GET image. Anything but `true`, `1`, `t`, `y` and `yes` is false."""

    base64: Truth = False
    delete: Truth = True


class Refused(TypedDict):
    """Source: flask-restx. `errors` has a sentence for each field at fault."""

    message: str
    errors: NotRequired[dict[str, str]]
    available_models: NotRequired[list[str]]


class Submitted(TypedDict):
    """`task_length` counts the other tasks that wait or run; `adjustments` is ours: what was not done as asked."""

    task_id: str
    task_length: int
    expected_time_seconds: float
    adjustments: list[dict[str, Any]]


class Waiting(TypedDict):
    """Seconds are whole, and at least one."""

    pos: int
    status: Literal["waiting"]
    wait_remaining: int


class WaitingShown(Waiting):
    """A task that waits, with why nothing begins; the OpenAPI document has only `Waiting`."""

    waits_for: NotRequired[str]


class Done(TypedDict):
    """It is over; `error` says that it failed. `adjustments` is ours: what its submit could not tell yet."""

    status: Literal["done"]
    error: NotRequired[str]
    adjustments: NotRequired[list[dict[str, Any]]]


class Task(TypedDict):
    """Times are Unix seconds."""

    task_id: str
    prompt: str
    seed: str
    height: int
    width: int
    steps: int
    guidance: float
    format: str
    quality: int
    priority: bool
    init_image: str | None
    start_time: float
    compute_time: NotRequired[float]
    end_time: NotRequired[float]
    error: NotRequired[str]


class Listed(TypedDict):
    loader: str
    steps: int
    quantize: NotRequired[int]


class Loaded(TypedDict):
    model: str
    quantize: int | None
    default_steps: int


class Drawing(Loaded):
    """`loaded` is the model in memory, whichever protocol asked for it."""

    cache_limit: int
    loaded: str | None
