"""Jobs, progress and errors as /api/v1 shows them. Pure, but for the pictures a result holds."""

from __future__ import annotations

import asyncio
import base64
from datetime import UTC, datetime
from typing import Any, assert_never

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapters.base import core_of
from engine.protocol import Generate, Load, Ocr, PageRead
from gateway.errors import GatewayError
from gateway.job import Job, Plans, Progress, State

PREFIX = "/api/v1"
STATUS = {
    State.QUEUED: "queued",
    State.RUNNING: "generating",
    State.SUCCEEDED: "completed",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
}


def iso(at: float | None) -> str | None:
    """Unix seconds as the documentation writes times: 2026-02-08T10:30:00Z."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def to_progress(progress: Progress) -> dict[str, Any]:
    return {
        "progress": round(progress.fraction, 4),
        "percent": round(progress.fraction * 100),
        "phase": progress.phase,
        "image": progress.image,
        "total_images": progress.pictures,
        "step": progress.step,
        "steps": progress.steps,
        "eta_seconds": None if progress.seconds_left is None else round(progress.seconds_left, 2),
    }


def to_job(job: Job, position: int | None, progress: Progress | None) -> dict[str, Any]:
    """A job without its pictures' bytes."""
    assert job.state is not None
    fraction = 1.0 if job.state is State.SUCCEEDED else progress.fraction if progress else 0.0
    shown: dict[str, Any] = {
        "id": job.id,
        "job_id": job.id,
        "type": type_of(job.plan),
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
    """Pictures as base64 PNG with their seeds, null where the quota removed one since; or the text that was read."""
    if isinstance(job.plan, Ocr):
        return {"text": job.text, "pages": [to_page(job.plan, page) for page in job.pages]}
    read = core_of(request).pictures.read
    pngs = [await asyncio.to_thread(read, image.file) for image in job.images]
    return {
        "images": [base64.b64encode(png).decode() if png else None for png in pngs],
        "seeds": [image.seed for image in job.images],
        "drawn_px": [list(image.drawn_px) for image in job.images],
    }


def to_page(plan: Ocr, read: PageRead) -> dict[str, Any]:
    """One page with its lines; `page` is its number in the PDF, null for a picture."""
    return {
        "page": plan.pages[read.page] if plan.pages else None,
        "width": read.width_px,
        "height": read.height_px,
        "lines": [line.model_dump() for line in read.lines],
    }


def render_error(error: GatewayError) -> Response:
    """Source: the documentation's error format {error, code, details}."""
    details = {**error.details, **({"param": error.param} if error.param else {})}
    return JSONResponse(
        {"error": error.message, "code": error.code.upper(), "details": details}, status_code=error.status
    )


def type_of(plan: Plans) -> str:
    match plan:
        case Generate(init_image=None):
            return "txt2img"
        case Generate():
            return "img2img"
        case Load():
            return "load"
        case Ocr():
            return "ocr"
        case _:
            assert_never(plan)
