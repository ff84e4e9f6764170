"""What the routes of /sdapi/v1 share: where they lie, and for whom they act."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from adapters.sdapi.packing import packed
from adapters.shared.body import parse
from adapters.shared.context import idempotency_key, owner_of
from gateway.errors import InvalidRequest
from gateway.service.service import Origin

PREFIX = "/sdapi/v1"
INTERNAL = "/internal"
"""Where A1111's own page asks; some clients do, too."""
PAGE_CONFIG = "/config"
PROTOCOL = "sdapi"

Endpoint = Callable[[Request], Awaitable[Response]]
M = TypeVar("M", bound=BaseModel)


def get(path: str, endpoint: Endpoint, prefix: str = PREFIX) -> Route:
    """A GET route that answers 405 to HEAD, as FastAPI's do."""
    route = Route(prefix + path, _packed(endpoint), methods=["GET"])
    route.methods = {"GET"}
    return route


def post(path: str, endpoint: Endpoint, prefix: str = PREFIX) -> Route:
    return Route(prefix + path, _packed(endpoint), methods=["POST"])


def _packed(endpoint: Endpoint) -> Endpoint:
    """Packed where the client takes gzip."""

    @wraps(endpoint)
    async def answer(request: Request) -> Response:
        return await packed(request, await endpoint(request))

    return answer


def constant(path: str, value: Any) -> Route:
    """GET: always the same list."""

    async def answer(_: Request) -> Response:
        return JSONResponse(value)

    return get(path, answer)


async def body_of(model: type[M], request: Request) -> M:
    """The JSON body. Raises: as `parse`; InvalidRequest in FastAPI's words where there is none."""
    if not await request.body():
        raise InvalidRequest("field required", details={"errors": [{"loc": [], "msg": "", "type": "missing"}]})
    return await parse(model, request)


def origin_of(request: Request) -> Origin:
    """Jobs of this protocol end with the connection that waits for them."""
    return Origin(
        owner=owner_of(request),
        protocol=PROTOCOL,
        attached=True,
        idempotency_key=idempotency_key(request),
        leniency="drop",
    )
