"""orbiter's mflux-server, both generations: tasks that are submitted, polled and fetched, below /api and at the root.

Source: the README of mflux-server of October 2024 (generation 1) and of December 2025 (generation 2).
"""

from adapters.mflux_server.errors import render_error
from adapters.mflux_server.requests import PREFIX
from adapters.mflux_server.routes import CHANGING_PATHS, DESCRIBED, FIRST_PATHS, IMAGE_PATHS, ROUTES
from adapters.mflux_server.schemas import Refused
from adapters.mflux_server.state import PROTOCOL
from gateway.http.adapter import Adapter

ADAPTER = Adapter(
    name=PROTOCOL,
    prefix=PREFIX,
    more_prefixes=FIRST_PATHS,
    routes=ROUTES,
    render_error=render_error,
    image_paths=IMAGE_PATHS,
    changing_paths=CHANGING_PATHS,
    described=DESCRIBED,
    error=Refused,
)
