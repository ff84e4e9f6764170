"""Facts: frozen things that happened to a job."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from engine.protocol.plans import Frozen

FailureCode = Literal[
    "engine_crash",
    "engine_timeout",
    "engine_oom",
    "model_load_failed",
    "model_missing",
    "model_unavailable",
    "bad_input",
    "non_finite_picture",
    "disk_full",
    "storage_fault",
    "internal_error",
]
CancelReason = Literal["user", "client_gone", "shutdown"]


class PromptRead(Frozen):
    """How the model read one prompt of the job, where it left something out; told before the picture it was read for.

    `tokens` are the prompt's own by the model's tokenizer, style characters and chat template not counted. `limit` is
    how many of them were read; None where that is all. `cut` is the beginning of what came after, and `unknown` the
    first words within that the model has never learnt, which its reader leaves away.
    """

    kind: Literal["prompt_read"] = "prompt_read"
    field: Literal["prompt", "negative_prompt", "second_pass.prompt"]
    tokens: int
    limit: int | None = None
    cut: str = ""
    unknown: tuple[str, ...] = ()


class Succeeded(Frozen):
    """All pictures are there."""

    kind: Literal["succeeded"] = "succeeded"


class Failed(Frozen):
    """The job ended without its pictures. `message` is a sentence fit for a client."""

    kind: Literal["failed"] = "failed"
    code: FailureCode
    message: str


class Cancelled(Frozen):
    """The job was stopped; pictures finished before that are kept."""

    kind: Literal["cancelled"] = "cancelled"
    reason: CancelReason = "user"


class ModelLoading(Frozen):
    """The engine began to bring the model into memory."""

    kind: Literal["model_loading"] = "model_loading"
    model: str


class ModelLoaded(Frozen):
    """The model is in memory."""

    kind: Literal["model_loaded"] = "model_loaded"
    model: str
    seconds: float
    from_copy: bool = False
    """It came from a copy that was quantised before."""


class StepDone(Frozen):
    """One denoising step was evaluated. `step` counts from 1 to `steps`, the steps this picture really runs."""

    kind: Literal["step_done"] = "step_done"
    image: int
    step: int
    steps: int
    seconds: float


class Decoding(Frozen):
    """The VAE turns latents into pixels; this cannot be interrupted."""

    kind: Literal["decoding"] = "decoding"
    image: int


class Preview(Frozen):
    """What the picture looks like so far: a small JPEG."""

    kind: Literal["preview"] = "preview"
    image: int
    step: int
    jpeg_base64: str


class Drawn(Frozen):
    """The pixels of one picture lie in the spool as a binary PPM; the gateway encodes and files them."""

    kind: Literal["drawn"] = "drawn"
    image: int
    seed: int
    spool: str
    width_px: int
    height_px: int
    drawn_px: tuple[int, int]
    seconds: float
    cut_short: bool = False
    """Somebody skipped the rest of its steps."""


EngineFact = Annotated[
    ModelLoading | ModelLoaded | PromptRead | StepDone | Decoding | Preview | Drawn | Succeeded | Failed | Cancelled,
    Field(discriminator="kind"),
]
"""What the child may say of the job it holds."""
