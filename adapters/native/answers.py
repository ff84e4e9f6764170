"""Jobs, progress and errors as /api/v1 shows them. Pure, but for the pictures a result holds."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import assert_never

from starlette.requests import Request
from starlette.responses import Response

from adapters.native.shapes import (
    AdjustmentShown,
    Brief,
    BytesShown,
    ForecastShown,
    JobShown,
    JobType,
    PageShown,
    Problem,
    ProgressShown,
    Result,
    Status,
)
from adapters.native.shapes import Priority as PriorityName
from adapters.shared.context import core_of
from adapters.shared.responses import error_response
from engine.protocol import Generate, Load, Upscale
from gateway.errors import GatewayError, PictureDamaged, StorageFault
from gateway.forecast import Forecast
from gateway.images.output import Note
from gateway.jobs.facts import ImageDone, ModelDownloading, PageRead
from gateway.jobs.job import Job, Plans, Priority, Progress, State
from gateway.jobs.plans import Download, Ocr
from gateway.jobs.resolve import Adjustment

PREFIX = "/api/v1"
STATUS: dict[State, Status] = {
    State.QUEUED: "queued",
    State.RUNNING: "generating",
    State.SUCCEEDED: "completed",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
}
PRIORITY: dict[Priority, PriorityName] = {
    Priority.BACKGROUND: "background",
    Priority.LOW: "low",
    Priority.NORMAL: "normal",
    Priority.HIGH: "high",
}
ALSO_CALLED = {"running": "generating", "succeeded": "completed", "waiting": "queued"}
"""What MFLUX-WEBUI's code, and the gateway, call some of them."""


def iso(at: float) -> str:
    """Unix seconds as the documentation writes times: 2026-02-08T10:30:00Z."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def to_progress(progress: Progress) -> ProgressShown:
    shown: ProgressShown = {
        "progress": round(progress.fraction, 4),
        "percent": round(progress.fraction * 100),
        "phase": progress.phase,
        "image": progress.image,
        "total_images": progress.pictures,
        "step": progress.step,
        "steps": progress.steps,
        "eta_seconds": None if progress.seconds_left is None else round(progress.seconds_left, 2),
    }
    if progress.download is not None:
        shown["download"] = to_bytes(progress.download)
    return shown


def to_bytes(fact: ModelDownloading) -> BytesShown:
    return {
        "model": fact.model,
        "done_bytes": fact.done_bytes,
        "total_bytes": fact.total_bytes,
        "bytes_per_second": None if fact.bytes_per_s is None else round(fact.bytes_per_s),
        "percent": 100 * fact.done_bytes // max(1, fact.total_bytes),
    }


def to_forecast(forecast: Forecast) -> ForecastShown:
    return {
        "eta_seconds": round(forecast.expected_s, 2),
        "wait_seconds": round(forecast.wait_s, 2),
        "earliest_seconds": round(forecast.finish_low_s, 2),
        "latest_seconds": round(forecast.finish_high_s, 2),
    }


def to_job(
    job: Job,
    position: int | None,
    progress: Progress | None = None,
    forecast: Forecast | None = None,
    waits_for: str | None = None,
) -> JobShown:
    """A job without its pictures' bytes."""
    assert job.state is not None
    runs = progress is not None and job.state is State.RUNNING
    fraction = 1.0 if job.state is State.SUCCEEDED else progress.fraction if progress and runs else 0.0
    shown: JobShown = {
        "id": job.id,
        "job_id": job.id,
        "type": type_of(job.plan),
        "status": STATUS[job.state],
        "progress": round(fraction, 4),
        "position": position,
        "eta_seconds": None if forecast is None else round(forecast.expected_s, 2),
        "model": job.plan.model,
        "protocol": job.protocol,
        "priority": PRIORITY[job.priority],
        "created_at": iso(job.created_at),
        "started_at": None if job.started_at is None else iso(job.started_at),
        "completed_at": None if job.finished_at is None else iso(job.finished_at),
        "seconds": job.seconds,
        "attempt": job.attempt,
        "adjustments": to_adjustments(job.all_adjustments),
    }
    if isinstance(job.plan, Generate):
        shown["prompt"] = job.plan.prompt
        shown["width"], shown["height"] = job.plan.width_px, job.plan.height_px
        shown["steps"], shown["guidance"] = job.plan.steps, job.plan.guidance
        shown["seeds"] = list(job.plan.seeds)
        if job.plan.loras:
            shown["loras"] = [{"name": lora.name, "scale": lora.scale} for lora in job.plan.loras]
    if isinstance(job.plan, Upscale):
        shown["width"], shown["height"], shown["seeds"] = job.plan.width_px, job.plan.height_px, [job.plan.seed]
    if progress is not None:
        shown["progress_detail"] = to_progress(progress)
    if waits_for is not None:
        shown["waits_for"] = waits_for
    if forecast is not None:
        shown["forecast"] = to_forecast(forecast)
    if job.images:
        shown["image_ids"] = [image_id(job.id, image.image) for image in job.images]
        shown["image_urls"] = [image_url(job.id, image.image) for image in job.images]
    if job.failure is not None:
        shown["error"] = job.failure.message
        shown["error_detail"] = {"code": job.failure.code.upper(), "message": job.failure.message}
    return shown


def to_brief(job: Job) -> Brief:
    prompt = job.plan.prompt if isinstance(job.plan, Generate) else None
    return {
        "job_id": job.id,
        "type": type_of(job.plan),
        "prompt": prompt,
        "model": job.plan.model,
        "priority": PRIORITY[job.priority],
    }


def to_adjustments(adjustments: Sequence[Adjustment]) -> list[AdjustmentShown]:
    return [{"param": a.param, "asked": a.asked, "used": a.used, "reason": a.reason} for a in adjustments]


def image_id(job_id: str, image: int) -> str:
    return f"{job_id}-{image}"


def image_url(job_id: str, image: int) -> str:
    return f"{PREFIX}/jobs/{job_id}/images/{image}"


async def to_result(request: Request, job: Job) -> Result:
    if isinstance(job.plan, Ocr):
        return {"text": job.text, "pages": [to_page(job.plan, page) for page in job.pages]}
    read = core_of(request).pictures.read
    damaged: list[int] = []

    def encoded(done: ImageDone) -> str | None:
        try:
            png = read(done.file, Note.of(done))
        except PictureDamaged:
            damaged.append(done.image)
            return None
        except StorageFault:  # the rest of the job can be told
            return None
        return base64.b64encode(png).decode() if png else None

    result: Result = {
        "images": await asyncio.to_thread(lambda: [encoded(done) for done in job.images]),
        "seeds": [image.seed for image in job.images],
        "drawn_px": [list(image.drawn_px) for image in job.images],
    }
    if damaged:
        result["damaged"] = damaged
    return result


def to_page(plan: Ocr, read: PageRead) -> PageShown:
    return {
        "page": plan.pages[read.page] if plan.pages else None,
        "width": read.width_px,
        "height": read.height_px,
        "lines": [line.model_dump() for line in read.lines],
        "unread": [line.model_dump() for line in read.unread],
    }


def render_error(error: GatewayError) -> Response:
    """Source: the documentation's error format {error, code, details}."""
    details = {**error.details, **({"param": error.param} if error.param else {})}
    body: Problem = {"error": error.message, "code": error.code.upper(), "details": details}
    return error_response(body, error.status)


def type_of(plan: Plans) -> JobType:
    match plan:
        case Generate(init_image=None):
            return "txt2img"
        case Generate():
            return "img2img"
        case Upscale():
            return "upscale"
        case Load():
            return "load"
        case Ocr():
            return "ocr"
        case Download():
            return "download"
        case _:
            assert_never(plan)
