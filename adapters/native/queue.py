"""Endpoints of the queue: the running job, the waiting ones, pause and resume."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapters.native.jobs import JOBS_PER_TURN
from adapters.native.request_schemas import QueueQuery
from adapters.native.response_schemas import Active, Paused, Queue, Waiting
from adapters.native.responses import to_brief, to_eta_seconds, to_progress
from adapters.shared.body import query
from adapters.shared.context import core_of, owner_of
from gateway.jobs.plans import LANES


async def get_queue(request: Request) -> Response:
    """GET queue: Show your own jobs by name, a page of them, everybody's by count.

    Where several workers draw, `active` is the first of your own running jobs, and `running_count` counts all.
    """
    params = query(QueueQuery, request)
    service, owner = core_of(request).service, owner_of(request)
    running = service.running(owner)
    progress = service.events.progress(running.id) if running else None
    active: Active | None = None
    if running is not None and running.owner == owner and progress is not None:
        active = {**to_brief(running), **to_progress(progress)}
        if (forecast := service.events.forecast(running)) is not None:
            active["eta_seconds"] = to_eta_seconds(forecast)
    queued: list[Waiting] = []
    waiting = await service.queue.waiting(owner=owner, limit=params.limit, offset=params.offset)
    for n, job in enumerate(waiting, 1):
        if n % JOBS_PER_TURN == 0:
            await asyncio.sleep(0)
        if (position := await service.queue.position(job.id)) is not None:
            eta_s = to_eta_seconds(service.events.forecast(job))
            queued.append({**to_brief(job), "position": position, "eta_seconds": eta_s})
    answer: Queue = {
        "active": active,
        "queued": queued,
        "running_count": len(service.engines.running_jobs()),
        "pending_count": sum(service.queue.depth(lane) for lane in LANES),
        "paused": service.queue.paused,
    }
    return await asyncio.to_thread(JSONResponse, answer)


async def pause(request: Request) -> Response:
    """POST queue/pause: Begin no more pictures until it is resumed, over restarts, too; what runs goes on."""
    service = core_of(request).service
    await service.queue.pause(owner_of(request))
    return JSONResponse(Paused(paused=service.queue.paused))


async def resume(request: Request) -> Response:
    """POST queue/resume: Go on with what waits."""
    service = core_of(request).service
    await service.queue.resume(owner_of(request))
    return JSONResponse(Paused(paused=service.queue.paused))
