"""Endpoints of tasks: submit, status, image, list, cancel, clear."""

from __future__ import annotations

import asyncio
import base64
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import Response

from adapters.mflux_server.errors import client_param_names
from adapters.mflux_server.requests import to_origin, to_request
from adapters.mflux_server.responses import (
    NO_STORE,
    empty_response,
    json_response,
    to_done,
    to_submitted,
    to_task,
    to_waiting,
)
from adapters.mflux_server.schemas import GenerateBody, ImageQuery
from adapters.mflux_server.state import PROTOCOL, Encoding
from adapters.shared.body import parse, query
from adapters.shared.context import core_of, owner_of
from adapters.shared.responses import adjustments_header, png_of, raise_for
from engine.protocol import Generate
from gateway.errors import JobNotFound, StorageFault
from gateway.images.codec import encode
from gateway.jobs.job import Job, State
from gateway.jobs.plans import LANES

TASKS_MOST = 1000
LISTED = (State.QUEUED, State.RUNNING, State.SUCCEEDED, State.FAILED)


async def generate(request: Request) -> Response:
    """POST generate: the task is on disk when this answers. `task_length` counts the other jobs, whosever they are."""
    service = core_of(request).service
    body = await parse(GenerateBody, request)
    origin = to_origin(body, request)
    with client_param_names():
        job = await service.submit(await to_request(body, request), origin)
    others = sum(service.queue.depth(lane) + service.queue.running(lane) for lane in LANES) - 1
    return json_response(to_submitted(job, others, service.events.forecast(job)))


async def get_status(request: Request) -> Response:
    """GET status: `done` says that it is over; `error` beside it, that it failed. Clients know no third word."""
    service = core_of(request).service
    task = await _own_task(request)
    if task is None:
        return empty_response(404)
    position = await service.queue.position(task.id)
    if position is None:
        task = await service.get(task.id)  # it may have ended since
        return empty_response(404) if task.state is State.CANCELLED else json_response(to_done(task))
    return json_response(to_waiting(position, service.events.forecast(task), service.events.waits_for(task)))


async def get_image(request: Request) -> Response:
    """GET image: the picture as it was ordered; the task is then hidden unless `delete` says otherwise."""
    service, params = core_of(request).service, query(ImageQuery, request)
    task = await _own_task(request)
    if task is None or task.state in (State.QUEUED, State.RUNNING):
        return empty_response(404)
    raise_for(task)
    data, encoding = await png_of(request, task.images[0]), Encoding.of_note(task.note)
    if not encoding.is_png:
        data = await asyncio.to_thread(encode, data, format="jpeg", quality=encoding.quality)
    if params.delete:
        with suppress(StorageFault):  # the client gets its image; the task stays listed
            await service.hide([task.id])
    headers = {**NO_STORE, **adjustments_header(task.all_adjustments)}
    if params.base64:
        return Response(base64.b64encode(data), media_type="text/plain", headers=headers)
    return Response(data, media_type=encoding.media_type, headers=headers)


async def list_tasks(request: Request) -> Response:
    """GET tasks: a bare array, the oldest first."""
    jobs = await _list_jobs(request)

    def answer() -> Response:
        return json_response([to_task(job, job.plan) for job in reversed(jobs) if isinstance(job.plan, Generate)])

    return await asyncio.to_thread(answer)


async def cancel(request: Request) -> Response:
    """GET cancel: a waiting or running task is stopped, a finished one hidden."""
    service = core_of(request).service
    task = await _own_task(request)
    if task is None:
        return empty_response(404)
    ended = await service.cancel(task.id, owner_of(request))
    if service.is_stored(ended):  # else it is listed no more in any case
        await service.hide([task.id])
    return empty_response(200)


async def clear(request: Request) -> Response:
    """GET clear: as cancel, for all tasks of this client; all are stopped before the first is hidden."""
    service = core_of(request).service
    before, hidden = None, list[str]()
    while page := await _list_jobs(request, before):
        for job in page:  # the newest first: none of them begins while the others are stopped
            is_live = isinstance(job.plan, Generate) and job.state in (State.QUEUED, State.RUNNING)
            ended = await service.cancel(job.id, owner_of(request)) if is_live else job
            if service.is_stored(ended):
                hidden.append(job.id)
        before = page[-1].number
    if hidden:
        await service.hide(hidden)
    return empty_response(200)


async def _list_jobs(request: Request, before: int | None = None) -> list[Job]:
    """This client's jobs that were neither fetched nor cancelled, the newest first."""
    return await core_of(request).service.list_jobs(
        owner=owner_of(request), states=LISTED, protocol=PROTOCOL, hidden=False, limit=TASKS_MOST, before=before
    )


async def _own_task(request: Request) -> Job | None:
    """The task that `task_id` names, where it is this client's and was neither fetched nor cancelled."""
    with suppress(JobNotFound):
        job = await core_of(request).service.get(request.query_params.get("task_id", ""), owner_of(request))
        is_task = job.protocol == PROTOCOL and isinstance(job.plan, Generate)
        return job if is_task and not job.hidden and job.state is not State.CANCELLED else None
    return None
