"""The routes of both generations: the first at the root, the second below /api, the same answers from both."""

from __future__ import annotations

import asyncio
import base64
import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from adapters.mflux_server.answers import NO_STORE, empty, shown, to_task
from adapters.mflux_server.models import load, ls, ps
from adapters.mflux_server.request import Encoding, GenerateBody, LoadBody, to_origin, to_request
from adapters.mflux_server.shapes import Done, Drawing, ImageQuery, Listed, Loaded, Submitted, Task, TaskQuery, Waiting
from adapters.mflux_server.state import PROTOCOL
from adapters.shared.body import parse, query
from adapters.shared.context import core_of, owner_of
from adapters.shared.responses import adjustments_header, png_of, raise_for
from engine.protocol import Generate
from gateway.errors import InvalidRequest, JobNotFound, StorageFault
from gateway.http.openapi import Operation
from gateway.images.codec import encode
from gateway.jobs.job import Job, State
from gateway.service.service import JobService

PREFIX = "/api"
FIRST = ("generate", "status", "image", "tasks", "cancel", "clear")
"""What generation 1 had, at the root."""
FIRST_STEPS = 4
"""Steps of a request of generation 1 that names none."""

TASKS_MOST = 1000
LISTED = (State.QUEUED, State.RUNNING, State.SUCCEEDED, State.FAILED)


async def generate(request: Request) -> Response:
    """POST generate: the task is on disk when this answers. `task_length` counts the other jobs, whosever they are."""
    service = core_of(request).service
    body = await parse(GenerateBody, request)
    origin = to_origin(body, request)
    default_steps = None if request.url.path.startswith(PREFIX) else FIRST_STEPS
    try:
        job = await service.submit(await to_request(body, request, default_steps=default_steps), origin)
    except InvalidRequest as error:
        error.param = "lora_paths" if error.param == "loras" else error.param
        raise
    stats = await service.stats()
    others = stats.by_state.get(State.QUEUED, 0) + stats.by_state.get(State.RUNNING, 0) - 1
    return shown(
        {
            "task_id": job.id,
            "task_length": max(0, others),
            "expected_time_seconds": _seconds_left(service, job),
            "adjustments": [adjustment.model_dump() for adjustment in job.adjustments],
        }
    )


async def status(request: Request) -> Response:
    """GET status: `done` says that it is over; `error` beside it, that it failed. Clients know no third word."""
    service = core_of(request).service
    task = await _own_task(request)
    if task is None:
        return empty(404)
    position = await service.queue.position(task.id)
    if position is None:
        task = await service.get(task.id)  # it may have ended since
        failed = {} if task.failure is None else {"error": task.failure.message}
        told = [adjustment.model_dump() for adjustment in task.late_adjustments]
        also = {"adjustments": told} if told else {}
        return empty(404) if task.state is State.CANCELLED else shown({"status": "done", **failed, **also})
    wait = max(1, math.ceil(_seconds_left(service, task)))
    kept_by = service.events.waits_for(task)
    why = {} if kept_by is None else {"waits_for": kept_by}
    return shown({"pos": position, "status": "waiting", "wait_remaining": wait, **why})


async def image(request: Request) -> Response:
    """GET image: the picture as it was ordered; the task is then hidden unless `delete` says otherwise."""
    service, asked = core_of(request).service, query(ImageQuery, request)
    task = await _own_task(request)
    if task is None or task.state in (State.QUEUED, State.RUNNING):
        return empty(404)
    raise_for(task)
    data, encoding = await png_of(request, task.images[0]), Encoding.of_note(task.note)
    if not encoding.is_png:
        data = await asyncio.to_thread(encode, data, format="jpeg", quality=encoding.quality)
    if asked.delete:
        with suppress(StorageFault):  # the picture is what was asked for; it stays listed
            await service.hide([task.id])
    headers = {**NO_STORE, **adjustments_header(task.all_adjustments)}
    if asked.base64:
        return Response(base64.b64encode(data), media_type="text/plain", headers=headers)
    return Response(data, media_type=encoding.media_type, headers=headers)


async def tasks(request: Request) -> Response:
    """GET tasks: a bare array, the oldest first."""
    found = await _listed(request)

    def answer() -> Response:
        return shown([to_task(job, job.plan) for job in reversed(found) if isinstance(job.plan, Generate)])

    return await asyncio.to_thread(answer)


async def cancel(request: Request) -> Response:
    """GET cancel: a waiting or running task is stopped, a finished one hidden."""
    service = core_of(request).service
    task = await _own_task(request)
    if task is None:
        return empty(404)
    ended = await service.cancel(task.id, owner_of(request))
    if service.is_stored(ended):  # else it is listed no more in any case
        await service.hide([task.id])
    return empty(200)


async def clear(request: Request) -> Response:
    """GET clear: as cancel, for all tasks of this client; all are stopped before the first is hidden."""
    service = core_of(request).service
    before, hidden = None, list[str]()
    while page := await _listed(request, before):
        for job in page:  # the newest first: none of them begins while the others are stopped
            is_live = isinstance(job.plan, Generate) and job.state in (State.QUEUED, State.RUNNING)
            ended = await service.cancel(job.id, owner_of(request)) if is_live else job
            if service.is_stored(ended):
                hidden.append(job.id)
        before = page[-1].number
    if hidden:
        await service.hide(hidden)
    return empty(200)


async def _listed(request: Request, before: int | None = None) -> list[Job]:
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


def _seconds_left(service: JobService, task: Job) -> float:
    """Until this task is done, those before it and the loads between them included; 0 where nobody can say.

    Clients reckon with the number. What keeps the task then, `waits_for` says.
    """
    forecast = service.events.forecast(task)
    return 0.0 if forecast is None else forecast.expected_s


def _get(path: str, endpoint: Callable[[Request], Awaitable[Response]], *, changes: bool = False) -> Route:
    """A GET route; one that changes something takes no HEAD, which nobody expects to."""
    route = Route(path, endpoint, methods=["GET"])
    if changes and route.methods is not None:
        route.methods.discard("HEAD")
    return route


def _tasks_at(prefix: str) -> tuple[Route, ...]:
    return (
        Route(f"{prefix}/generate", generate, methods=["POST"]),
        _get(f"{prefix}/status", status),
        _get(f"{prefix}/image", image, changes=True),
        _get(f"{prefix}/tasks", tasks),
        _get(f"{prefix}/cancel", cancel, changes=True),
        _get(f"{prefix}/clear", clear, changes=True),
    )


ROUTES = (
    *_tasks_at(""),
    *_tasks_at(PREFIX),
    _get(f"{PREFIX}/ls", ls),
    _get(f"{PREFIX}/ps", ps),
    Route(f"{PREFIX}/load", load, methods=["POST"]),
)

CHANGING = tuple(
    route.path
    for route in ROUTES
    if route.methods is not None and "GET" in route.methods and "HEAD" not in route.methods
)
"""Where a GET changes something."""

ONCE = ("Idempotency-Key",)
UNKNOWN = {404: "There is no such task, or it was fetched or cancelled."}
_TASKS: Mapping[str, Operation] = {
    "POST {}/generate": Operation(body=GenerateBody, answer=Submitted, headers=ONCE),
    "GET {}/status": Operation(query=TaskQuery, answer=Waiting | Done, also=UNKNOWN),
    "GET {}/image": Operation(query=ImageQuery, media=("image/png", "image/jpeg", "text/plain"), also=UNKNOWN),
    "GET {}/tasks": Operation(answer=list[Task]),
    "GET {}/cancel": Operation(query=TaskQuery, also=UNKNOWN),
    "GET {}/clear": Operation(),
}
DESCRIBED: Mapping[str, Operation] = {
    **{name.format(prefix): operation for prefix in ("", PREFIX) for name, operation in _TASKS.items()},
    f"GET {PREFIX}/ls": Operation(answer=dict[str, Listed]),
    f"GET {PREFIX}/ps": Operation(answer=Drawing),
    f"POST {PREFIX}/load": Operation(body=LoadBody, answer=Loaded),
}
