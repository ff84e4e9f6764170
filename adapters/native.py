"""Our own API under /api/v1: detached jobs, their state, their stream. Refuses what cannot be honoured, by name.

Source of the shapes: the /api/v1 sections of the MFLUX API documentation; what it leaves out is ours.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, Literal, assert_never

from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from adapters.base import (
    Adapter,
    core_of,
    event_stream,
    idempotency_key,
    input_picture,
    owner_of,
    parse,
    png_of,
)
from engine.protocol import (
    Cancelled,
    CancelRequested,
    Failed,
    Generate,
    ImageDone,
    Load,
    Preview,
    Queued,
    Requeued,
    Started,
    Succeeded,
)
from gateway import __version__
from gateway.errors import Forbidden, GatewayError, InvalidRequest, NotFound
from gateway.hub import Event, ProgressEvent
from gateway.job import Job, Plans, Priority, Progress, State
from gateway.request import GenerationRequest
from gateway.service import JobService, Origin

PREFIX = "/api/v1"
STATUS = {
    State.QUEUED: "queued",
    State.RUNNING: "generating",
    State.SUCCEEDED: "completed",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
}
PREVIEWS = 4
PAGE_MAX = 500


class GenerateBody(BaseModel):
    """POST generate. Source: the documentation's txt2img and img2img tables; aliases from MFLUX-WEBUI's code."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    prompt: str
    model: str | None = Field(None, validation_alias=AliasChoices("model", "sd_model_checkpoint"))
    negative_prompt: str | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = Field(None, validation_alias=AliasChoices("steps", "num_inference_steps"))
    guidance: float | None = Field(None, validation_alias=AliasChoices("guidance", "guidance_scale"))
    seed: int | None = None
    num_images: int | None = None
    init_images: list[str] | None = Field(None, validation_alias=AliasChoices("init_images", "images"))
    image_strength: float | None = Field(None, validation_alias=AliasChoices("image_strength", "denoising_strength"))
    lora_files: list[str] | None = None
    lora_scales: list[float] | float | None = None
    low_ram: bool | None = None
    type: Literal["txt2img", "img2img"] | None = None
    preview: bool = False
    priority: Literal["low", "normal", "high"] = "normal"


# ---- in --------------------------------------------------------------------------------------------


async def to_request(body: GenerateBody, request: Request) -> GenerationRequest:
    """Raises: InvalidRequest naming the parameter."""
    init_image = None
    if body.init_images:
        if len(body.init_images) > 1:
            raise InvalidRequest("One input picture a job.", param="init_images")
        init_image = await input_picture(request, body.init_images[0], "init_images")
    elif body.type == "img2img":
        raise InvalidRequest("img2img needs init_images.", param="init_images")
    if body.low_ram:
        raise InvalidRequest("low_ram is not available; name a quantised model instead.", param="low_ram")
    return GenerationRequest(
        prompt=body.prompt,
        model=body.model,
        negative_prompt=body.negative_prompt,
        width_px=body.width,
        height_px=body.height,
        steps=body.steps,
        guidance=body.guidance,
        seed=body.seed,
        count=body.num_images,
        init_image=init_image,
        denoise=body.image_strength,
        loras=tuple(body.lora_files or ()),
        previews=PREVIEWS if body.preview else 0,
    )


def to_origin(body: GenerateBody, request: Request) -> Origin:
    """Raises: Forbidden for a raised priority where keys divide the users."""
    if body.priority == "high" and core_of(request).settings.access.keys_file is not None:
        raise Forbidden("This key may not raise its priority.")
    return Origin(
        owner=owner_of(request),
        protocol="native",
        attached=False,
        priority=Priority[body.priority.upper()],
        idempotency_key=idempotency_key(request),
    )


# ---- out -------------------------------------------------------------------------------------------


def iso(at: float | None) -> str | None:
    """Unix seconds as the documentation writes times: 2026-02-08T10:30:00Z."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def eta_s(progress: Progress) -> float | None:
    """Seconds the rest of the steps will take at the pace of the last one; None before the first."""
    if progress.step_seconds is None:
        return None
    pictures_after = progress.pictures - progress.image - 1
    steps_left = progress.steps - progress.step + pictures_after * progress.steps
    return round(steps_left * progress.step_seconds, 2)


def to_progress(progress: Progress) -> dict[str, Any]:
    return {
        "progress": round(progress.fraction, 4),
        "percent": round(progress.fraction * 100),
        "phase": progress.phase,
        "image": progress.image,
        "total_images": progress.pictures,
        "step": progress.step,
        "steps": progress.steps,
        "eta_seconds": eta_s(progress),
    }


def to_job(job: Job, position: int | None, progress: Progress | None) -> dict[str, Any]:
    """A job without its pictures' bytes."""
    assert job.state is not None
    fraction = 1.0 if job.state is State.SUCCEEDED else progress.fraction if progress else 0.0
    shown: dict[str, Any] = {
        "id": job.id,
        "job_id": job.id,
        "type": _type(job.plan),
        "status": STATUS[job.state],
        "progress": round(fraction, 4),
        "position": position,
        "model": job.plan.model,
        "protocol": job.protocol,
        "priority": job.priority.name.lower(),
        "created_at": iso(job.created_at),
        "started_at": iso(job.started_at),
        "completed_at": iso(job.finished_at),
        "seconds": job.seconds,
        "attempt": job.attempt,
        "adjustments": [a.model_dump() for a in job.adjustments],
    }
    if isinstance(job.plan, Generate):
        shown |= {
            "prompt": job.plan.prompt,
            "width": job.plan.width_px,
            "height": job.plan.height_px,
            "steps": job.plan.steps,
            "guidance": job.plan.guidance,
            "seeds": list(job.plan.seeds),
        }
    if progress is not None:
        shown["progress_detail"] = to_progress(progress)
    if job.images:
        shown["image_urls"] = [f"{PREFIX}/jobs/{job.id}/images/{image.image}" for image in job.images]
    if job.failure is not None:
        shown |= {
            "error": job.failure.message,
            "error_detail": {"code": job.failure.code.upper(), "message": job.failure.message},
        }
    return shown


async def to_result(request: Request, job: Job) -> dict[str, Any]:
    """Pictures as base64 PNG with their seeds."""
    pngs = [await png_of(request, image.file) for image in job.images]
    return {
        "images": [base64.b64encode(png).decode() for png in pngs],
        "seeds": [image.seed for image in job.images],
        "drawn_px": [list(image.drawn_px) for image in job.images],
    }


def render_error(error: GatewayError) -> Response:
    """Source: the documentation's error format {error, code, details}."""
    details = {**error.details, **({"param": error.param} if error.param else {})}
    return JSONResponse(
        {"error": error.message, "code": error.code.upper(), "details": details}, status_code=error.status
    )


def _type(plan: Plans) -> str:
    match plan:
        case Generate(init_image=None):
            return "txt2img"
        case Generate():
            return "img2img"
        case Load():
            return "load"
        case _:
            assert_never(plan)


# ---- the stream ------------------------------------------------------------------------------------


def frame(event: str, data: dict[str, Any], event_id: str | None = None) -> bytes:
    """One SSE frame. Only state events carry an id."""
    head = f"id: {event_id}\n" if event_id else ""
    return f"{head}event: {event}\ndata: {json.dumps(data)}\n\n".encode()


async def to_frame(request: Request, event: Event) -> bytes:
    """What happened, as `progress`, `preview`, `queued`, `started`, `image`, `requeued`, `complete` and so on."""
    if isinstance(event, ProgressEvent):
        if isinstance(event.fact, Preview):
            preview = {"image": event.fact.image, "step": event.fact.step, "jpeg": event.fact.jpeg_base64}
            return frame("preview", {"job_id": event.job_id, **preview})
        return frame(
            "progress", {"job_id": event.job_id, "status": STATUS[State.RUNNING], **to_progress(event.progress)}
        )
    job_id, event_id = event.job_id, f"{event.job_id}:{event.seq}"
    base = {"job_id": job_id, "at": iso(event.at)}
    match event.fact:
        case Queued():
            return frame("queued", {**base, "status": "queued"}, event_id)
        case Started(attempt=attempt):
            return frame("started", {**base, "status": "generating", "attempt": attempt}, event_id)
        case ImageDone(image=image, seed=seed):
            url = f"{PREFIX}/jobs/{job_id}/images/{image}"
            return frame("image", {**base, "image": image, "seed": seed, "url": url}, event_id)
        case CancelRequested():
            return frame("cancel_requested", base, event_id)
        case Requeued(reason=reason):
            return frame("requeued", {**base, "status": "queued", "reason": reason}, event_id)
        case Succeeded():
            job = await core_of(request).service.get(job_id)
            done = {**base, "status": "completed", "progress": 1.0, "result": await to_result(request, job)}
            return frame("complete", done, event_id)
        case Failed(code=code, message=message):
            return frame("failed", {**base, "status": "failed", "error": message, "code": code.upper()}, event_id)
        case Cancelled(reason=why):
            return frame("cancelled", {**base, "status": "cancelled", "reason": why}, event_id)


async def frames(request: Request, job: Job, after: int) -> AsyncIterator[bytes]:
    """Replay after `after`, then live, to the end; a gateway that stops says so."""
    core = core_of(request)
    last: Event | None = None
    with core.streams():
        yield b"retry: 2000\n\n"
        async with aclosing(core.service.watch(job.id, after)) as events:
            async for event in events:
                yield await to_frame(request, event)
                last = event
    if last is None or isinstance(last, ProgressEvent) or not isinstance(last.fact, Succeeded | Failed | Cancelled):
        yield frame("shutdown", {"job_id": job.id})


def last_seq(request: Request, job_id: str) -> int:
    """Source: the Last-Event-ID header, `<job>:<seq>`; anything else begins at the beginning."""
    owner, _, seq = request.headers.get("last-event-id", "").rpartition(":")
    return int(seq) if owner == job_id and seq.isascii() and seq.isdigit() and len(seq) < 10 else 0


# ---- routes ----------------------------------------------------------------------------------------


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
    found = await _service(request).list_jobs(owner=owner_of(request), limit=limit or 100, before=before)
    wanted = request.query_params.get("status")
    wanted = "generating" if wanted == "running" else wanted
    shown = [await _shown(request, job) for job in found]
    return JSONResponse({"jobs": [job for job in shown if wanted in (None, job["status"])]})


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
    if own.images and request.query_params.get("images") != "false":
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
    return {"job_id": job.id, "type": _type(job.plan), "prompt": prompt, "model": job.plan.model}


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
            "active_jobs": stats.by_state.get(State.RUNNING, 0),
            "queue_length": stats.by_state.get(State.QUEUED, 0),
            "engine": {"state": engine.state, "device": engine.device, "reason": engine.reason},
        }
    )


ADAPTER = Adapter(
    name="native",
    prefix=PREFIX,
    render_error=render_error,
    image_paths=(f"{PREFIX}/generate",),
    routes=(
        Route(f"{PREFIX}/generate", generate, methods=["POST"]),
        Route(f"{PREFIX}/jobs", jobs, methods=["GET"]),
        Route(f"{PREFIX}/jobs/{{job_id}}", job, methods=["GET"]),
        Route(f"{PREFIX}/jobs/{{job_id}}", cancel, methods=["DELETE"]),
        Route(f"{PREFIX}/jobs/{{job_id}}/stream", stream, methods=["GET"]),
        Route(f"{PREFIX}/jobs/{{job_id}}/images/{{index:int}}", job_image, methods=["GET"]),
        Route(f"{PREFIX}/queue", queue, methods=["GET"]),
        Route(f"{PREFIX}/health", health, methods=["GET"]),
    ),
)
