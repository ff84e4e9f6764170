"""Server-sent events. State events carry an id by which a stream goes on after it; progress carries none.

Source: the HTML standard, section 9.2. An event is encoded once, however many listen.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response

from adapters.native.answers import to_job, to_result
from adapters.native.events import SnapshotData, body, frame, position_body, progress_body, state_body
from adapters.native.jobs import own_job, service_of
from adapters.native.request import EventsQuery, StreamQuery
from adapters.shared.body import query
from adapters.shared.context import core_of, owner_of
from adapters.shared.sse import event_stream
from engine.protocol import Cancelled, Failed, Succeeded
from gateway.context import Core
from gateway.events.bus import Event, PlaceEvent, ProgressEvent, Snapshot
from gateway.jobs.job import Job, JobEvent, State

RETRY = b"retry: 2000\n\n"
KEPT_FRAMES = 256


class Encoded:
    """Frames but for their ids, by the event they tell of. Those with pictures are shared only while they are made."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, tuple[Event, bytes]] = OrderedDict()
        self._made: dict[str, asyncio.Task[bytes]] = {}

    def of(self, event: Event) -> bytes:
        found = self._kept.get(id(event))
        if found is not None and found[0] is event:
            return found[1]
        rest = _encoded(event)
        self._kept[id(event)] = (event, rest)  # the event is held, so no other one has its id
        if len(self._kept) > KEPT_FRAMES:
            self._kept.popitem(last=False)
        return rest

    async def with_result(self, request: Request, event: JobEvent) -> bytes:
        """The end of a success, with its pictures."""
        task = self._made.get(event.job_id)
        if task is None:
            task = self._made[event.job_id] = asyncio.create_task(self._complete(request, event))
            task.add_done_callback(lambda _: self._made.pop(event.job_id, None))
        return await asyncio.shield(task)

    @staticmethod
    async def _complete(request: Request, event: JobEvent) -> bytes:
        result = await to_result(request, await service_of(request).get(event.job_id))
        return await asyncio.to_thread(state_body, event, result)


def _encoded(event: Event) -> bytes:
    match event:
        case JobEvent():
            return state_body(event)
        case ProgressEvent():
            return progress_body(event)
        case PlaceEvent():
            return position_body(event)


def encoded(core: Core) -> Encoded:
    found: Encoded = core.kept.setdefault("native-frames", Encoded())
    return found


async def stream(request: Request) -> Response:
    """GET jobs/{id}/stream: Follow a job to its end; 204 once that was delivered, so that an EventSource stops asking.

    `queued`, `started`, `adjusted`, `image`, `complete`, `error` and `cancelled` have an id, and a stream with that
    Last-Event-ID goes on after it. Of `progress`, `loading` and `preview` only the newest are sent to a slow reader.
    `shutdown` says that the gateway stops.
    """
    asked = query(StreamQuery, request)
    own = await own_job(request)
    after = last_seq(last_event_id(request, asked), own.id)
    if own.state is not None and own.state.terminal and after >= own.seq:
        return Response(status_code=204)
    with core_of(request).streams(owner_of(request)):  # refused before the stream begins, counted while it lasts
        return event_stream(request, frames(request, own, after, with_images=asked.images))


async def frames(request: Request, job: Job, after: int, *, with_images: bool) -> AsyncGenerator[bytes, None]:
    """Replay after `after`, then live, to the end; a gateway that stops says so."""
    core = core_of(request)
    ready = encoded(core)
    last: Event | None = None
    with core.streams(owner_of(request)):
        yield RETRY
        async with aclosing(core.service.watch(job.id, after)) as events:
            async for last in events:
                if not isinstance(last, JobEvent):
                    yield ready.of(last)
                elif with_images and isinstance(last.fact, Succeeded):
                    yield frame(f"{job.id}:{last.seq}", await ready.with_result(request, last))
                else:
                    yield frame(f"{job.id}:{last.seq}", ready.of(last))
    if not isinstance(last, JobEvent) or not isinstance(last.fact, Succeeded | Failed | Cancelled):
        yield body("shutdown", {"job_id": job.id})


async def events(request: Request) -> Response:
    """GET events: Follow all your jobs on one stream, those of other protocols included.

    It opens with a `snapshot` of what waits and runs; with a Last-Event-ID it goes on after that event, without one.
    """
    last = last_event_id(request, query(EventsQuery, request))
    after = int(last) if last.isascii() and last.isdigit() and len(last) < 17 else None
    with core_of(request).streams(owner_of(request)):
        return event_stream(request, all_frames(request, after))


async def all_frames(request: Request, after: int | None) -> AsyncGenerator[bytes, None]:
    """Until the gateway stops, or the reader is so slow that it must come back."""
    core = core_of(request)
    ready = encoded(core)
    with core.streams(owner_of(request)):
        yield RETRY
        async with aclosing(core.service.events.watch_all(owner_of(request), after)) as found:
            async for event in found:
                match event:
                    case Snapshot():
                        yield frame(event.number, await asyncio.to_thread(snapshot_body, event))
                    case JobEvent():
                        yield frame(event.number, ready.of(event))
                    case ProgressEvent() | PlaceEvent():
                        yield ready.of(event)
    yield body("shutdown", {})


def snapshot_body(snapshot: Snapshot) -> bytes:
    """Takes some ten milliseconds for a long queue."""
    return body("snapshot", to_snapshot(snapshot))


def to_snapshot(snapshot: Snapshot) -> SnapshotData:
    progress = {n.job_id: n.progress for n in snapshot.newest if isinstance(n, ProgressEvent)}
    places = {n.job_id: n for n in snapshot.newest if isinstance(n, PlaceEvent)}
    jobs = []
    for job in snapshot.jobs:
        place = places.get(job.id)
        position = 0 if job.state is State.RUNNING else place.position if place else None
        kept_by = place.waits_for if place else None
        jobs.append(to_job(job, position, progress.get(job.id), place.forecast if place else None, kept_by))
    left_out = snapshot.count > len(jobs)
    return {"jobs": jobs, "total": snapshot.count} if left_out else {"jobs": jobs}


def last_event_id(request: Request, query: EventsQuery) -> str:
    """The id after which a stream goes on, empty for none: of the header, else of the query."""
    return request.headers.get("last-event-id") or query.last_event_id or ""


def last_seq(event_id: str, job_id: str) -> int:
    """The number in `<job>:<seq>`; anything else begins at the beginning."""
    owner, _, seq = event_id.rpartition(":")
    return int(seq) if owner == job_id and seq.isascii() and seq.isdigit() and len(seq) < 10 else 0
