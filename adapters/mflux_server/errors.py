"""Errors as mflux-server answers them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.responses import Response

from adapters.mflux_server.responses import NO_STORE
from adapters.mflux_server.schemas import Refused
from adapters.shared.responses import error_response
from gateway.errors import GatewayError, InvalidRequest, ModelNotFound

_TYPES = {
    "string_type": "string",
    "int_type": "integer",
    "float_type": "number",
    "bool_type": "boolean",
    "model_type": "object",
}
"""What pydantic calls a wrong type, and what jsonschema calls the right one."""


def render_error(error: GatewayError) -> Response:
    """Source: flask-restx: {message}, and {errors: {field: sentence}} where fields are at fault."""
    body: Refused = {"message": error.message}
    if isinstance(error, InvalidRequest) and (error.param or "errors" in error.details):
        body = {"errors": _to_field_errors(error), "message": "Input payload validation failed"}
    details = error.details if isinstance(error, ModelNotFound) else {}
    return error_response({**body, **details}, error.status, NO_STORE)


def _to_field_errors(error: InvalidRequest) -> dict[str, str]:
    """Each field with what is wrong with it, in the words of jsonschema where it has some; never what was sent."""
    sentences: dict[str, str] = {}
    for item in error.details.get("errors", ()):
        field = item["loc"][0] if item["loc"] else ""
        if item["type"] == "missing":
            sentences[field] = f"'{field}' is a required property"
        elif field in sentences:  # the second half of "string or number"
            sentences[field] = "is not of type 'string' or 'number'"
        else:
            sentences[field] = f"is not of type '{_TYPES[item['type']]}'" if item["type"] in _TYPES else item["msg"]
    return sentences or {str(error.param): error.sentence}


@contextmanager
def client_param_names() -> Iterator[None]:
    """Refusals of the core name the parameter as this protocol does."""
    try:
        yield
    except InvalidRequest as error:
        error.param = "lora_paths" if error.param == "loras" else error.param
        raise
