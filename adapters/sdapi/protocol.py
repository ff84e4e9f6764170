"""Shared by the routes of /sdapi/v1: path prefixes, the reading of bodies, the origin of jobs."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel
from starlette.requests import Request

from adapters.shared.body import parse
from adapters.shared.context import idempotency_key, is_attached, owner_of
from gateway.errors import InvalidRequest
from gateway.jobs.origin import Origin

PREFIX = "/sdapi/v1"
INTERNAL = "/internal"
"""The prefix of routes that A1111's own page calls, and some clients, too."""
PAGE_CONFIG = "/config"
CONTROLNET = "/controlnet"
PROTOCOL = "sdapi"

M = TypeVar("M", bound=BaseModel)


async def body_of(model: type[M], request: Request) -> M:
    """The JSON body of a request. Raises: as `parse`; InvalidRequest with FastAPI's message where it is empty."""
    if not await request.body():
        raise InvalidRequest("field required", details={"errors": [{"loc": [], "msg": "", "type": "missing"}]})
    return await parse(model, request)


def origin_of(request: Request) -> Origin:
    """The origin of a job of this protocol."""
    return Origin(
        owner=owner_of(request),
        protocol=PROTOCOL,
        attached=is_attached(request),
        idempotency_key=idempotency_key(request),
        leniency="drop",
    )
