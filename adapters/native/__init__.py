"""Our own API under /api/v1: detached jobs, their state, their stream. Refuses what cannot be honoured, by name.

Source of the shapes: the /api/v1 sections of the MFLUX API documentation; what it leaves out is ours.
"""

from adapters.native.answers import PREFIX, render_error
from adapters.native.routes import DESCRIBED, IMAGE_PATHS, ROUTES
from adapters.native.shapes import Problem
from gateway.http.adapter import Adapter

ADAPTER = Adapter(
    name="native",
    prefix=PREFIX,
    routes=ROUTES,
    render_error=render_error,
    image_paths=IMAGE_PATHS,
    described=DESCRIBED,
    error=Problem,
)
