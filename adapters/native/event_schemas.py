"""Types of the data of server-sent events, by the event's name. Knows no job and no stream."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from adapters.native.response_schemas import AdjustmentShown, BytesShown, JobShown, ProgressShown, Result, Status


class JobData(TypedDict):
    job_id: str


class Happened(JobData):
    """Something that is on disk: its event has an id."""

    at: str


class QueuedData(Happened):
    status: Literal["queued"]


class StartedData(Happened):
    status: Literal["generating"]
    attempt: int


class AdjustedData(Happened):
    """The model read a prompt, and not all of it: what joins the job's `adjustments`."""

    adjustments: list[AdjustmentShown]


class ImageData(Happened):
    """A picture is finished."""

    image: int
    seed: int
    id: str
    url: str


class PageData(Happened):
    """A page was read."""

    page: int
    text: str
    unread: int
    """Lines that were found and not read."""


class RequeuedData(Happened):
    """The engine or the gateway stopped under it, or a disk was at fault; it goes on where it was."""

    status: Literal["queued"]
    reason: str


class CompleteData(Happened):
    """All is done. `result` is there on the stream of one job, unless `images` says no."""

    status: Literal["completed"]
    progress: float
    result: NotRequired[Result]


class ErrorData(Happened):
    status: Literal["failed"]
    error: str
    code: str


class CancelledData(Happened):
    status: Literal["cancelled"]
    reason: str


class ProgressData(JobData, ProgressShown):
    status: Status


class LoadingData(ProgressData):
    """The model is brought into memory."""

    model: str


class DownloadingData(JobData, BytesShown):
    """The model comes from the hub, for this job or as this job; `eta_seconds` is until the job is done."""

    eta_seconds: float | None


class PreviewData(JobData):
    """A preview can be fetched; `url` is another one for each."""

    image: int
    step: int
    url: str


class PositionData(JobData):
    """Where a waiting job stands now, and when it is expected to be done, as in a job's `forecast`; else why not.

    `waits_for` says why nothing begins. While the engine is down `eta_seconds` is null and there is no more of it.
    """

    status: Literal["queued"]
    position: int
    eta_seconds: float | None
    wait_seconds: NotRequired[float]
    earliest_seconds: NotRequired[float]
    latest_seconds: NotRequired[float]
    waits_for: NotRequired[str]


class SnapshotData(TypedDict):
    """Your jobs that wait or run, when the stream begins: those that run and the first 500.

    `total` counts all, where some are left out.
    """

    jobs: list[JobShown]
    total: NotRequired[int]


EVENTS: dict[str, Any] = {
    "queued": QueuedData,
    "position": PositionData,
    "started": StartedData,
    "downloading": DownloadingData,
    "loading": LoadingData,
    "progress": ProgressData,
    "preview": PreviewData,
    "adjusted": AdjustedData,
    "image": ImageData,
    "page": PageData,
    "requeued": RequeuedData,
    "cancel_requested": Happened,
    "complete": CompleteData,
    "error": ErrorData,
    "cancelled": CancelledData,
    "shutdown": dict[str, str],
}
ALL_EVENTS: dict[str, Any] = {"snapshot": SnapshotData, **EVENTS}
