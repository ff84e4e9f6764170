"""The models there are, and how one of them stands."""

from __future__ import annotations

import asyncio
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapters.base import check_operator, core_of, idempotency_key, owner_of
from adapters.native.jobs import shown
from adapters.native.shapes import Capabilities, Cleared, Models, ModelShown, ModelStatus, Unloaded
from engine.catalog import ModelSpec
from gateway.core import Core
from gateway.options import Origin
from gateway.weights import sha256_of


async def models(request: Request) -> Response:
    """GET models: List the models, those that are not on this machine included."""
    core = core_of(request)

    def rows() -> list[ModelShown]:
        named = [to_model(core, spec.name, spec) for spec in core.library.specs]
        return named + [to_model(core, alias, core.library.find(alias)) for alias in core.library.aliases]

    answer: Models = {"models": await asyncio.to_thread(rows)}
    return JSONResponse(answer)


def to_model(core: Core, name: str, spec: ModelSpec) -> ModelShown:
    """Reads folders: call it in a thread."""
    folder = core.library.find_folder(spec) if core.library.on_disk(spec) else None
    sha256 = None if folder is None else sha256_of(folder)
    return {
        "title": name,
        "model_name": spec.repo or spec.name,
        "hash": None if sha256 is None else sha256[:10],
        "sha256": sha256,
        "config": {
            "base_arch": spec.family.removesuffix("_tiny"),
            "supports_guidance": spec.guidance_range[0] < spec.guidance_range[1],
            "max_sequence_length": spec.max_sequence,
        },
        "downloaded": folder is not None,
        "size_gb": spec.size_gb,
        "description": spec.description,
        "licence": spec.licence,
        "gated": spec.gated,
        "revision": spec.revision,
        "stored_bits": spec.stored_bits,
        "default": spec.name == core.library.default,
        "quantize": spec.quantize or core.settings.models.quantize,
        "default_steps": core.settings.generation.default_steps or spec.default_steps,
        "max_references": spec.max_references,
        "unavailable": spec.unavailable,
        "capabilities": to_capabilities(core, spec),
        "alias_of": spec.name if name != spec.name else None,
    }


def to_capabilities(core: Core, spec: ModelSpec) -> Capabilities:
    limits = core.settings.generation.limits
    as_sent = core.settings.models.steps_as_sent or not spec.distilled
    low, high = spec.guidance_range
    return {
        "task": spec.task,
        "default_px": spec.default_px,
        "native_px": spec.native_px,
        "default_steps": core.settings.generation.default_steps or spec.default_steps,
        "max_steps": limits.max_steps if as_sent else min(limits.max_steps, spec.useful_max_steps),
        "default_guidance": spec.default_guidance,
        "guidance_range": [low, min(high, limits.max_guidance)],
        "guidance": low < high,
        "negative_prompt": spec.negative_prompt,
        "init_image": spec.init_image,
        "mask": spec.masks,
        "needs_mask": spec.needs_mask,
        "max_references": spec.max_references,
        "needs_reference": spec.needs_reference,
        "lora": spec.lora,
        "control": spec.control,
    }


async def model_status(request: Request) -> Response:
    """GET models/{id}/status: Tell whether a model is here, and whether it is in memory."""
    core = core_of(request)
    name = request.path_params["model_id"]
    spec = core.library.find(name)

    def folder() -> Path | None:
        return core.library.find_folder(spec) if core.library.on_disk(spec) else None

    found = await asyncio.to_thread(folder)
    set_aside = found is not None and core.service.house.is_set_aside(found)
    answer: ModelStatus = {
        "model": name,
        "status": "unavailable"
        if set_aside or spec.unavailable is not None
        else "missing"
        if found is None
        else "loading"
        if is_loading(core, spec)
        else "ready",
        "downloaded": found is not None,
        "loaded": core.service.engine.loaded_model == spec.name,
        "size_gb": spec.size_gb,
        "path": None if found is None else found.name,
    }
    return JSONResponse(answer)


async def load(request: Request) -> Response:
    """POST models/{id}/load: Make a job that brings a model into memory; it waits its turn like any other."""
    core = core_of(request)
    key = idempotency_key(request)
    origin = Origin(owner=owner_of(request), protocol="native", attached=False, idempotency_key=key)
    job = await core.service.submit_load(request.path_params["model_id"], origin)
    return JSONResponse(await shown(request, job))


async def unload(request: Request) -> Response:
    """POST models/{id}/unload: Give a model's memory back once no job uses it; the next one loads it again."""
    core = core_of(request)
    name = request.path_params["model_id"]
    was_loaded = core.service.engine.loaded_model == core.library.find(name).name
    if was_loaded:
        await core.service.unload()
    answer: Unloaded = {"model": name, "unloaded": was_loaded}
    return JSONResponse(answer)


async def clear_quarantine(request: Request) -> Response:
    """DELETE models/{id}/quarantine: Trust a model again that was set aside for stopping the engine while it loaded."""
    check_operator(request, "This key may not clear a model that was set aside.")
    core = core_of(request)
    name = request.path_params["model_id"]
    answer: Cleared = {
        "model": name,
        "cleared": await core.service.house.clear(core.library.folder(core.library.find(name))),
    }
    return JSONResponse(answer)


def is_loading(core: Core, spec: ModelSpec) -> bool:
    running = core.service.running()
    if running is None or running.plan.model != spec.name:
        return False
    progress = core.service.progress(running.id)
    return progress is not None and progress.phase == "loading"
