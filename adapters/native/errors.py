"""Errors as /api/v1 answers them, with the names of parameters that its clients know."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.responses import Response

from adapters.native.response_schemas import Problem
from adapters.shared.responses import error_response
from gateway.errors import GatewayError, InvalidRequest

NO_IMAGE = "There is no such picture."
NO_UPLOAD = "There is no such upload, or it has expired."
NO_VIDEO = "Videos cannot be upscaled here; send one picture."
CLIENT_PARAMS = {
    "width_px": "width",
    "height_px": "height",
    "count": "num_images",
    "denoise": "image_strength",
    "references": "reference_images",
    "init_image": "init_images",
}
"""Parameters that have another name in the core: the core's name to this protocol's."""


def render_error(error: GatewayError) -> Response:
    """Source: the documentation's error format {error, code, details}."""
    details = {**error.details, **({"param": error.param} if error.param else {})}
    body: Problem = {"error": error.message, "code": error.code.upper(), "details": details}
    return error_response(body, error.status)


@contextmanager
def client_param_names() -> Iterator[None]:
    """Refusals of the core name the parameter as this protocol does."""
    try:
        yield
    except InvalidRequest as error:
        error.param = CLIENT_PARAMS.get(error.param or "", error.param)
        raise
