"""Progress, interrupt and skip of the caller's jobs, and tasks by `force_task_id`."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapters.sdapi.progress import progress_of, running_task, waiting_of, waiting_task
from adapters.sdapi.protocol import PROTOCOL, body_of
from adapters.sdapi.request_schemas import TaskProgress
from adapters.sdapi.response_schemas import Pending
from adapters.sdapi.state import MOST_TASKS, state_of
from adapters.sdapi.values import TRUE
from adapters.shared.context import core_of, owner_of
from engine.protocol import Generate, Upscale
from gateway.errors import JobDamaged, JobNotFound
from gateway.jobs.job import Job, State

INTERRUPT_WAIT_S = 0.5
"""Seconds to wait until an interrupt takes effect; A1111 answers at once."""


async def progress(request: Request) -> Response:
    """Of the job that runs, whoever asked for it; its preview only for its owner. Of several the owner's is shown."""
    service, owner = core_of(request).service, owner_of(request)
    job = service.running(owner, PROTOCOL)
    newest = service.events.progress(job.id) if job else None
    if job is None and (waiting := await _own_waiting(request)) is not None:
        forecast = service.events.forecast(waiting)
        place = await _place(request, waiting.id)
        text = service.events.waits_for(waiting) or (f"In queue: {place[0]}/{place[1]}" if place else "Waiting...")
        return JSONResponse(waiting_of(waiting, text, 0.0 if forecast is None else forecast.expected_s))
    skip = request.query_params.get("skip_current_image", "").lower() in TRUE
    skipped = job is not None and state_of(core_of(request)).skipped == job.id
    body = progress_of(job, newest, owner=owner, with_image=not skip, skipped=skipped)
    return JSONResponse(body)


async def _own_waiting(request: Request) -> Job | None:
    jobs = await core_of(request).service.list_jobs(
        owner=owner_of(request), protocol=PROTOCOL, states=(State.QUEUED,), limit=1
    )
    return jobs[0] if jobs else None


async def interrupt(request: Request) -> Response:
    """Stops the caller's own running /sdapi picture and nothing that comes after it."""
    if (job := _own_drawing(request)) is not None:
        with contextlib.suppress(TimeoutError, JobDamaged, JobNotFound):
            await asyncio.wait_for(core_of(request).service.cancel(job.id, owner_of(request)), INTERRUPT_WAIT_S)
    return JSONResponse({})


async def skip(request: Request) -> Response:
    """Finishes the picture that is drawn for the caller as it stands; the job goes on with the next one."""
    if (job := _own_drawing(request)) is not None:
        core_of(request).service.skip(job.id)
        state_of(core_of(request)).skipped = job.id
    return JSONResponse(None)


def _own_drawing(request: Request) -> Job | None:
    """The running job, where it is an image job of this caller and this protocol."""
    job = core_of(request).service.running(owner_of(request), PROTOCOL)
    is_own = job is not None and job.protocol == PROTOCOL and job.owner == owner_of(request)
    return job if job is not None and is_own and isinstance(job.plan, Generate | Upscale) else None


async def ping(_: Request) -> Response:
    """The server answers."""
    return JSONResponse({})


async def task_progress(request: Request) -> Response:
    """Of the caller's own task, by the `force_task_id` it was sent with."""
    body = await body_of(TaskProgress, request)
    service, owner = core_of(request).service, owner_of(request)
    job_id = state_of(core_of(request)).tasks.job_of(owner, body.id_task)
    newest = service.events.progress(job_id) if job_id else None
    if newest is not None:
        return JSONResponse(running_task(newest, seen=body.id_live_preview, with_image=body.live_preview))
    job = await _known(request, job_id)
    reason = None if job is None else service.events.waits_for(job)
    return JSONResponse(waiting_task(None if job is None else job.state, await _place(request, job_id), reason))


async def _known(request: Request, job_id: str | None) -> Job | None:
    with contextlib.suppress(JobDamaged, JobNotFound):
        return await core_of(request).service.get(job_id) if job_id else None
    return None


async def _place(request: Request, job_id: str | None) -> tuple[int, int] | None:
    """The position of a job in the queue, counted from 1, and the number of jobs in the queue."""
    service = core_of(request).service
    ahead = await service.queue.position(job_id) if job_id else None
    return None if ahead is None else (ahead, max(ahead, service.queue.depth("engine")))


async def pending_tasks(request: Request) -> Response:
    """The caller's own tasks that wait or run."""
    own = state_of(core_of(request)).tasks.of(owner_of(request))
    jobs = await core_of(request).service.list_jobs(
        owner=owner_of(request), states=(State.QUEUED, State.RUNNING), limit=MOST_TASKS
    )
    live = {job.id for job in jobs}
    tasks = [task for task, job_id in own.items() if job_id in live]
    return JSONResponse(Pending(size=len(tasks), tasks=tasks))
