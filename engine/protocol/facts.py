"""Facts that the engine reports of a job: immutable values."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from engine.protocol.frozen import Frozen

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
    """Prompt of the job that is not encoded completely, or has unknown words; reported before its image.

    `tokens` is the number of tokens by the model's tokenizer, without style characters and chat template. `limit` is
    how many of them were encoded; None for all. `cut` is the beginning of the rest, and `unknown` the first words
    within the limit that the model was never trained on, which are left out.
    """

    kind: Literal["prompt_read"] = "prompt_read"
    field: Literal["prompt", "negative_prompt", "second_pass.prompt"]
    tokens: int
    limit: int | None = None
    cut: str = ""
    unknown: tuple[str, ...] = ()


class Succeeded(Frozen):
    """All images are finished."""

    kind: Literal["succeeded"] = "succeeded"


class Failed(Frozen):
    """The job failed. `message` is a sentence fit for a client."""

    kind: Literal["failed"] = "failed"
    code: FailureCode
    message: str


class Cancelled(Frozen):
    """The job was cancelled; images that were finished before are kept."""

    kind: Literal["cancelled"] = "cancelled"
    reason: CancelReason = "user"


class ModelLoading(Frozen):
    """The engine began to load the model."""

    kind: Literal["model_loading"] = "model_loading"
    model: str


class ModelLoaded(Frozen):
    """The model is in memory."""

    kind: Literal["model_loaded"] = "model_loaded"
    model: str
    seconds: float
    from_copy: bool = False
    """Whether it was loaded from a copy that was quantised before."""


class StepDone(Frozen):
    """One denoising step was evaluated. `step` counts from 1 to `steps`, the steps that this image really runs."""

    kind: Literal["step_done"] = "step_done"
    image: int
    step: int
    steps: int
    seconds: float


class Decoding(Frozen):
    """The VAE decodes latents to pixels; this cannot be interrupted."""

    kind: Literal["decoding"] = "decoding"
    image: int


class Denoised(Frozen):
    """The last image of the job is only still decoded: the engine may take the next job meanwhile."""

    kind: Literal["denoised"] = "denoised"
    image: int


class Preview(Frozen):
    """Preview of an unfinished image: a small JPEG."""

    kind: Literal["preview"] = "preview"
    image: int
    step: int
    jpeg_base64: str


class Drawn(Frozen):
    """The pixels of one image are in the spool as a binary PPM; the gateway encodes and stores them."""

    kind: Literal["drawn"] = "drawn"
    image: int
    seed: int
    spool: str
    width_px: int
    height_px: int
    drawn_px: tuple[int, int]
    seconds: float
    cut_short: bool = False
    """Whether the remaining steps were skipped."""


EngineFact = Annotated[
    ModelLoading
    | ModelLoaded
    | PromptRead
    | StepDone
    | Decoding
    | Denoised
    | Preview
    | Drawn
    | Succeeded
    | Failed
    | Cancelled,
    Field(discriminator="kind"),
]
"""Facts that the child may report of the job that it runs."""
