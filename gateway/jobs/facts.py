"""Facts of a job that the gateway records itself, and the unions of all facts that are stored or sent."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from engine.protocol import (
    Cancelled,
    CancelReason,
    Decoding,
    Failed,
    Frozen,
    ModelLoaded,
    ModelLoading,
    Preview,
    PromptRead,
    StepDone,
    Succeeded,
)

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


class ModelDownloading(Frozen):
    """So much of the model has come from the hub; told of the download itself and of the jobs that wait for it."""

    kind: Literal["model_downloading"] = "model_downloading"
    model: str
    done_bytes: int
    """What lies on disk already is counted."""
    total_bytes: int
    bytes_per_s: float | None = None
    """Over the last seconds; None before there is a pace."""


class Reading(Frozen):
    """The text of one page is looked for; this cannot be interrupted. `page` counts from 0 within the job."""

    kind: Literal["reading"] = "reading"
    page: int
    percent: int = 0
    """Of the page, what is done."""


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
