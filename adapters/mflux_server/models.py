"""Endpoints of models: those that can be loaded, the one that draws, and loading another."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from adapters.mflux_server.requests import to_model
from adapters.mflux_server.responses import json_response, to_listing
from adapters.mflux_server.schemas import Drawing, LoadBody, Loaded
from adapters.mflux_server.state import PROTOCOL, model_of, state_of
from adapters.shared.body import parse
from adapters.shared.context import core_of, idempotency_key, is_attached, owner_of
from adapters.shared.responses import raise_for
from adapters.shared.waiting import attached
from engine.catalog import ModelSpec
from gateway.context import Core
from gateway.errors import GenerationFailed
from gateway.jobs.job import State
from gateway.jobs.origin import Origin

GB = 1_000_000_000


async def list_models(request: Request) -> Response:
    """GET ls: what can be loaded now, the operator's aliases included."""
    library = core_of(request).library

    def find_models() -> list[tuple[str, ModelSpec]]:
        library.refresh()
        specs = [(spec.name, spec) for spec in library.specs]
        specs += [(alias, library.find(alias)) for alias in library.aliases]
        return [(name, spec) for name, spec in specs if library.draws(spec)]

    return json_response(to_listing(await asyncio.to_thread(find_models)))


async def get_model(request: Request) -> Response:
    """GET ps: the model that generate draws with; `loaded` is the one in memory, whichever protocol asked for it."""
    core = core_of(request)
    spec = core.library.find(model_of(core, owner_of(request)))
    cache_limit = round((core.settings.engine.cache_limit_gb or 0) * GB)
    answer: Drawing = {
        **_to_loaded(core, spec),
        "cache_limit": cache_limit,
        "loaded": core.service.engine.loaded_model,
    }
    return json_response(answer)


async def load(request: Request) -> Response:
    """POST load: answers once the model is in memory; from then on generate draws with it."""
    core = core_of(request)
    body = await parse(LoadBody, request)
    spec = to_model(body, core)
    if spec.name not in core.service.engines.loaded_models:
        origin = Origin(
            owner=owner_of(request),
            protocol=PROTOCOL,
            attached=is_attached(request),
            idempotency_key=idempotency_key(request),
        )
        job = await attached(request, await core.service.submit_load(spec.name, origin, body.memory))
        raise_for(job)
        if job.state is not State.SUCCEEDED:
            raise GenerationFailed("The model was not loaded.")
    state_of(core, owner_of(request)).model = spec.name
    return json_response(_to_loaded(core, spec))


def _to_loaded(core: Core, spec: ModelSpec) -> Loaded:
    return {
        "model": spec.name,
        "quantize": spec.quantize or core.settings.models.quantize,
        "default_steps": core.settings.generation.default_steps or spec.default_steps,
    }
