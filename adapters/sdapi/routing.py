"""What the routes of /sdapi/v1 share: where they lie, and for whom they act."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from adapters.base import core_of, idempotency_key, owner_of
from gateway.service import Origin

PREFIX = "/sdapi/v1"
INTERNAL = "/internal"
"""Where A1111's own page asks; some clients do, too."""
PROTOCOL = "sdapi"

Endpoint = Callable[[Request], Awaitable[Response]]


def get(path: str, endpoint: Endpoint, prefix: str = PREFIX) -> Route:
    """A GET route that answers 405 to HEAD, as FastAPI's do."""
    route = Route(prefix + path, endpoint, methods=["GET"])
    route.methods = {"GET"}
    return route


def post(path: str, endpoint: Endpoint, prefix: str = PREFIX) -> Route:
    return Route(prefix + path, endpoint, methods=["POST"])


def constant(path: str, value: Any) -> Route:
    """GET: always the same list."""

    async def answer(_: Request) -> Response:
        return JSONResponse(value)

    return get(path, answer)


def origin_of(request: Request) -> Origin:
    """Jobs of this protocol end with the connection that waits for them."""
    return Origin(
        owner=owner_of(request),
        protocol=PROTOCOL,
        attached=True,
        idempotency_key=idempotency_key(request),
        leniency="drop",
    )


def checkpoint_of(request: Request) -> str:
    """The model of requests that name none."""
    core = core_of(request)
    return core.checkpoint or core.library.default
