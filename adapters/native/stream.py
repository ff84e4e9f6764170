"""Server-sent events of one job, or of all jobs of an owner. A stream goes on after the id of a state event;
progress has no id.

Source: the HTML standard, section 9.2. An event is encoded once, however many clients listen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response

from adapters.native.events import add_id, encode, encode_snapshot
from adapters.native.jobs import own_job
from adapters.native.request_schemas import EventsQuery, StreamQuery
from adapters.native.state import frames_of
from adapters.shared.body import query
from adapters.shared.context import core_of, owner_of
from adapters.shared.sse import event_stream
from engine.protocol import Cancelled, Failed, Succeeded
from gateway.events.bus import Event, PlaceEvent, ProgressEvent, Snapshot
from gateway.jobs.job import Job, JobEvent

RETRY = b"retry: 2000\n\n"


async def stream_job(request: Request) -> Response:
    """GET jobs/{id}/stream: Follow a job to its end; 204 once that was delivered, so that an EventSource stops asking.

    `queued`, `started`, `adjusted`, `image`, `complete`, `error` and `cancelled` have an id, and a stream with that
    Last-Event-ID goes on after it. Of `progress`, `loading` and `preview` only the newest are sent to a slow reader.
    `shutdown` says that the gateway stops.
    """
    params = query(StreamQuery, request)
    job = await own_job(request)
    after = seq_of(last_event_id(request, params), job.id)
    if job.state is not None and job.state.terminal and after >= job.seq:
        return Response(status_code=204)
    with core_of(request).streams(owner_of(request)):  # refused before the stream begins, counted while it lasts
        return event_stream(request, job_frames(request, job, after, with_images=params.images), opening=RETRY)


async def job_frames(request: Request, job: Job, after: int, *, with_images: bool) -> AsyncGenerator[bytes, None]:
    """Frames of the events after `after`, then of live ones, to the end; `shutdown` where the gateway stops."""
    core = core_of(request)
    cache = frames_of(core)
    last: Event | None = None
    with core.streams(owner_of(request)):
        async with aclosing(core.service.watch(job.id, after)) as events:
            async for last in events:
                if not isinstance(last, JobEvent):
                    yield cache.of(last)
                elif with_images and isinstance(last.fact, Succeeded):
                    yield add_id(f"{job.id}:{last.seq}", await cache.with_result(request, last))
                else:
                    yield add_id(f"{job.id}:{last.seq}", cache.of(last))
    if not isinstance(last, JobEvent) or not isinstance(last.fact, Succeeded | Failed | Cancelled):
        yield encode("shutdown", {"job_id": job.id})


async def stream_all(request: Request) -> Response:
    """GET events: Follow all your jobs on one stream, those of other protocols included.

    It opens with a `snapshot` of what waits and runs; with a Last-Event-ID it goes on after that event, without one.
    """
    last_id = last_event_id(request, query(EventsQuery, request))
    after = int(last_id) if last_id.isascii() and last_id.isdigit() and len(last_id) < 17 else None
    with core_of(request).streams(owner_of(request)):
        return event_stream(request, all_frames(request, after), opening=RETRY)


async def all_frames(request: Request, after: int | None) -> AsyncGenerator[bytes, None]:
    """Frames until the gateway stops, or the reader is so slow that it must connect again."""
    core = core_of(request)
    cache = frames_of(core)
    with core.streams(owner_of(request)):
        async with aclosing(core.service.events.watch_all(owner_of(request), after)) as events:
            async for event in events:
                match event:
                    case Snapshot():
                        yield add_id(event.number, await asyncio.to_thread(encode_snapshot, event))
                    case JobEvent():
                        yield add_id(event.number, cache.of(event))
                    case ProgressEvent() | PlaceEvent():
                        yield cache.of(event)
    yield encode("shutdown", {})


def last_event_id(request: Request, params: EventsQuery) -> str:
    """The id after which a stream goes on, empty for none: of the header, else of the query."""
    return request.headers.get("last-event-id") or params.last_event_id or ""


def seq_of(event_id: str, job_id: str) -> int:
    """The number in `<job>:<seq>`; 0, the beginning, for anything else."""
    owner, _, seq = event_id.rpartition(":")
    return int(seq) if owner == job_id and seq.isascii() and seq.isdigit() and len(seq) < 10 else 0
