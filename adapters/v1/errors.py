"""How /v1 spells an error: one body that OpenAI's clients and Xinference's both read."""

from __future__ import annotations

import secrets
from typing import Any

from starlette.responses import Response

from adapters.shared.responses import error_response
from gateway.errors import GatewayError

RETRY_AFTER_MAX_S = 60
"""openai for Node ignores a longer wait, and for Python gives up above 120 s."""
NEVER_RETRY = {409, 500, 501, 507}
"""The clients would send these again twice by themselves, and the same would happen again, after minutes of drawing."""

TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
CODES = {
    "invalid_param": "invalid_value",
    "unauthorized": "invalid_api_key",
    "too_many_jobs": "rate_limit_exceeded",
}


def to_error(error: GatewayError) -> dict[str, Any]:
    """The error object. Source: `error` of openai's `APIError.body`: message, type, param, code."""
    found = error.details.get("errors") or [{}]
    missing = found[0].get("type") == "missing"
    shown: dict[str, Any] = {
        "message": f"Missing required parameter: '{error.param}'." if missing else error.sentence,
        "type": TYPES.get(error.status, "server_error" if error.status >= 500 else "invalid_request_error"),
        "param": error.param,
        "code": "missing_required_parameter" if missing else CODES.get(error.code, error.code),
    }
    if models := error.details.get("available_models"):
        shown["available_models"] = list(models)
    return shown


def request_id(job_id: str | None = None) -> dict[str, str]:
    """The header every answer has: the job's id where there is a job."""
    return {"x-request-id": job_id or f"req_{secrets.token_hex(16)}"}


def render_error(error: GatewayError, job_id: str | None = None) -> Response:
    """Source: openai reads `error`, xinference_client `detail`; headers x-request-id, x-should-retry, retry-after."""
    shown = to_error(error)
    headers = request_id(job_id)
    if error.status in NEVER_RETRY:
        headers["x-should-retry"] = "false"
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(min(error.retry_after_s, RETRY_AFTER_MAX_S))
    return error_response({"error": shown, "detail": shown["message"]}, error.status, headers)
