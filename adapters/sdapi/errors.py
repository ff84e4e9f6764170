"""The errors of /sdapi/v1: those of this protocol alone, and the response of every error.

Source: A1111 1.10.1 with FastAPI 0.94 and pydantic 1.10; MFLUX API documentation 2.0, "Error Handling".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from adapters.shared.responses import error_response
from gateway.errors import (
    GatewayError,
    InsufficientMemory,
    InvalidRequest,
    MalformedBody,
    MethodNotAllowed,
    Misplaced,
    NotFound,
    Unauthorized,
    UnsupportedMediaType,
    WrongKey,
)

SEED_CODES = {"engine_oom": "OOM_ERROR"}
OOM_HINT = "Use a smaller size, a quantised model or low_ram=true"

PYDANTIC_1 = {
    "missing": ("value_error.missing", "field required"),
    "model_type": ("type_error.dict", "value is not a valid dict"),
    "model_attributes_type": ("type_error.dict", "value is not a valid dict"),
}


class InitImageNotFound(NotFound):
    code, message = "init_image_not_found", "Init image not found"


class AsA1111(GatewayError):
    """An error that A1111 answers as a bare exception: `exception` is its class, the status is 500."""

    code, status = "invalid_param", 500

    def __init__(
        self, exception: str, message: str, *, code: str | None = None, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message, code=code, details=details)
        self.exception = exception


class NotImplementedHere(GatewayError):
    """An error for what A1111 does and this gateway cannot."""

    code, status = "not_implemented", 501


def no_such_upscaler(name: str) -> AsA1111:
    """The error of an unknown upscaler. Source: A1111 1.10.1 scripts/postprocessing_upscale.py."""
    return AsA1111("AssertionError", f"could not find upscaler named {name[:64]}", code="upscaler_not_found")


def render_error(error: GatewayError) -> Response:
    """The response of an error, as A1111's clients expect it."""
    match error:
        case MethodNotAllowed():
            return error_response({"detail": "Method Not Allowed"}, 405)
        case InvalidRequest() | UnsupportedMediaType():
            body = {"detail": _details(error), "error": error.message, "code": _code(error)}
            details = {"details": error.details} if isinstance(error, InsufficientMemory) else {}
            return error_response({**body, **details}, 422)
        case WrongKey():
            return _body(error, "HTTPException", "Incorrect username or password")
        case Unauthorized():
            return _body(error, "HTTPException", "Not authenticated")
        case InitImageNotFound() | NotFound(code="interrogator_not_found") | NotImplementedHere():
            return _body(error, "HTTPException", error.message)
        case AsA1111():
            return _body(error, error.exception, error.message)
        case NotFound(code="not_found"):
            hint = {"error": error.message} if isinstance(error, Misplaced) else {}
            return error_response({"detail": "Not Found", **hint}, 404)
        case _:
            return _body(error, error.message, error.message)


def _body(error: GatewayError, name: str, text: str) -> Response:
    """A response with A1111's four strings, all of which clients require, and the seed document's two keys."""
    body: dict[str, Any] = {"error": name, "detail": text, "body": "", "errors": text, "code": _code(error)}
    details = {key: value for key, value in error.details.items() if key != "errors"}
    if error.code == "engine_oom":
        details["suggestion"] = OOM_HINT
    if details:
        body["details"] = details
    return error_response(body, error.status)


def _code(error: GatewayError) -> str:
    return SEED_CODES.get(error.code, error.code.upper())


def _details(error: GatewayError) -> list[dict[str, Any]]:
    match error:
        case MalformedBody():
            return [{"loc": ["body"], "msg": error.message, "type": "value_error.jsondecode"}]
        case GatewayError(details={"errors": [*errors]}) if errors:
            return [_detail(item) for item in errors]
        case _:
            loc = ["body", error.param] if error.param else ["body"]
            return [{"loc": loc, "msg": error.sentence, "type": "value_error"}]


def _detail(item: dict[str, Any]) -> dict[str, Any]:
    kind, text = PYDANTIC_1.get(item["type"], (item["type"], item["msg"]))
    return {"loc": ["body", *item["loc"]], "msg": text, "type": kind}
