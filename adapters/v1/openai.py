"""OpenAI's routes: the three that draw, and the models. Knows no other dialect of /v1."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from adapters.shared.body import validated
from adapters.shared.context import core_of, owner_of
from adapters.v1.drawing import drawn, from_pictures, from_text
from adapters.v1.errors import request_id
from adapters.v1.launched import launches, running
from adapters.v1.models import to_model, to_models
from adapters.v1.payloads import Edit, Generation, Variation, unfolded, without_pictures
from adapters.v1.sent import sent
from gateway.strict_json import parse_async

GENERATIONS, EDITS, VARIATIONS = (f"/v1/images/{name}" for name in ("generations", "edits", "variations"))


async def generate(request: Request) -> Response:
    """POST /v1/images/generations."""
    body = without_pictures(unfolded(await parse_async(await request.body())))
    return await drawn(request, from_text(request, validated(Generation, body)), body)


async def edit(request: Request) -> Response:
    """POST /v1/images/edits, a form or JSON."""
    came = await sent(request)
    asked = validated(Edit, unfolded(came.fields))
    return await drawn(request, await from_pictures(request, asked, came), came.names)


async def vary(request: Request) -> Response:
    """POST /v1/images/variations, a form or JSON."""
    came = await sent(request)
    asked = validated(Variation, unfolded(came.fields))
    return await drawn(request, await from_pictures(request, asked, came), came.names)


async def list_models(request: Request) -> Response:
    """GET /v1/models."""
    core = core_of(request)
    launched = {launch.uid: launch.model for launch in await running(core, owner_of(request)) if launch.is_chosen}
    rows = await asyncio.to_thread(to_models, core.library, core.settings.ocr.models, launched)
    return JSONResponse(rows, headers=request_id())


async def retrieve_model(request: Request) -> Response:
    """GET /v1/models/{id}; the id may hold slashes and colons."""
    core, uid = core_of(request), request.path_params["id"]
    name = launches(core, owner_of(request)).model_of(uid)
    row = await asyncio.to_thread(to_model, name, core.library, core.settings.ocr.models)
    return JSONResponse(row | {"id": uid}, headers=request_id())


ROUTES = (
    Route(GENERATIONS, generate, methods=["POST"]),
    Route(EDITS, edit, methods=["POST"]),
    Route(VARIATIONS, vary, methods=["POST"]),
    Route("/v1/models", list_models, methods=["GET"]),
    Route("/v1/models/{id:path}", retrieve_model, methods=["GET"]),
)
