"""What the routes of /sdapi/v1 share: where they lie, how a body is read, for whom they act."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel
from starlette.requests import Request

from adapters.shared.body import parse
from adapters.shared.context import idempotency_key, owner_of
from gateway.errors import InvalidRequest
from gateway.jobs.origin import Origin

PREFIX = "/sdapi/v1"
INTERNAL = "/internal"
"""Where A1111's own page asks; some clients do, too."""
PAGE_CONFIG = "/config"
CONTROLNET = "/controlnet"
PROTOCOL = "sdapi"

M = TypeVar("M", bound=BaseModel)


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
