"""Routes of A1111 that are not supported: captions of images, and training."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from adapters.sdapi.errors import NotImplementedHere
from adapters.sdapi.protocol import body_of
from adapters.sdapi.request_schemas import Interrogate
from gateway.errors import NotFound


async def interrogate(request: Request) -> Response:
    """Captions need a model that is not here; an unknown model's name has A1111's own answer."""
    body = await body_of(Interrogate, request)
    if body.model not in ("clip", "deepdanbooru", "deepbooru"):
        raise NotFound("Model not found", code="interrogator_not_found")
    raise NotImplementedHere("This gateway has no model that describes pictures.")


async def training(request: Request) -> Response:
    """create/* and train/*."""
    raise NotImplementedHere("This gateway does not train.")
