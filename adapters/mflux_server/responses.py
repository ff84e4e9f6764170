"""Tasks and models as mflux-server answers them. Pure; knows no connection."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from starlette.responses import JSONResponse, Response

from adapters.mflux_server.schemas import Done, Listed, Submitted, Task, WaitingShown
from adapters.mflux_server.state import Encoding
from engine.catalog import ModelSpec
from engine.protocol import Generate
from gateway.forecast import Forecast
from gateway.jobs.job import Job, Priority

NO_STORE = {"Cache-Control": "no-store"}
"""Some of these GETs change what the next one answers."""


def json_response(body: Mapping[str, object] | list[Task]) -> Response:
    return JSONResponse(body, headers=NO_STORE)


def empty_response(status: int) -> Response:
    """No body, of Flask's default type: what mflux-server answers where it has nothing to say."""
    return Response(status_code=status, headers={**NO_STORE, "Content-Type": "text/html; charset=utf-8"})


def to_submitted(job: Job, others: int, forecast: Forecast | None) -> Submitted:
    return {
        "task_id": job.id,
        "task_length": max(0, others),
        "expected_time_seconds": _seconds_left(forecast),
        "adjustments": [adjustment.model_dump() for adjustment in job.adjustments],
    }


def to_waiting(position: int, forecast: Forecast | None, waits_for: str | None) -> WaitingShown:
    seconds = max(1, math.ceil(_seconds_left(forecast)))
    body: WaitingShown = {"pos": position, "status": "waiting", "wait_remaining": seconds}
    if waits_for is not None:
        body["waits_for"] = waits_for
    return body


def to_done(job: Job) -> Done:
    body: Done = {"status": "done"}
    if job.failure is not None:
        body["error"] = job.failure.message
    if job.late_adjustments:
        body["adjustments"] = [adjustment.model_dump() for adjustment in job.late_adjustments]
    return body


def _seconds_left(forecast: Forecast | None) -> float:
    """Until a task is done, those before it and the loads between them included; 0 where nobody can say.

    Clients calculate with the number, so it is never null; `waits_for` says why nothing begins.
    """
    return 0.0 if forecast is None else forecast.expected_s


def to_task(job: Job, plan: Generate) -> Task:
    """One row of GET tasks. Source: `TaskOutput` of mflux-server; times are Unix seconds."""
    encoding = Encoding.of_note(job.note)
    task: Task = {
        "task_id": job.id,
        "prompt": plan.prompt,
        "seed": str(plan.seeds[0]),
        "height": plan.height_px,
        "width": plan.width_px,
        "steps": plan.steps,
        "guidance": plan.guidance,
        "format": encoding.format,
        "quality": encoding.quality,
        "priority": job.priority is Priority.HIGH,
        "init_image": None,
        "start_time": job.created_at,
    }
    if job.started_at is not None:
        task["compute_time"] = job.started_at
    if job.finished_at is not None:
        task["end_time"] = job.finished_at
    if job.failure is not None:
        task["error"] = job.failure.message
    return task


def to_listing(models: Iterable[tuple[str, ModelSpec]]) -> dict[str, Listed]:
    """GET ls: each model by its name."""
    return {name: _to_listed(spec) for name, spec in models}


def _to_listed(spec: ModelSpec) -> Listed:
    row: Listed = {"loader": spec.family, "steps": spec.default_steps}
    if spec.quantize is not None:
        row["quantize"] = spec.quantize
    return row
