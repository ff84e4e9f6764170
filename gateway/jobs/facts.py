"""Facts of a job that the gateway itself records, and the unions of all facts that are stored or sent."""

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
    """The job is on disk and waits in the queue."""

    kind: Literal["queued"] = "queued"


class Started(Frozen):
    """A lane claimed the job. `attempt` counts from 1 and fences every later write."""

    kind: Literal["started"] = "started"
    attempt: int


class ImageDone(Frozen):
    """One image is complete on disk as `file`, a server-made name in the output folder.

    `length_bytes` and `sha256` (hex) are of that file as it was written; None in records of older gateways.
    """

    kind: Literal["image_done"] = "image_done"
    image: int
    seed: int
    file: str
    width_px: int
    height_px: int
    drawn_px: tuple[int, int]
    """Width and height at which the model generated; differs from the size where a model has one native size only."""
    seconds: float
    cut_short: bool = False
    """Whether the remaining steps were skipped."""
    length_bytes: int | None = None
    sha256: str | None = None


class TextLine(Frozen):
    """One line of text. `box` is its four corners (x, y), clockwise from the top left, in pixels of the page."""

    box: tuple[tuple[float, float], ...] = ()
    """Empty where the OCR model gives no box."""
    text: str
    score: float | None = None
    """Confidence of the OCR model: 0 to 1."""


class UnreadLine(Frozen):
    """One line that was detected and not read. `box` is as a TextLine's."""

    box: tuple[tuple[float, float], ...]
    reason: Literal["unsure", "time"]
    """`unsure`: the text cannot be trusted, as in a script that the reader does not know. `time`: the page took too
    long.
    """


class PageRead(Frozen):
    """One page was read. `page` counts from 0 within the job; its lines are in reading order."""

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
    """A client requested the cancel of a running job."""

    kind: Literal["cancel_requested"] = "cancel_requested"
    reason: CancelReason = "user"


class Requeued(Frozen):
    """The job lost its lease and waits again, at its first seed without an image or its first unread page."""

    kind: Literal["requeued"] = "requeued"
    reason: RequeueReason


class ModelDownloading(Frozen):
    """Progress of a model's download, reported for the download itself and for the jobs that wait for it."""

    kind: Literal["model_downloading"] = "model_downloading"
    model: str
    done_bytes: int
    """Bytes that are on disk already are counted."""
    total_bytes: int
    bytes_per_s: float | None = None
    """Over the last seconds; None before a rate is known."""


class Reading(Frozen):
    """The text of one page is being read; this cannot be interrupted. `page` counts from 0 within the job."""

    kind: Literal["reading"] = "reading"
    page: int
    percent: int = 0
    """Share of the page that is done."""


StateFact = Annotated[
    Queued | Started | PromptRead | ImageDone | PageRead | CancelRequested | Requeued | Succeeded | Failed | Cancelled,
    Field(discriminator="kind"),
]
"""Facts that are stored with a `seq`; a job is folded from these."""

ProgressFact = Annotated[
    ModelDownloading | ModelLoading | ModelLoaded | StepDone | Decoding | Preview | Reading,
    Field(discriminator="kind"),
]
"""Facts that are only broadcast; the newest is kept."""
