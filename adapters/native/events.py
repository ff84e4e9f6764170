"""What happens to a job, as the data of server-sent events. Pure; knows no stream and no picture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from adapters.native.answers import (
    PREFIX,
    STATUS,
    image_id,
    image_url,
    iso,
    to_adjustments,
    to_bytes,
    to_forecast,
    to_progress,
)
from adapters.native.shapes import AdjustmentShown, BytesShown, JobShown, ProgressShown, Result, Status
from engine.protocol import Cancelled, Failed, ModelLoading, Preview, PromptRead, Succeeded
from gateway.events.bus import PlaceEvent, ProgressEvent
from gateway.jobs import prompt_reading
from gateway.jobs.facts import CancelRequested, ImageDone, ModelDownloading, PageRead, Queued, Requeued, Started
from gateway.jobs.job import JobEvent, State


class AJob(TypedDict):
    job_id: str


class Happened(AJob):
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


class ProgressData(AJob, ProgressShown):
    status: Status


class LoadingData(ProgressData):
    """The model is brought into memory."""

    model: str


class DownloadingData(AJob, BytesShown):
    """The model comes from the hub, for this job or as this job; `eta_seconds` is until the job is done."""

    eta_seconds: float | None


class PreviewData(AJob):
    """A preview can be fetched; `url` is another one for each."""

    image: int
    step: int
    url: str


class PositionData(AJob):
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


def body(event: str, data: Mapping[str, Any]) -> bytes:
    """A frame but for its id."""
    return f"event: {event}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


def frame(event_id: object, rest: bytes) -> bytes:
    return f"id: {event_id}\n".encode() + rest


def position_body(event: PlaceEvent) -> bytes:
    data: PositionData = {
        "job_id": event.job_id,
        "status": "queued",
        "position": event.position,
        "eta_seconds": None,
    }
    if event.forecast is not None:
        data |= to_forecast(event.forecast)  # type: ignore[typeddict-item]
    if event.waits_for is not None:
        data["waits_for"] = event.waits_for
    return body("position", data)


def progress_body(event: ProgressEvent) -> bytes:
    progress: ProgressData = {
        "job_id": event.job_id,
        "status": STATUS[State.RUNNING],
        **to_progress(event.progress),
    }
    match event.fact:
        case Preview(image=image, step=step):
            url = f"{PREFIX}/jobs/{event.job_id}/preview?at={image}-{step}"
            preview: PreviewData = {"job_id": event.job_id, "image": image, "step": step, "url": url}
            return body("preview", preview)
        case ModelDownloading():
            left = event.progress.seconds_left
            coming: DownloadingData = {
                "job_id": event.job_id,
                **to_bytes(event.fact),
                "eta_seconds": None if left is None else round(left, 2),
            }
            return body("downloading", coming)
        case ModelLoading(model=model):
            loading: LoadingData = {**progress, "model": model}
            return body("loading", loading)
        case _:
            return body("progress", progress)


def state_body(event: JobEvent, result: Result | None = None) -> bytes:
    """`result` goes with the end of a success."""
    job_id = event.job_id
    base: Happened = {"job_id": job_id, "at": iso(event.at)}
    data: Happened
    match event.fact:
        case Queued():
            name, data = "queued", QueuedData(**base, status="queued")
        case Started(attempt=attempt):
            name, data = "started", StartedData(**base, status="generating", attempt=attempt)
        case PromptRead():
            told = to_adjustments(prompt_reading.to_adjustments(event.fact))
            name, data = "adjusted", AdjustedData(**base, adjustments=told)
        case ImageDone(image=image, seed=seed):
            url, own = image_url(job_id, image), image_id(job_id, image)
            name, data = "image", ImageData(**base, image=image, seed=seed, id=own, url=url)
        case PageRead(page=page):
            name, data = "page", PageData(**base, page=page, text=event.fact.text, unread=len(event.fact.unread))
        case CancelRequested():
            name, data = "cancel_requested", base
        case Requeued(reason=why):
            name, data = "requeued", RequeuedData(**base, status="queued", reason=why)
        case Succeeded():
            complete = CompleteData(job_id=job_id, at=base["at"], status="completed", progress=1.0)
            if result is not None:
                complete["result"] = result
            name, data = "complete", complete
        case Failed(code=code, message=message):
            name, data = "error", ErrorData(**base, status="failed", error=message, code=code.upper())
        case Cancelled(reason=reason):
            name, data = "cancelled", CancelledData(**base, status="cancelled", reason=reason)
    return body(name, data)
