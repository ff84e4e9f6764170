"""The errors of /v1: one body that OpenAI's clients and Xinference's both read."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator
from contextlib import contextmanager

from starlette.responses import Response

from adapters.shared.responses import error_response
from adapters.v1.request_schemas import NAMES
from adapters.v1.response_schemas import ErrorShown, Problem
from adapters.v1.responses import request_id
from gateway.errors import GatewayError, InvalidRequest
from gateway.http.error_body import bounded

RETRY_AFTER_MAX_S = 60
"""openai for Node ignores a longer wait, and for Python gives up above 120 s."""
NEVER_RETRY = {409, 500, 501, 507}
"""Statuses after which clients would by themselves send the request twice more, to the same end after minutes."""

TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
CODES = {
    "invalid_param": "invalid_value",
    "unauthorized": "invalid_api_key",
    "too_many_jobs": "rate_limit_exceeded",
}


def missing_parameter(param: str) -> InvalidRequest:
    return InvalidRequest(param=param, details={"errors": [{"type": "missing"}]})


@contextmanager
def client_param_names(names: Container[str]) -> Iterator[None]:
    """Let refusals of the core name a parameter as this client spelled it; `names` are the parameters that it sent."""
    try:
        yield
    except InvalidRequest as error:
        spellings = NAMES.get(error.param or "", ())
        preferred = spellings[0] if spellings else error.param
        error.param = next((name for name in spellings if name in names), preferred)
        raise


def to_error(error: GatewayError) -> ErrorShown:
    """The error object. Source: `error` of openai's `APIError.body`: message, type, param, code."""
    errors = error.details.get("errors") or [{}]
    is_missing = errors[0].get("type") == "missing"
    shown: ErrorShown = {
        "message": f"Missing required parameter: '{error.param}'." if is_missing else error.sentence,
        "type": TYPES.get(error.status, "server_error" if error.status >= 500 else "invalid_request_error"),
        "param": error.param,
        "code": "missing_required_parameter" if is_missing else CODES.get(error.code, error.code),
    }
    if models := error.details.get("available_models"):
        shown["available_models"] = list(models)
    return shown


def render_error(error: GatewayError, job_id: str | None = None) -> Response:
    """The error as JSON. Source: openai reads `error`, xinference_client `detail`.

    Headers: x-request-id, x-should-retry, retry-after.
    """
    shown = to_error(error)
    headers = request_id(job_id)
    if error.status in NEVER_RETRY:
        headers["x-should-retry"] = "false"
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(min(error.retry_after_s, RETRY_AFTER_MAX_S))
    problem: Problem = {"error": shown, "detail": shown["message"]}
    return error_response(problem, error.status, headers)


def error_frame(error: GatewayError) -> bytes:
    """The error as an event: the only form for which openai's clients raise in the middle of a stream."""
    return b"data: " + json.dumps(bounded({"error": to_error(error)})).encode() + b"\n\n"
