"""orbiter's mflux-server, both generations: tasks that are submitted, polled and fetched, below /api and at the root.

Source: the README of mflux-server of October 2024 (generation 1) and of December 2025 (generation 2).
"""

from adapters.mflux_server.answers import render_error
from adapters.mflux_server.routes import CHANGING, DESCRIBED, FIRST, PREFIX, ROUTES
from adapters.mflux_server.shapes import Refused
from gateway.http.adapter import Adapter

ADAPTER = Adapter(
    name="mflux-server",
    prefix=PREFIX,
    more_prefixes=tuple(f"/{name}" for name in FIRST),
    routes=ROUTES,
    render_error=render_error,
    image_paths=(f"{PREFIX}/generate", "/generate"),
    changing_paths=CHANGING,
    described=DESCRIBED,
    error=Refused,
)
