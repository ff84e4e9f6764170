"""The routes of /api/v1."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from adapters.base import core_of, event_stream, owner_of, parse, png_of
from adapters.native.answers import PREFIX, STATUS, to_job, to_progress, to_result, type_of
from adapters.native.request import GenerateBody, to_origin, to_request
from adapters.native.stream import frames, last_seq
from engine.protocol import Generate
from gateway import __version__
from gateway.errors import InvalidRequest, NotFound
from gateway.job import Job, State
from gateway.service import JobService

PAGE_MAX = 500


def _service(request: Request) -> JobService:
    return core_of(request).service


async def _own_job(request: Request) -> Job:
    return await _service(request).get(request.path_params["job_id"], owner_of(request))


async def _shown(request: Request, job: Job) -> dict[str, Any]:
    service = _service(request)
    return to_job(job, await service.position(job.id), service.progress(job.id))


async def generate(request: Request) -> Response:
    """POST generate: the job is on disk when this answers."""
    body = await parse(GenerateBody, request)
    job = await _service(request).submit(await to_request(body, request), to_origin(body, request))
    return JSONResponse({**await _shown(request, job), "ignored": sorted(body.model_extra or {})[:20]})


async def jobs(request: Request) -> Response:
    """GET jobs?limit=&before=&status=: the newest first, without their pictures."""
    limit = _number(request, "limit", 100, PAGE_MAX)
    before = _number(request, "before", None, 2**53)
    found = await _service(request).list_jobs(
        owner=owner_of(request), states=_states(request), limit=limit or 100, before=before
    )
    return JSONResponse({"jobs": [await _shown(request, job) for job in found]})


def _states(request: Request) -> list[State] | None:
    """Source: the `status` query; `running` is what MFLUX-WEBUI calls `generating`. Raises: InvalidRequest."""
    asked = request.query_params.get("status")
    if asked is None:
        return None
    wanted = "generating" if asked == "running" else asked
    states = [state for state, status in STATUS.items() if status == wanted]
    if not states:
        raise InvalidRequest(f"status must be one of {', '.join(STATUS.values())}.", param="status")
    return states


def _number(request: Request, name: str, default: int | None, most: int) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 17 and 1 <= int(text) <= most):
        raise InvalidRequest(f"{name} must be between 1 and {most}.", param=name)
    return int(text)


async def job(request: Request) -> Response:
    """GET jobs/{id}: the state, and with it the pictures unless `?images=false`."""
    own = await _own_job(request)
    shown = await _shown(request, own)
    if (own.images or own.pages) and request.query_params.get("images") != "false":
        shown["result"] = await to_result(request, own)
    return JSONResponse(shown)


async def job_image(request: Request) -> Response:
    """GET jobs/{id}/images/{n}: one finished picture as PNG."""
    own = await _own_job(request)
    index = request.path_params["index"]
    if index >= len(own.images):
        raise NotFound("That picture is not there yet.")
    return Response(await png_of(request, own.images[index].file), media_type="image/png")


async def stream(request: Request) -> Response:
    """GET jobs/{id}/stream: 204 once the end was delivered, so that an EventSource stops asking."""
    own = await _own_job(request)
    after = last_seq(request, own.id)
    if own.state is not None and own.state.terminal and after >= own.seq:
        return Response(status_code=204)
    with core_of(request).streams():  # refused before the stream begins, counted while it lasts
        return event_stream(frames(request, own, after))


async def cancel(request: Request) -> Response:
    """DELETE jobs/{id}: answers once the job has ended, and says how."""
    own = await _own_job(request)
    ended = await asyncio.shield(_service(request).cancel(own.id))
    assert ended.state is not None
    return JSONResponse({"status": STATUS[ended.state], "job_id": ended.id})


async def queue(request: Request) -> Response:
    """GET queue: your own jobs by name, everybody's by count."""
    service, owner = _service(request), owner_of(request)
    running = service.running()
    progress = service.progress(running.id) if running else None
    waiting = await service.waiting(limit=1000)
    ahead = 1 if running else 0
    active = None
    if running is not None and running.owner == owner and progress is not None:
        active = {**_brief(running), **to_progress(progress)}
    queued = [{**_brief(job), "position": i + ahead} for i, job in enumerate(waiting) if job.owner == owner]
    return JSONResponse({"active": active, "queued": queued, "running_count": ahead, "pending_count": len(waiting)})


def _brief(job: Job) -> dict[str, Any]:
    prompt = job.plan.prompt if isinstance(job.plan, Generate) else None
    return {"job_id": job.id, "type": type_of(job.plan), "prompt": prompt, "model": job.plan.model}


async def health(request: Request) -> Response:
    """GET health: 200 as long as the gateway answers; `status` tells of the engine."""
    core = core_of(request)
    stats = await core.service.stats()
    engine = core.service.engine
    return JSONResponse(
        {
            "status": "unhealthy" if engine.state == "down" else "healthy",
            "version": __version__,
            "models_available": sum(core.library.on_disk(spec) for spec in core.library.specs),
            "default_model": core.library.default,
            "embedded": core.draws_embedded,
            "active_jobs": stats.by_state.get(State.RUNNING, 0),
            "queue_length": stats.by_state.get(State.QUEUED, 0),
            "engine": {"state": engine.state, "device": engine.device, "reason": engine.reason},
        }
    )


ROUTES = (
    Route(f"{PREFIX}/generate", generate, methods=["POST"]),
    Route(f"{PREFIX}/jobs", jobs, methods=["GET"]),
    Route(f"{PREFIX}/jobs/{{job_id}}", job, methods=["GET"]),
    Route(f"{PREFIX}/jobs/{{job_id}}", cancel, methods=["DELETE"]),
    Route(f"{PREFIX}/jobs/{{job_id}}/stream", stream, methods=["GET"]),
    Route(f"{PREFIX}/jobs/{{job_id}}/images/{{index:int}}", job_image, methods=["GET"]),
    Route(f"{PREFIX}/queue", queue, methods=["GET"]),
    Route(f"{PREFIX}/health", health, methods=["GET"]),
)
