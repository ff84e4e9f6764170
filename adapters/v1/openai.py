"""OpenAI's routes: the three that draw, and the models. Knows no other dialect of /v1."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from adapters.shared.body import validated
from adapters.shared.context import core_of, owner_of
from adapters.v1.images import answer_images
from adapters.v1.launches import ready_launches
from adapters.v1.model_responses import to_model, to_models
from adapters.v1.payload import flatten, read_payload, read_text_fields
from adapters.v1.request_schemas import Edit, Generation, Variation
from adapters.v1.requests import translate_images, translate_text
from adapters.v1.responses import json_response
from adapters.v1.state import launches_of


async def generate(request: Request) -> Response:
    """POST /v1/images/generations."""
    fields = await read_text_fields(request)
    body = validated(Generation, fields)
    return await answer_images(request, translate_text(request, body, fields))


async def edit(request: Request) -> Response:
    """POST /v1/images/edits, a form or JSON."""
    payload = await read_payload(request)
    body = validated(Edit, flatten(payload.fields))
    return await answer_images(request, await translate_images(request, body, payload))


async def vary(request: Request) -> Response:
    """POST /v1/images/variations, a form or JSON."""
    payload = await read_payload(request)
    body = validated(Variation, flatten(payload.fields))
    return await answer_images(request, await translate_images(request, body, payload))


async def list_models(request: Request) -> Response:
    """GET /v1/models."""
    core = core_of(request)
    records = [record for record in await ready_launches(core, owner_of(request)) if record.is_chosen]
    models_by_uid = {record.uid: record.model for record in records}
    return json_response(await asyncio.to_thread(to_models, core.library, core.settings.ocr.models, models_by_uid))


async def retrieve_model(request: Request) -> Response:
    """GET /v1/models/{id}; the id may hold slashes and colons."""
    core, uid = core_of(request), request.path_params["id"]
    name = launches_of(core, owner_of(request)).model_of(uid)
    row = await asyncio.to_thread(to_model, name, core.library, core.settings.ocr.models)
    return json_response({**row, "id": uid})
