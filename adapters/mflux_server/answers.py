"""Tasks, models and errors as mflux-server shows them. Pure; knows no connection."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from adapters.mflux_server.request import Encoding
from adapters.shared.responses import error_response
from engine.catalog import ModelSpec
from engine.protocol import Generate
from gateway.errors import GatewayError, InvalidRequest, ModelNotFound
from gateway.jobs.job import Job, Priority

NO_STORE = {"Cache-Control": "no-store"}
"""Some of these GETs change what the next one answers."""

_TYPES = {
    "string_type": "string",
    "int_type": "integer",
    "float_type": "number",
    "bool_type": "boolean",
    "model_type": "object",
}
"""What pydantic calls a wrong type, and what jsonschema calls the right one."""


def shown(value: object) -> Response:
    return JSONResponse(value, headers=NO_STORE)


def empty(status: int) -> Response:
    """What mflux-server answers where there is nothing to say: no body, of Flask's default type."""
    return Response(status_code=status, headers={**NO_STORE, "Content-Type": "text/html; charset=utf-8"})


def to_task(job: Job, plan: Generate) -> dict[str, Any]:
    """One row of GET tasks. Source: `TaskOutput` of mflux-server; times are Unix seconds."""
    encoding = Encoding.of_note(job.note)
    task: dict[str, Any] = {
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
    for name, at in (("compute_time", job.started_at), ("end_time", job.finished_at)):
        if at is not None:
            task[name] = at
    if job.failure is not None:
        task["error"] = job.failure.message
    return task


def to_listing(names: list[tuple[str, ModelSpec]]) -> dict[str, dict[str, Any]]:
    """GET ls: name -> {loader, steps[, quantize]}."""
    return {
        name: {"loader": spec.family, "steps": spec.default_steps}
        | ({} if spec.quantize is None else {"quantize": spec.quantize})
        for name, spec in names
    }


def render_error(error: GatewayError) -> Response:
    """Source: flask-restx: {message}, and {errors: {field: sentence}} where fields are at fault."""
    body: dict[str, Any] = {"message": error.message}
    if isinstance(error, InvalidRequest) and (error.param or "errors" in error.details):
        body = {"errors": _by_field(error), "message": "Input payload validation failed"}
    if isinstance(error, ModelNotFound):
        body |= error.details
    return error_response(body, error.status, NO_STORE)


def _by_field(error: InvalidRequest) -> dict[str, str]:
    """Each field with what is wrong with it, in the words of jsonschema where it has some; never what was sent."""
    found: dict[str, str] = {}
    for item in error.details.get("errors", ()):
        field = item["loc"][0] if item["loc"] else ""
        if item["type"] == "missing":
            found[field] = f"'{field}' is a required property"
        elif field in found:  # the second half of "string or number"
            found[field] = "is not of type 'string' or 'number'"
        else:
            found[field] = f"is not of type '{_TYPES[item['type']]}'" if item["type"] in _TYPES else item["msg"]
    return found or {str(error.param): error.sentence}
