"""Jobs, progress and results as bodies of /api/v1. Pure, except that results hold the images' bytes."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import assert_never

from starlette.requests import Request

from adapters.native.response_schemas import (
    AdjustmentShown,
    Brief,
    BytesShown,
    ForecastShown,
    JobShown,
    JobType,
    PageShown,
    PriorityName,
    ProgressShown,
    Result,
    Status,
)
from adapters.shared.context import core_of
from engine.protocol import Generate, Load, Upscale
from gateway.errors import ImageDamaged, StorageFault
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


def iso(at: float) -> str:
    """Unix seconds as the documentation writes times: 2026-02-08T10:30:00Z."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def to_progress(progress: Progress) -> ProgressShown:
    body: ProgressShown = {
        "progress": round(progress.fraction, 4),
        "percent": round(progress.fraction * 100),
        "phase": progress.phase,
        "image": progress.image,
        "total_images": progress.images,
        "step": progress.step,
        "steps": progress.steps,
        "eta_seconds": None if progress.seconds_left is None else round(progress.seconds_left, 2),
    }
    if progress.download is not None:
        body["download"] = to_bytes(progress.download)
    return body


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


def to_eta_seconds(forecast: Forecast | None) -> float | None:
    """Seconds until a job is expected to be done; None where there is no forecast."""
    return None if forecast is None else round(forecast.expected_s, 2)


def to_job(
    job: Job,
    position: int | None,
    progress: Progress | None = None,
    forecast: Forecast | None = None,
    waits_for: str | None = None,
) -> JobShown:
    """A job without the bytes of its images."""
    assert job.state is not None
    runs = progress is not None and job.state is State.RUNNING
    fraction = 1.0 if job.state is State.SUCCEEDED else progress.fraction if progress and runs else 0.0
    body: JobShown = {
        "id": job.id,
        "job_id": job.id,
        "type": type_of(job.plan),
        "status": STATUS[job.state],
        "progress": round(fraction, 4),
        "position": position,
        "eta_seconds": to_eta_seconds(forecast),
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
        body["prompt"] = job.plan.prompt
        body["width"], body["height"] = job.plan.width_px, job.plan.height_px
        body["steps"], body["guidance"] = job.plan.steps, job.plan.guidance
        body["seeds"] = list(job.plan.seeds)
        if job.plan.loras:
            body["loras"] = [{"name": lora.name, "scale": lora.scale} for lora in job.plan.loras]
    if isinstance(job.plan, Upscale):
        body["width"], body["height"], body["seeds"] = job.plan.width_px, job.plan.height_px, [job.plan.seed]
    if progress is not None:
        body["progress_detail"] = to_progress(progress)
    if waits_for is not None:
        body["waits_for"] = waits_for
    if forecast is not None:
        body["forecast"] = to_forecast(forecast)
    if job.images:
        body["image_ids"] = [image_id(job.id, image.image) for image in job.images]
        body["image_urls"] = [image_url(job.id, image.image) for image in job.images]
    if job.failure is not None:
        body["error"] = job.failure.message
        body["error_detail"] = {"code": job.failure.code.upper(), "message": job.failure.message}
    return body


def to_brief(job: Job) -> Brief:
    return {
        "job_id": job.id,
        "type": type_of(job.plan),
        "prompt": job.plan.prompt if isinstance(job.plan, Generate) else None,
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
    """The images of a finished job as base64, or the text that was read."""
    if isinstance(job.plan, Ocr):
        return {"text": job.text, "pages": [to_page(job.plan, page) for page in job.pages]}
    output = core_of(request).output
    damaged: list[int] = []

    def read_base64(done: ImageDone) -> str | None:
        try:
            png = output.read(done.file, Note.of(done))
        except ImageDamaged:
            damaged.append(done.image)
            return None
        except StorageFault:  # the rest of the result can still be answered
            return None
        return base64.b64encode(png).decode() if png else None

    result: Result = {
        "images": await output.run(lambda: [read_base64(done) for done in job.images]),
        "seeds": [image.seed for image in job.images],
        "drawn_px": [list(image.drawn_px) for image in job.images],
    }
    if damaged:
        result["damaged"] = damaged
    return result


def to_page(plan: Ocr, page: PageRead) -> PageShown:
    return {
        "page": plan.pages[page.page] if plan.pages else None,
        "width": page.width_px,
        "height": page.height_px,
        "lines": [line.model_dump() for line in page.lines],
        "unread": [line.model_dump() for line in page.unread],
    }


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
