"""What Xinference's command line asks about models besides: registrations, engines, what is on disk; and its login.

Source: `xinference/deploy/cmdline.py` and `xinference/api/routers` of Xinference 4.1.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from adapters.shared.body import parse, query
from adapters.shared.context import core_of
from adapters.v1.errors import request_id
from adapters.v1.models import ENGINE, VISION_ENGINE, abilities
from engine.catalog import CATALOG, ModelSpec
from gateway.errors import InvalidRequest, ModelNotFound, NotFound, clip
from gateway.models.library import Library
from gateway.ocr.packages import MODEL, installed_at

REGISTRATIONS, ENGINES, CACHED, LOGIN = "/v1/model_registrations", "/v1/engines", "/v1/cache/models", "/token"
SERVED = "image"
"""The one type of models there is here."""
FORMAT = "safetensors"
BYTES_OF_A_WEIGHT = 2

Row = dict[str, Any]


class RegistrationsQuery(BaseModel):
    """GET the registrations."""

    model_config = ConfigDict(frozen=True)

    detailed: bool = False


class CachedQuery(BaseModel):
    """GET what is on disk. `worker_ip` is of a cluster, and ignored."""

    model_config = ConfigDict(frozen=True)

    model_name: str | None = None


class Login(BaseModel):
    """POST /token. Source: `Client.login` of xinference_client 4.1; the password is a key, whose name nobody asks."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    username: str | None = None
    password: str


# ---- routes ----------------------------------------------------------------------------------------


async def registrations(request: Request) -> Response:
    """GET /v1/model_registrations/{model_type}: every model that can be launched, on this machine or still to come."""
    _check_type(request.path_params["model_type"])
    core, asked = core_of(request), query(RegistrationsQuery, request)
    rows = await asyncio.to_thread(to_registrations, core.library, core.settings.ocr.models, asked.detailed)
    return JSONResponse(rows, headers=request_id())


async def registration(request: Request) -> Response:
    """GET /v1/model_registrations/{model_type}/{model_name}."""
    _check_type(request.path_params["model_type"])
    core, name = core_of(request), request.path_params["model_name"]
    row = await asyncio.to_thread(to_registration, name, core.library, core.settings.ocr.models)
    return JSONResponse(row, headers=request_id())


async def engines(request: Request) -> Response:
    """GET /v1/engines/{model_type}/{model_name}: what draws or reads with it, and at which bits."""
    _check_type(request.path_params.get("model_type", SERVED))
    core = core_of(request)
    name, vision = request.path_params["model_name"], core.settings.ocr.models
    answer = await asyncio.to_thread(to_engines, name, core.library, vision, core.settings.models.quantize)
    return JSONResponse(answer, headers=request_id())


async def cached(request: Request) -> Response:
    """GET /v1/cache/models: the models whose weights are on this machine; where they lie is not told."""
    core, asked = core_of(request), query(CachedQuery, request)
    rows = await asyncio.to_thread(to_cached, core.library, asked.model_name)
    return JSONResponse({"list": rows}, headers=request_id())


async def login(request: Request) -> Response:
    """POST /token: a key, given as the password, is the token that the command line keeps and sends from then on.

    Raises: WrongKey, TooManyGuesses; NotFound where there are no keys.
    """
    check_key: Callable[[str], str] | None = request.state.check_key
    if check_key is None:
        raise NotFound("There are no keys here: no login is needed.")
    asked = await parse(Login, request)
    check_key(asked.password)
    headers = {**request_id(), "Cache-Control": "no-store"}
    return JSONResponse({"access_token": asked.password, "token_type": "bearer"}, headers=headers)


# ---- answers ---------------------------------------------------------------------------------------


def to_registrations(library: Library, vision: Mapping[str, Path], detailed: bool) -> list[Row]:
    """Reads folders: call it in a thread. Source: `_to_image_model_reg` of Xinference 4.1."""
    rows = [_registration(spec, library) for spec in _launchable(library)]
    rows += [_reader(name) for name in _readers(vision)]
    return rows if detailed else [{key: row[key] for key in ("model_name", "is_builtin")} for row in rows]


def to_registration(name: str, library: Library, vision: Mapping[str, Path]) -> Row:
    """Reads folders: call it in a thread. Raises: ModelNotFound."""
    if name in _readers(vision):
        return _reader(name)
    spec = library.find(name)
    if spec not in _launchable(library):
        raise ModelNotFound(f"Model {clip(name)} not found", param="model_name")
    return _registration(spec, library)


def to_engines(
    name: str, library: Library, vision: Mapping[str, Path], default_bits: int | None
) -> dict[str, list[Row]]:
    """Looks for packages: call it in a thread. Source: `get_engine_params_by_name` of Xinference 4.1.

    Raises: ModelNotFound.
    """
    if name in _readers(vision):
        engine = MODEL if name == MODEL else VISION_ENGINE
        return {engine: [{"model_name": name, "model_format": FORMAT, "quantizations": ["none"]}]}
    spec = library.find(name)
    whole_gb = spec.size_gb if spec.weights_gb is None else spec.weights_gb
    bits = spec.stored_bits or spec.quantize or default_bits
    row = {
        "model_name": spec.name,
        "model_format": FORMAT,
        "model_size_in_billions": round(whole_gb / BYTES_OF_A_WEIGHT, 3),
        "quantizations": ["none" if bits is None else f"{bits}-bit"],
    }
    return {ENGINE: [row]}


def to_cached(library: Library, name: str | None) -> list[Row]:
    """Reads folders: call it in a thread. Source: `xinference cached`, which shows the keys of the first row."""
    rows = [spec for spec in _launchable(library) if name in (None, spec.name) and library.on_disk(spec)]
    return [
        {
            "model_name": spec.name,
            "model_type": SERVED,
            "model_format": FORMAT,
            "quantization": "none" if spec.stored_bits is None else f"{spec.stored_bits}-bit",
            "model_version": spec.revision,
            "size_gb": spec.size_gb,
        }
        for spec in sorted(rows, key=lambda spec: spec.name)
    ]


def _launchable(library: Library) -> list[ModelSpec]:
    return [spec for spec in library.specs if spec.unavailable is None and spec.task == "generate"]


def _readers(vision: Iterable[str]) -> list[str]:
    return [*([] if installed_at() is None else [MODEL]), *vision]


def _registration(spec: ModelSpec, library: Library) -> Row:
    """Source: `ImageModelFamilyV2` of Xinference 4.1; `model_description` and `licence` are ours."""
    files = {
        "model_format": FORMAT,
        "model_hub": "local" if spec.repo is None else "huggingface",
        "model_id": spec.repo or spec.name,
        "cache_status": library.on_disk(spec),
    }
    return _family(
        spec.name, spec.geometry, abilities(spec), files, revision=spec.revision, builtin=spec in CATALOG
    ) | {
        "default_generate_config": {
            "num_inference_steps": spec.default_steps,
            "guidance_scale": spec.default_guidance,
        },
        "model_description": spec.description,
        "licence": spec.licence,
    }


def _reader(name: str) -> Row:
    files = {"model_format": FORMAT, "model_hub": "local", "model_id": name, "cache_status": True}
    return _family(name, "ocr", ["ocr"], files, revision=None, builtin=name == MODEL)


def _family(name: str, family: str, can: list[str], files: Row, *, revision: str | None, builtin: bool) -> Row:
    return {
        "version": 2,
        "model_name": name,
        "model_family": family,
        "model_id": files["model_id"],
        "model_revision": revision,
        "model_hub": files["model_hub"],
        "model_ability": can,
        "controlnet": None,
        "model_specs": [files],
        "download_hubs": [files["model_hub"]],
        "is_builtin": builtin,
    }


def _check_type(name: str) -> None:
    """Raises: InvalidRequest, in Xinference's words."""
    if name != SERVED:
        raise InvalidRequest(
            f"Unsupported model type: {clip(name)}. Only models of type '{SERVED}' are served.", param="model_type"
        )


ROUTES = (
    Route(f"{REGISTRATIONS}/{{model_type}}", registrations, methods=["GET"]),
    Route(f"{REGISTRATIONS}/{{model_type}}/{{model_name:path}}", registration, methods=["GET"]),
    Route(f"{ENGINES}/{{model_name}}", engines, methods=["GET"]),
    Route(f"{ENGINES}/{{model_type}}/{{model_name:path}}", engines, methods=["GET"]),
    Route(CACHED, cached, methods=["GET"]),
    Route(LOGIN, login, methods=["POST"]),
)
