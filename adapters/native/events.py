"""Server-sent events of jobs, encoded but for their ids. Pure; knows no connection and no image."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from adapters.native.event_schemas import (
    AdjustedData,
    CancelledData,
    CompleteData,
    DownloadingData,
    ErrorData,
    Happened,
    ImageData,
    LoadingData,
    PageData,
    PositionData,
    PreviewData,
    ProgressData,
    QueuedData,
    RequeuedData,
    SnapshotData,
    StartedData,
)
from adapters.native.response_schemas import Result
from adapters.native.responses import (
    PREFIX,
    STATUS,
    image_id,
    image_url,
    iso,
    to_adjustments,
    to_bytes,
    to_forecast,
    to_job,
    to_progress,
)
from engine.protocol import Cancelled, Failed, ModelLoading, Preview, PromptRead, Succeeded
from gateway.events.bus import Event, PlaceEvent, ProgressEvent, Snapshot
from gateway.jobs import prompt_reading
from gateway.jobs.facts import CancelRequested, ImageDone, ModelDownloading, PageRead, Queued, Requeued, Started
from gateway.jobs.job import JobEvent, State


def encode(name: str, data: Mapping[str, Any]) -> bytes:
    """A frame but for its id."""
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


def add_id(event_id: object, encoded: bytes) -> bytes:
    return f"id: {event_id}\n".encode() + encoded


def encode_event(event: Event) -> bytes:
    match event:
        case JobEvent():
            return encode_state(event)
        case ProgressEvent():
            return encode_progress(event)
        case PlaceEvent():
            return encode_position(event)


def encode_position(event: PlaceEvent) -> bytes:
    data: PositionData = {
        "job_id": event.job_id,
        "status": "queued",
        "position": event.position,
        "eta_seconds": None,
    }
    if event.forecast is not None:
        data = {**data, **to_forecast(event.forecast)}
    if event.waits_for is not None:
        data["waits_for"] = event.waits_for
    return encode("position", data)


def encode_progress(event: ProgressEvent) -> bytes:
    progress: ProgressData = {
        "job_id": event.job_id,
        "status": STATUS[State.RUNNING],
        **to_progress(event.progress),
    }
    match event.fact:
        case Preview(image=image, step=step):
            url = f"{PREFIX}/jobs/{event.job_id}/preview?at={image}-{step}"
            preview: PreviewData = {"job_id": event.job_id, "image": image, "step": step, "url": url}
            return encode("preview", preview)
        case ModelDownloading():
            left_s = event.progress.seconds_left
            download: DownloadingData = {
                "job_id": event.job_id,
                **to_bytes(event.fact),
                "eta_seconds": None if left_s is None else round(left_s, 2),
            }
            return encode("downloading", download)
        case ModelLoading(model=model):
            loading: LoadingData = {**progress, "model": model}
            return encode("loading", loading)
        case _:
            return encode("progress", progress)


def encode_state(event: JobEvent, result: Result | None = None) -> bytes:
    """A state event; `result` is that of a job that succeeded."""
    job_id = event.job_id
    base: Happened = {"job_id": job_id, "at": iso(event.at)}
    data: Happened
    match event.fact:
        case Queued():
            name, data = "queued", QueuedData(**base, status="queued")
        case Started(attempt=attempt):
            name, data = "started", StartedData(**base, status="generating", attempt=attempt)
        case PromptRead():
            adjustments = to_adjustments(prompt_reading.to_adjustments(event.fact))
            name, data = "adjusted", AdjustedData(**base, adjustments=adjustments)
        case ImageDone(image=image, seed=seed):
            url, own_id = image_url(job_id, image), image_id(job_id, image)
            name, data = "image", ImageData(**base, image=image, seed=seed, id=own_id, url=url)
        case PageRead(page=page):
            name, data = "page", PageData(**base, page=page, text=event.fact.text, unread=len(event.fact.unread))
        case CancelRequested():
            name, data = "cancel_requested", base
        case Requeued(reason=reason):
            name, data = "requeued", RequeuedData(**base, status="queued", reason=reason)
        case Succeeded():
            complete = CompleteData(job_id=job_id, at=base["at"], status="completed", progress=1.0)
            if result is not None:
                complete["result"] = result
            name, data = "complete", complete
        case Failed(code=code, message=message):
            name, data = "error", ErrorData(**base, status="failed", error=message, code=code.upper())
        case Cancelled(reason=reason):
            name, data = "cancelled", CancelledData(**base, status="cancelled", reason=reason)
    return encode(name, data)


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Takes some ten milliseconds for a long queue."""
    return encode("snapshot", to_snapshot(snapshot))


def to_snapshot(snapshot: Snapshot) -> SnapshotData:
    progress = {event.job_id: event.progress for event in snapshot.newest if isinstance(event, ProgressEvent)}
    places = {event.job_id: event for event in snapshot.newest if isinstance(event, PlaceEvent)}
    jobs = []
    for job in snapshot.jobs:
        place = places.get(job.id)
        position = 0 if job.state is State.RUNNING else place.position if place else None
        forecast, waits_for = (place.forecast, place.waits_for) if place else (None, None)
        jobs.append(to_job(job, position, progress.get(job.id), forecast, waits_for))
    data: SnapshotData = {"jobs": jobs}
    if snapshot.count > len(jobs):
        data["total"] = snapshot.count
    return data
