"""The gateway's own API under /api/v1: detached jobs, their state, their stream. Refuses what cannot be honoured, by
name.

Source of the shapes: the /api/v1 sections of the MFLUX API documentation; what it leaves out is the gateway's own.
"""

from adapters.native.errors import render_error
from adapters.native.requests import PROTOCOL
from adapters.native.response_schemas import Problem
from adapters.native.responses import PREFIX
from adapters.native.routes import DESCRIBED, IMAGE_PATHS, ROUTES
from gateway.http.adapter import Adapter

ADAPTER = Adapter(
    name=PROTOCOL,
    prefix=PREFIX,
    routes=ROUTES,
    render_error=render_error,
    image_paths=IMAGE_PATHS,
    described=DESCRIBED,
    error=Problem,
)
