"""Endpoints of jobs: submit, list, show, move, retry, cancel."""

from __future__ import annotations

import asyncio

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapters.native.errors import client_param_names
from adapters.native.request_schemas import GenerateBody, JobQuery, JobsQuery, MoveBody
from adapters.native.requests import to_origin, to_request, to_states
from adapters.native.response_schemas import Ended, Jobs, JobShown, Submitted
from adapters.native.responses import STATUS, to_job, to_result
from adapters.shared.body import parse, query
from adapters.shared.context import core_of, idempotency_key, owner_of
from gateway.errors import InvalidRequest
from gateway.jobs.job import Job

IGNORED_MOST = 20
JOBS_PER_TURN = 50
"""Jobs shown before the event loop may turn to other requests."""


async def own_job(request: Request, job_id: str | None = None) -> Job:
    """Raises: JobNotFound, also where the job is somebody else's; downloads are everybody's to see."""
    job_id = request.path_params["job_id"] if job_id is None else job_id
    return await core_of(request).service.see(job_id, owner_of(request))


async def show_job(request: Request, job: Job) -> JobShown:
    """The body of a job as it is now, with its position and its forecast."""
    service = core_of(request).service
    if job.state is not None and job.state.terminal:
        return to_job(job, None)
    progress = service.events.progress(job.id) or service.downloads.progress.waits(job)
    position = await service.queue.position(job.id)
    return to_job(job, position, progress, service.events.forecast(job), service.events.waits_for(job))


async def show_submitted(request: Request, job: Job, body: BaseModel) -> Submitted:
    """The body of a new job, with the fields of its request that are not known."""
    ignored = sorted(name[:64] for name in body.model_extra or {})[:IGNORED_MOST]
    return {**await show_job(request, job), "ignored": ignored}


async def generate(request: Request) -> Response:
    """POST generate: Make a job; it is on disk when this answers."""
    body = await parse(GenerateBody, request)
    with client_param_names():
        job = await core_of(request).service.submit(await to_request(body, request), to_origin(request, body.priority))
    return JSONResponse(await show_submitted(request, job, body))


async def list_jobs(request: Request) -> Response:
    """GET jobs: List your jobs, the newest first, without their pictures."""
    params = query(JobsQuery, request)
    jobs = await core_of(request).service.list_jobs(
        owner=owner_of(request),
        states=to_states(params),
        protocol=params.protocol,
        limit=params.limit + 1,
        before=None if params.cursor is None else int(params.cursor),
    )
    page, rows = jobs[: params.limit], []
    for n, job in enumerate(page, 1):
        rows.append(await show_job(request, job))
        if n % JOBS_PER_TURN == 0:
            await asyncio.sleep(0)
    answer: Jobs = {
        "jobs": rows,
        "next_cursor": str(page[-1].number) if len(jobs) > len(page) else None,
    }
    return await asyncio.to_thread(JSONResponse, answer)


async def get_job(request: Request) -> Response:
    """GET jobs/{id}: Show a job, and with it what came of it unless `images` says no."""
    params = query(JobQuery, request)
    job = await own_job(request)
    answer = await show_job(request, job)
    if (job.images or job.pages) and params.images:
        answer["result"] = await to_result(request, job)
    return JSONResponse(answer)


async def cancel(request: Request) -> Response:
    """DELETE jobs/{id}: Stop a job; answers once it has ended, and says how."""
    job = await own_job(request)
    service = core_of(request).service
    ended = await asyncio.shield(service.cancel(job.id, owner_of(request)))
    assert ended.state is not None
    answer: Ended = {"status": STATUS[ended.state], "job_id": ended.id}
    if service.is_stored(ended):
        return JSONResponse(answer)
    answer["stored"] = False
    return JSONResponse(answer, 202)


async def retry(request: Request) -> Response:
    """POST jobs/{id}/retry: Make a new job of an ended one; it draws the same pixels."""
    job_id, key = request.path_params["job_id"], idempotency_key(request)
    job = await core_of(request).service.retry(job_id, owner_of(request), idempotency_key=key)
    return JSONResponse(await show_job(request, job))


async def move(request: Request) -> Response:
    """POST jobs/{id}/move: Let a waiting job run earlier or later than your others; nobody else's place changes."""
    body = await parse(MoveBody, request)
    if [body.before, body.position, body.to].count(None) != 2:
        raise InvalidRequest("Say where by exactly one of before, position and to.", param="to")
    job = await core_of(request).service.queue.move(
        request.path_params["job_id"],
        owner=owner_of(request),
        before=body.before,
        position=body.position,
        to=body.to,
    )
    return JSONResponse(await show_job(request, job))
