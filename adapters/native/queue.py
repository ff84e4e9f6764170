"""The queue as a whole: who runs, who waits, and whether it goes on."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapters.native.answers import to_brief, to_progress
from adapters.native.jobs import service_of
from adapters.native.request import QueueQuery
from adapters.native.shapes import Active, Paused, Queue, Waiting
from adapters.shared.body import query
from adapters.shared.context import owner_of
from gateway.jobs.plans import LANES

SLICE = 50
"""Jobs shown between two looks of the loop at others."""


async def queue(request: Request) -> Response:
    """GET queue: Show your own jobs by name, a page of them, everybody's by count."""
    asked = query(QueueQuery, request)
    service, owner = service_of(request), owner_of(request)
    running = service.running()
    progress = service.progress(running.id) if running else None
    active: Active | None = None
    if running is not None and running.owner == owner and progress is not None:
        active = {**to_brief(running), **to_progress(progress)}
        if (forecast := service.forecast(running)) is not None:
            active["eta_seconds"] = round(forecast.expected_s, 2)
    queued: list[Waiting] = []
    waiting = await service.queue.waiting(owner=owner, limit=asked.limit, offset=asked.offset)
    for n, job in enumerate(waiting, 1):
        if n % SLICE == 0:
            await asyncio.sleep(0)
        if (position := await service.queue.position(job.id)) is not None:
            forecast = service.forecast(job)
            eta_s = None if forecast is None else round(forecast.expected_s, 2)
            queued.append({**to_brief(job), "position": position, "eta_seconds": eta_s})
    answer: Queue = {
        "active": active,
        "queued": queued,
        "running_count": 1 if running else 0,
        "pending_count": sum(service.queue.depth(lane) for lane in LANES),
        "paused": service.queue.paused,
    }
    return await asyncio.to_thread(JSONResponse, answer)


async def pause(request: Request) -> Response:
    """POST queue/pause: Begin no more pictures until it is resumed, over restarts, too; what runs goes on."""
    return await _paused(request, True)


async def resume(request: Request) -> Response:
    """POST queue/resume: Go on with what waits."""
    return await _paused(request, False)


async def _paused(request: Request, paused: bool) -> Response:
    service, owner = service_of(request), owner_of(request)
    await (service.queue.pause(owner) if paused else service.queue.resume(owner))
    answer: Paused = {"paused": service.queue.paused}
    return JSONResponse(answer)
