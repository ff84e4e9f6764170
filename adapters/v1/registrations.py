"""Models as Xinference's command line lists them: registrations, engines, and what is on disk.

Source: `xinference/deploy/cmdline.py` and `xinference/api/routers` of Xinference 4.1.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from adapters.shared.body import query
from adapters.shared.context import core_of
from adapters.v1.model_responses import ENGINE, VISION_ENGINE, abilities, reader_names
from adapters.v1.request_schemas import CachedQuery, RegistrationsQuery
from adapters.v1.response_schemas import Cached, Engines, JsonObject, Registration
from adapters.v1.responses import json_response
from engine.catalog import CATALOG, ModelSpec
from gateway.errors import InvalidRequest, ModelNotFound, clip
from gateway.models.library import Library
from gateway.ocr.packages import MODEL

SERVED = "image"
"""The one type of models there is here."""
FORMAT = "safetensors"
BYTES_PER_WEIGHT = 2


# ---- routes ----------------------------------------------------------------------------------------


async def list_registrations(request: Request) -> Response:
    """GET /v1/model_registrations/{model_type}: every model that can be launched, on this machine or still to come."""
    _check_type(request.path_params["model_type"])
    core, options = core_of(request), query(RegistrationsQuery, request)
    vision = core.settings.ocr.models
    return json_response(await asyncio.to_thread(to_registrations, core.library, vision, options.detailed))


async def retrieve_registration(request: Request) -> Response:
    """GET /v1/model_registrations/{model_type}/{model_name}."""
    _check_type(request.path_params["model_type"])
    core, name = core_of(request), request.path_params["model_name"]
    return json_response(await asyncio.to_thread(to_registration, name, core.library, core.settings.ocr.models))


async def list_engines(request: Request) -> Response:
    """GET /v1/engines/{model_type}/{model_name}: what draws or reads with it, and at which bits."""
    _check_type(request.path_params.get("model_type", SERVED))
    core, name = core_of(request), request.path_params["model_name"]
    vision, bits = core.settings.ocr.models, core.settings.models.quantize
    return json_response(await asyncio.to_thread(to_engines, name, core.library, vision, bits))


async def list_cached(request: Request) -> Response:
    """GET /v1/cache/models: the models whose weights are on this machine; where they lie is not told."""
    core, filters = core_of(request), query(CachedQuery, request)
    return json_response(await asyncio.to_thread(to_cached, core.library, filters.model_name))


def _check_type(name: str) -> None:
    """Raises: InvalidRequest, in Xinference's words."""
    if name != SERVED:
        raise InvalidRequest(
            f"Unsupported model type: {clip(name)}. Only models of type '{SERVED}' are served.", param="model_type"
        )


# ---- answers ---------------------------------------------------------------------------------------


def to_registrations(library: Library, vision: Mapping[str, Path], detailed: bool) -> list[Registration]:
    """Reads folders: call it in a thread. Source: `_to_image_model_reg` of Xinference 4.1."""
    rows = [_to_registration(spec, library) for spec in _launchable(library)]
    rows += [_to_reader_registration(name) for name in reader_names(vision)]
    if detailed:
        return rows
    return [Registration(model_name=row["model_name"], is_builtin=row["is_builtin"]) for row in rows]


def to_registration(name: str, library: Library, vision: Mapping[str, Path]) -> Registration:
    """Reads folders: call it in a thread. Raises: ModelNotFound."""
    if name in reader_names(vision):
        return _to_reader_registration(name)
    spec = library.find(name)
    if spec not in _launchable(library):
        raise ModelNotFound(f"Model {clip(name)} not found", param="model_name")
    return _to_registration(spec, library)


def to_engines(name: str, library: Library, vision: Mapping[str, Path], default_bits: int | None) -> Engines:
    """Looks for packages: call it in a thread. Source: `get_engine_params_by_name` of Xinference 4.1.

    Raises: ModelNotFound.
    """
    if name in reader_names(vision):
        engine = MODEL if name == MODEL else VISION_ENGINE
        return {engine: [{"model_name": name, "model_format": FORMAT, "quantizations": ["none"]}]}
    spec = library.find(name)
    whole_gb = spec.size_gb if spec.weights_gb is None else spec.weights_gb
    bits = spec.stored_bits or spec.quantize or default_bits
    row = {
        "model_name": spec.name,
        "model_format": FORMAT,
        "model_size_in_billions": round(whole_gb / BYTES_PER_WEIGHT, 3),
        "quantizations": ["none" if bits is None else f"{bits}-bit"],
    }
    return {ENGINE: [row]}


def to_cached(library: Library, name: str | None) -> Cached:
    """Reads folders: call it in a thread. Source: `xinference cached`, which shows the keys of the first row."""
    specs = [spec for spec in _launchable(library) if name in (None, spec.name) and library.on_disk(spec)]
    rows = [
        {
            "model_name": spec.name,
            "model_type": SERVED,
            "model_format": FORMAT,
            "quantization": "none" if spec.stored_bits is None else f"{spec.stored_bits}-bit",
            "model_version": spec.revision,
            "size_gb": spec.size_gb,
        }
        for spec in sorted(specs, key=lambda spec: spec.name)
    ]
    return {"list": rows}


def _launchable(library: Library) -> list[ModelSpec]:
    return [spec for spec in library.specs if spec.unavailable is None and spec.task == "generate"]


def _to_registration(spec: ModelSpec, library: Library) -> Registration:
    """Source: `ImageModelFamilyV2` of Xinference 4.1; `model_description` and `licence` are ours."""
    files = {
        "model_format": FORMAT,
        "model_hub": "local" if spec.repo is None else "huggingface",
        "model_id": spec.repo or spec.name,
        "cache_status": library.on_disk(spec),
    }
    family = _to_family(spec.name, spec.geometry, abilities(spec), files, spec.revision, is_builtin=spec in CATALOG)
    return {
        **family,
        "default_generate_config": {
            "num_inference_steps": spec.default_steps,
            "guidance_scale": spec.default_guidance,
        },
        "model_description": spec.description,
        "licence": spec.licence,
    }


def _to_reader_registration(name: str) -> Registration:
    files = {"model_format": FORMAT, "model_hub": "local", "model_id": name, "cache_status": True}
    return _to_family(name, "ocr", ["ocr"], files, None, is_builtin=name == MODEL)


def _to_family(
    name: str, family: str, ability: list[str], files: JsonObject, revision: str | None, *, is_builtin: bool
) -> Registration:
    return {
        "version": 2,
        "model_name": name,
        "model_family": family,
        "model_id": files["model_id"],
        "model_revision": revision,
        "model_hub": files["model_hub"],
        "model_ability": ability,
        "controlnet": None,
        "model_specs": [files],
        "download_hubs": [files["model_hub"]],
        "is_builtin": is_builtin,
    }
