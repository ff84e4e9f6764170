"""Jobs: made, looked at, moved, tried again, ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapters.native.answers import STATUS, to_job, to_result
from adapters.native.request import NAMES, GenerateBody, JobQuery, JobsQuery, MoveBody, to_origin, to_request
from adapters.native.shapes import Ended, Jobs, JobShown, Submitted
from adapters.shared.body import parse, query
from adapters.shared.context import core_of, idempotency_key, owner_of
from gateway.errors import InvalidRequest
from gateway.jobs.job import Job
from gateway.service.service import JobService

IGNORED_MOST = 20
SLICE = 50
"""Jobs shown between two looks of the loop at others."""


def service_of(request: Request) -> JobService:
    return core_of(request).service


async def own_job(request: Request, job_id: str | None = None) -> Job:
    """Raises: JobNotFound, also where the job is somebody else's; downloads are everybody's to see."""
    return await service_of(request).see(request.path_params["job_id"] if job_id is None else job_id, owner_of(request))


async def shown(request: Request, job: Job) -> JobShown:
    service = service_of(request)
    if job.state is not None and job.state.terminal:
        return to_job(job, None)
    progress = service.events.progress(job.id) or service.downloads.waits(job)
    position = await service.queue.position(job.id)
    return to_job(job, position, progress, service.events.forecast(job), service.events.waits_for(job))


async def generate(request: Request) -> Response:
    """POST generate: Make a job; it is on disk when this answers."""
    body = await parse(GenerateBody, request)
    with own_names():
        job = await service_of(request).submit(await to_request(body, request), to_origin(body, request))
    ignored = sorted(name[:64] for name in body.model_extra or {})[:IGNORED_MOST]
    answer: Submitted = {**await shown(request, job), "ignored": ignored}
    return JSONResponse(answer)


@contextmanager
def own_names() -> Iterator[None]:
    """Refusals of the core name the parameter as this protocol does."""
    try:
        yield
    except InvalidRequest as error:
        error.param = NAMES.get(error.param or "", error.param)
        raise


async def jobs(request: Request) -> Response:
    """GET jobs: List your jobs, the newest first, without their pictures."""
    asked = query(JobsQuery, request)
    found = await service_of(request).list_jobs(
        owner=owner_of(request),
        states=asked.states,
        protocol=asked.protocol,
        limit=asked.limit + 1,
        before=None if asked.cursor is None else int(asked.cursor),
    )
    page, answers = found[: asked.limit], []
    for n, job in enumerate(page, 1):
        answers.append(await shown(request, job))
        if n % SLICE == 0:
            await asyncio.sleep(0)
    answer: Jobs = {
        "jobs": answers,
        "next_cursor": str(page[-1].number) if len(found) > len(page) else None,
    }
    return await asyncio.to_thread(JSONResponse, answer)


async def job(request: Request) -> Response:
    """GET jobs/{id}: Show a job, and with it what came of it unless `images` says no."""
    asked = query(JobQuery, request)
    own = await own_job(request)
    answer = await shown(request, own)
    if (own.images or own.pages) and asked.images:
        answer["result"] = await to_result(request, own)
    return JSONResponse(answer)


async def cancel(request: Request) -> Response:
    """DELETE jobs/{id}: Stop a job; answers once it has ended, and says how."""
    own = await own_job(request)
    service = service_of(request)
    ended = await asyncio.shield(service.cancel(own.id, owner_of(request)))
    assert ended.state is not None
    answer: Ended = {"status": STATUS[ended.state], "job_id": ended.id}
    if service.is_stored(ended):
        return JSONResponse(answer)
    answer["stored"] = False
    return JSONResponse(answer, 202)


async def retry(request: Request) -> Response:
    """POST jobs/{id}/retry: Make a new job of an ended one; it draws the same pixels."""
    job_id, key = request.path_params["job_id"], idempotency_key(request)
    again = await service_of(request).retry(job_id, owner_of(request), idempotency_key=key)
    return JSONResponse(await shown(request, again))


async def move(request: Request) -> Response:
    """POST jobs/{id}/move: Let a waiting job run earlier or later than your others; nobody else's place changes."""
    asked = await parse(MoveBody, request)
    if [asked.before, asked.position, asked.to].count(None) != 2:
        raise InvalidRequest("Say where by exactly one of before, position and to.", param="to")
    moved = await service_of(request).queue.move(
        request.path_params["job_id"],
        owner=owner_of(request),
        before=asked.before,
        position=asked.position,
        to=asked.to,
    )
    return JSONResponse(await shown(request, moved))
