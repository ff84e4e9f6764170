"""Xinference's own routes: cluster, launching and ending models, named requests, inpainting.

The routes it shares with OpenAI are in openai.py, whose objects carry what its client reads.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from adapters.base import attached, core_of, owner_of, raise_for, validated
from adapters.v1.drawing import drawn, from_pictures
from adapters.v1.errors import render_error, request_id
from adapters.v1.models import served_names
from adapters.v1.payloads import Inpainting, known_model, unfolded
from adapters.v1.request_ids import request_ids
from adapters.v1.sent import sent
from engine.catalog import ModelSpec
from engine.protocol import MemoryCheck
from gateway.core import Core
from gateway.errors import GatewayError, InvalidRequest, JobNotFound, ModelNotFound
from gateway.job import Job, State
from gateway.ocr.packages import MODEL, check_installed, check_vision
from gateway.service import Origin
from gateway.strict_json import parse_async

AUTH = "/v1/cluster/auth"
INPAINTING = "/v1/images/inpainting"

USUAL = {"replica": 1, "n_worker": 1, "n_gpu": "auto"}
"""What its client sends in every launch, whatever its user says."""


class Launch(BaseModel):
    """POST /v1/models. Source: `Client.launch_model` of xinference_client 4.1."""

    model_config = ConfigDict(frozen=True, extra="allow")

    model_name: str
    model_type: str | None = None
    memory: MemoryCheck = "check"
    """Ours: "try" loads what seems not to fit into memory."""


async def cluster_auth(request: Request) -> Response:
    """GET /v1/cluster/auth, without a key: the client sends its key only where this says so."""
    return _answer({"auth": core_of(request).settings.access.keys_file is not None})


async def inpaint(request: Request) -> Response:
    """POST /v1/images/inpainting: white of the mask is repainted."""
    came = await sent(request)
    asked = validated(Inpainting, unfolded(came.fields))
    return await drawn(request, await from_pictures(request, asked, came), came.names)


# ---- models ----------------------------------------------------------------------------------------


async def launch(request: Request) -> Response:
    """POST /v1/models: bring a model into memory, and from the hub first where it is not on disk.

    `?wait_ready=false` does not wait for it.
    """
    core = core_of(request)
    body = {key: value for key, value in _object(await parse_async(await request.body())).items() if value is not None}
    asked = validated(Launch, body)
    ignored = launch_options(asked)
    if _reads(core, asked.model_name):
        return _answer({"model_uid": asked.model_name, "ignored": ignored})
    spec = _named(core, asked.model_name)
    waits = request.query_params.get("wait_ready", "true").lower() not in ("false", "0")
    answer = _answer({"model_uid": asked.model_name, "ignored": ignored})
    if core.service.engine.loaded_model == spec.name:
        return answer
    origin = Origin(owner=owner_of(request), protocol="xinference", attached=waits)
    job = await core.service.submit_load(spec.name, origin, asked.memory)
    request_ids(core).put(owner_of(request), _launch_of(spec), job.id)
    answer.headers["x-request-id"] = job.id
    if waits:
        try:
            raise_for(await attached(request, job))
        except GatewayError as error:
            return render_error(error, job.id)
    return answer


def launch_options(asked: Launch) -> list[str]:
    """The options that change nothing here, by name. Raises: InvalidRequest for those that would be a lie."""
    if asked.model_type not in (None, "image"):
        raise InvalidRequest("Only models of type 'image' are served.", param="model_type")
    ignored = []
    for name, value in (asked.model_extra or {}).items():
        if name.startswith("gguf") or name in ("model_path", "peft_model_config", "controlnet", "download_hub"):
            raise InvalidRequest("Models are the operator's: this cannot be chosen at launch.", param=name[:64])
        if USUAL.get(name) != value:
            ignored.append(name[:64])
    return sorted(ignored)[:64]


async def launch_progress(request: Request) -> Response:
    """GET /v1/models/{uid}/progress: how far its launch is; 1 for a model that is in memory."""
    core, uid = core_of(request), request.path_params["uid"]
    if _reads(core, uid) or core.service.engine.loaded_model == (spec := _named(core, uid)).name:
        return _answer({"progress": 1.0})
    job = await _launching(request, spec)
    if job is None:
        core.library.folder(spec)
    coming = None if job is None else core.service.downloads.waits(job)
    return _answer({"progress": 0.0 if coming is None else round(coming.fraction, 4), "launching": job is not None})


async def cancel_launch(request: Request) -> Response:
    """POST /v1/models/{uid}/cancel."""
    core = core_of(request)
    spec = _named(core, request.path_params["uid"])
    job = await _launching(request, spec)
    if job is None:
        raise InvalidRequest("This model is not being launched.", param="model_uid")
    await core.service.cancel(job.id, owner_of(request))
    return _answer({"msg": "DONE"})


async def terminate(request: Request) -> Response:
    """DELETE /v1/models/{uid}: give its memory back. It stays served, and is loaded again when it is asked for."""
    core = core_of(request)
    name = request.path_params["uid"]
    if name == MODEL or name in core.settings.ocr.models:
        was_loaded = await core.service.models.unload_reader(owner_of(request), name)
    else:
        was_loaded = await core.service.models.unload(owner_of(request), _spec(core, name).name)
    return _answer({"id": name, "object": "model", "deleted": False, "unloaded": was_loaded})


def _reads(core: Core, name: str) -> bool:
    """Whether this is what reads text: it is loaded with its first picture. Raises: NotInstalled, ModelNotOnDisk."""
    if name == MODEL:
        check_installed(pdf=False)
    elif (folder := core.settings.ocr.models.get(name)) is not None:
        check_vision(name, folder, pdf=False)
    else:
        return False
    return True


def _spec(core: Core, name: str) -> ModelSpec:
    """Raises: ModelNotFound, ModelNotOnDisk."""
    spec = _named(core, name)
    core.library.folder(spec)
    return spec


def _named(core: Core, name: str) -> ModelSpec:
    """Raises: ModelNotFound."""
    if not name:
        raise ModelNotFound(param="model")
    return core.library.find(known_model(name, served_names(core.library)))


def _launch_of(spec: ModelSpec) -> str:
    return f"launch {spec.name}"


async def _launching(request: Request, spec: ModelSpec) -> Job | None:
    job = await _job_named(request, _launch_of(spec))
    return None if job is None or job.state is None or job.state.terminal else job


# ---- named requests --------------------------------------------------------------------------------


async def progress(request: Request) -> Response:
    """GET /v1/requests/{request_id}/progress: 0 to 1; `request_id` is the one the client put into its kwargs."""
    job = await _job_named(request, request.path_params["request_id"])
    if job is None:
        raise InvalidRequest("No request has this id.", param="request_id", code="request_not_found")
    if job.state is not None and job.state.terminal:
        return _answer({"progress": 1.0}, job)
    now = core_of(request).service.progress(job.id)
    return _answer({"progress": 0.0 if now is None else now.fraction}, job)


async def abort(request: Request) -> Response:
    """POST /v1/models/{uid}/requests/{request_id}/abort. The call that waits for the pictures gets a 499."""
    core = core_of(request)
    uid = request.path_params["uid"]
    if uid != MODEL and uid not in core.settings.ocr.models:
        _spec(core, uid)
    job = await _job_named(request, request.path_params["request_id"])
    if job is None:
        return _answer({"msg": "NOT_FOUND"})
    if job.state is not None and job.state.terminal:
        return _answer({"msg": "NO_OP"}, job)
    ended = await core.service.cancel(job.id, owner_of(request))
    return _answer({"msg": "DONE" if ended.state is State.CANCELLED else "NO_OP"}, job)


async def _job_named(request: Request, name: str) -> Job | None:
    """This client's newest job of that request_id."""
    core, owner = core_of(request), owner_of(request)
    job_id = request_ids(core).job(owner, name)
    if job_id is None:
        return None
    try:
        return await core.service.get(job_id, owner)
    except JobNotFound:
        return None


def _object(body: object) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise InvalidRequest("The body must be a JSON object.")
    return body


def _answer(body: dict[str, Any], job: Job | None = None) -> Response:
    return JSONResponse(body, headers=request_id(None if job is None else job.id))


ROUTES = (
    Route(AUTH, cluster_auth, methods=["GET"]),
    Route(INPAINTING, inpaint, methods=["POST"]),
    Route("/v1/requests/{request_id}/progress", progress, methods=["GET"]),
    Route("/v1/models", launch, methods=["POST"]),
    Route("/v1/models/{uid:path}/progress", launch_progress, methods=["GET"]),
    Route("/v1/models/{uid:path}/cancel", cancel_launch, methods=["POST"]),
    Route("/v1/models/{uid:path}/requests/{request_id}/abort", abort, methods=["POST"]),
    Route("/v1/models/{uid:path}", terminate, methods=["DELETE"]),
)
