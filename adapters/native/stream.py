"""What happens to a job, as server-sent events. State events carry an id, `<job>:<seq>`; progress carries none."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from starlette.requests import Request

from adapters.base import core_of
from adapters.native.answers import PREFIX, STATUS, iso, to_progress, to_result
from engine.protocol import (
    Cancelled,
    CancelRequested,
    Failed,
    ImageDone,
    PageRead,
    Preview,
    Queued,
    Requeued,
    Started,
    Succeeded,
)
from gateway.hub import Event, ProgressEvent
from gateway.job import Job, State


def frame(event: str, data: dict[str, Any], event_id: str | None = None) -> bytes:
    """One SSE frame. Only state events carry an id."""
    head = f"id: {event_id}\n" if event_id else ""
    return f"{head}event: {event}\ndata: {json.dumps(data)}\n\n".encode()


async def to_frame(request: Request, event: Event) -> bytes:
    """What happened, as `progress`, `preview`, `queued`, `started`, `image`, `requeued`, `complete` and so on."""
    if isinstance(event, ProgressEvent):
        if isinstance(event.fact, Preview):
            preview = {"image": event.fact.image, "step": event.fact.step, "jpeg": event.fact.jpeg_base64}
            return frame("preview", {"job_id": event.job_id, **preview})
        return frame(
            "progress", {"job_id": event.job_id, "status": STATUS[State.RUNNING], **to_progress(event.progress)}
        )
    job_id, event_id = event.job_id, f"{event.job_id}:{event.seq}"
    base = {"job_id": job_id, "at": iso(event.at)}
    match event.fact:
        case Queued():
            return frame("queued", {**base, "status": "queued"}, event_id)
        case Started(attempt=attempt):
            return frame("started", {**base, "status": "generating", "attempt": attempt}, event_id)
        case ImageDone(image=image, seed=seed):
            url = f"{PREFIX}/jobs/{job_id}/images/{image}"
            return frame("image", {**base, "image": image, "seed": seed, "url": url}, event_id)
        case PageRead(page=page):
            return frame("page", {**base, "page": page, "text": event.fact.text}, event_id)
        case CancelRequested():
            return frame("cancel_requested", base, event_id)
        case Requeued(reason=reason):
            return frame("requeued", {**base, "status": "queued", "reason": reason}, event_id)
        case Succeeded():
            job = await core_of(request).service.get(job_id)
            done = {**base, "status": "completed", "progress": 1.0, "result": await to_result(request, job)}
            return frame("complete", done, event_id)
        case Failed(code=code, message=message):
            return frame("failed", {**base, "status": "failed", "error": message, "code": code.upper()}, event_id)
        case Cancelled(reason=why):
            return frame("cancelled", {**base, "status": "cancelled", "reason": why}, event_id)


async def frames(request: Request, job: Job, after: int) -> AsyncIterator[bytes]:
    """Replay after `after`, then live, to the end; a gateway that stops says so."""
    core = core_of(request)
    last: Event | None = None
    with core.streams():
        yield b"retry: 2000\n\n"
        async with aclosing(core.service.watch(job.id, after)) as events:
            async for event in events:
                yield await to_frame(request, event)
                last = event
    if last is None or isinstance(last, ProgressEvent) or not isinstance(last.fact, Succeeded | Failed | Cancelled):
        yield frame("shutdown", {"job_id": job.id})


def last_seq(request: Request, job_id: str) -> int:
    """Source: the Last-Event-ID header, `<job>:<seq>`; anything else begins at the beginning."""
    owner, _, seq = request.headers.get("last-event-id", "").rpartition(":")
    return int(seq) if owner == job_id and seq.isascii() and seq.isdigit() and len(seq) < 10 else 0
