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
RequeueReason = Literal[
    "engine_crash", "engine_timeout", "gateway_restart", "lease_expired", "storage_fault", "released"
]


class Queued(Frozen):
    """The job is on disk and waits."""

    kind: Literal["queued"] = "queued"


class Started(Frozen):
    """A runner claimed the job; `attempt` counts from 1 and fences every later write."""

    kind: Literal["started"] = "started"
    attempt: int


class ImageDone(Frozen):
    """One picture is complete on disk under `file`, a server-made name in the output folder.

    `length_bytes` and `sha256` (hex) are of that file as it was written; None in records of older gateways.
    """

    kind: Literal["image_done"] = "image_done"
    image: int
    seed: int
    file: str
    width_px: int
    height_px: int
    drawn_px: tuple[int, int]
    """Width and height the model drew at; differs from the size where a model knows only its native one."""
    seconds: float
    cut_short: bool = False
    """Somebody skipped the rest of its steps."""
    length_bytes: int | None = None
    sha256: str | None = None


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


class TextLine(Frozen):
    """One line of text. `box` is its four corners (x, y), clockwise from the top left, in pixels of the page."""

    box: tuple[tuple[float, float], ...] = ()
    """Empty where the model does not say."""
    text: str
    score: float | None = None
    """How sure the model is: 0 to 1."""


class UnreadLine(Frozen):
    """One line that was found and not read. `box` is as a TextLine's."""

    box: tuple[tuple[float, float], ...]
    reason: Literal["unsure", "time"]
    """What was recognised there is not to be trusted, as in a script the reader does not know; or the page took too
    long."""


class PageRead(Frozen):
    """One page was read; `page` counts from 0 within the job, its lines are in reading order."""

    kind: Literal["page_read"] = "page_read"
    page: int
    width_px: int
    height_px: int
    lines: tuple[TextLine, ...]
    unread: tuple[UnreadLine, ...] = ()
    seconds: float

    @property
    def text(self) -> str:
        return "\n".join(line.text for line in self.lines)


class CancelRequested(Frozen):
    """Somebody asked a running job to stop."""

    kind: Literal["cancel_requested"] = "cancel_requested"
    reason: CancelReason = "user"


class Requeued(Frozen):
    """The job lost its runner and waits again, at its first undrawn seed or unread page."""

    kind: Literal["requeued"] = "requeued"
    reason: RequeueReason


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


class ModelDownloading(Frozen):
    """So much of the model has come from the hub; told of the download itself and of the jobs that wait for it."""

    kind: Literal["model_downloading"] = "model_downloading"
    model: str
    done_bytes: int
    """What lies on disk already is counted."""
    total_bytes: int
    bytes_per_s: float | None = None
    """Over the last seconds; None before there is a pace."""


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


class Reading(Frozen):
    """The text of one page is looked for; this cannot be interrupted. `page` counts from 0 within the job."""

    kind: Literal["reading"] = "reading"
    page: int
    percent: int = 0
    """Of the page, what is done."""


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


StateFact = Annotated[
    Queued | Started | PromptRead | ImageDone | PageRead | CancelRequested | Requeued | Succeeded | Failed | Cancelled,
    Field(discriminator="kind"),
]
"""Stored with a `seq`; a job is folded from these."""

ProgressFact = Annotated[
    ModelDownloading | ModelLoading | ModelLoaded | StepDone | Decoding | Preview | Reading,
    Field(discriminator="kind"),
]
"""Broadcast only; the newest is kept."""

EngineFact = Annotated[
    ModelLoading | ModelLoaded | PromptRead | StepDone | Decoding | Preview | Drawn | Succeeded | Failed | Cancelled,
    Field(discriminator="kind"),
]
"""What the child may say of the job it holds."""
