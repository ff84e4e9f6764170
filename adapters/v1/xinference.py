"""Xinference's own routes: cluster, launching and ending models, named requests, inpainting.

The routes it shares with OpenAI are in openai.py, whose objects carry what its client reads.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from adapters.shared.body import query, validated
from adapters.shared.context import core_of, owner_of
from adapters.shared.responses import raise_for
from adapters.shared.waiting import attached
from adapters.v1.drawing import drawn, from_pictures
from adapters.v1.errors import render_error, request_id
from adapters.v1.launched import Launched, Launches, check_uid, launches, launching, looked_at
from adapters.v1.models import abilities, served_names
from adapters.v1.payloads import Inpainting, known_model, unfolded
from adapters.v1.sent import sent
from adapters.v1.state import request_ids
from engine.catalog import ModelSpec
from engine.protocol import MemoryCheck
from gateway.context import Core
from gateway.errors import Forbidden, GatewayError, InvalidRequest, JobNotFound, ModelNotFound
from gateway.jobs.job import Job, State
from gateway.jobs.origin import Origin
from gateway.ocr.packages import MODEL, check_installed, check_vision
from gateway.strict_json import parse_async

AUTH = "/v1/cluster/auth"
INPAINTING = "/v1/images/inpainting"
INSTANCES = "/v1/models/instances"

USUAL = {"replica": 1, "n_worker": 1, "n_gpu": "auto"}
"""What its client sends in every launch, whatever its user says."""


class Launch(BaseModel):
    """POST /v1/models. Source: `Client.launch_model` of xinference_client 4.1."""

    model_config = ConfigDict(frozen=True, extra="allow")

    model_name: str
    model_type: str | None = None
    memory: MemoryCheck = "check"
    """Ours: "try" loads what seems not to fit into memory."""
    model_uid: str | None = None


class InstanceQuery(BaseModel):
    """GET instances."""

    model_config = ConfigDict(frozen=True)

    model_name: str | None = None
    model_uid: str | None = None


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

    Its uid, by default its name, means it until it is terminated. `?wait_ready=false` does not wait for it.
    """
    core, owner = core_of(request), owner_of(request)
    body = {key: value for key, value in _object(await parse_async(await request.body())).items() if value is not None}
    asked = validated(Launch, body)
    ignored = launch_options(asked)
    known, reads = launches(core, owner), _reads(core, asked.model_name)
    model = asked.model_name if reads else _named(core, asked.model_name).name
    uid = asked.model_uid or asked.model_name
    chosen = uid != asked.model_name
    if chosen:
        check_uid(uid, served_names(core.library) | {MODEL, *core.settings.ocr.models})
    known.check(uid, model)
    waits = request.query_params.get("wait_ready", "true").lower() not in ("false", "0")
    answer = _answer({"model_uid": uid, "ignored": ignored})
    if reads or core.service.engine.loaded_model == model:
        known.put(Launched(uid, model, is_chosen=chosen, status="READY"))
        return answer
    origin = Origin(owner=owner, protocol="xinference", attached=waits)
    job = await core.service.submit_load(model, origin, asked.memory)
    known.put(Launched(uid, model, job.id, is_chosen=chosen))
    answer.headers["x-request-id"] = job.id
    if waits:
        try:
            raise_for(await attached(request, job))
        except GatewayError as error:
            known.drop_of(job.id)
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


async def instances(request: Request) -> Response:
    """GET /v1/models/instances: what was launched, and what is in memory; of one uid or one model where it is said."""
    core, asked = core_of(request), query(InstanceQuery, request)
    found = await looked_at(core, launches(core, owner_of(request)))
    loaded = core.service.engine.loaded_model
    if loaded is not None and all(it.model != loaded for it in found):
        found.append(Launched(loaded, loaded, status="READY", created_at=0))
    if asked.model_uid is not None:
        found = [it for it in found if it.uid == asked.model_uid]
    elif asked.model_name is not None:
        found = [it for it in found if asked.model_name in (it.model, it.uid)]
    return JSONResponse([_instance(core, it) for it in found], headers=request_id())


def _instance(core: Core, it: Launched) -> dict[str, Any]:
    """Source: `InstanceInfo` and `ReplicaStatus` of Xinference 4.1. Where a replica runs is nobody's business."""
    reads = it.model == MODEL or it.model in core.settings.ocr.models
    spec = None if reads else core.library.find(it.model)
    replica = {
        "replica_id": 0,
        "replica_model_uid": f"{it.uid}-0",
        "worker_address": "",
        "status": it.status,
        "model_state": it.status.lower(),
        "created_ts": int(it.created_at),
        "error_message": it.failure,
    }
    return {
        "model_name": it.model,
        "model_uid": it.uid,
        "model_version": None if spec is None else spec.revision,
        "model_ability": ["ocr"] if spec is None else abilities(spec),
        "replica": 1,
        "status": it.status,
        "instance_created_ts": int(it.created_at),
        "n_worker": 1,
        "replica_statuses": [replica],
    }


async def launch_progress(request: Request) -> Response:
    """GET /v1/models/{uid}/progress: how far its launch is; 1 for a model that is in memory."""
    core, known, uid = _launch_named(request)
    name = known.model_of(uid)
    if _reads(core, name) or core.service.engine.loaded_model == (spec := _named(core, name)).name:
        return _answer({"progress": 1.0})
    job = await launching(core, known, uid)
    if job is None:
        core.library.folder(spec)
    coming = None if job is None else core.service.downloads.waits(job)
    return _answer({"progress": 0.0 if coming is None else round(coming.fraction, 4), "launching": job is not None})


async def cancel_launch(request: Request) -> Response:
    """POST /v1/models/{uid}/cancel."""
    core, known, uid = _launch_named(request)
    name = known.model_of(uid)
    if not _reads(core, name):
        _named(core, name)
    job = await launching(core, known, uid)
    if job is None:
        raise InvalidRequest("This model is not being launched.", param="model_uid")
    await _stop(core, job, owner_of(request))
    return _answer({"msg": "DONE"})


async def terminate(request: Request) -> Response:
    """DELETE /v1/models/{uid}: give its memory back, and forget a uid of the client's own choice.

    The model stays served, and is loaded again when it is asked for. A launch that is under way is cancelled.
    """
    core, known, uid = _launch_named(request)
    owner, name = owner_of(request), known.model_of(uid)
    it, job = known.find(uid), await launching(core, known, uid)
    if job is not None:
        await _stop(core, job, owner)
    chosen = it is not None and it.is_chosen
    others = [other for other in await looked_at(core, known) if other.uid != uid and other.status != "ERROR"]
    was_loaded = False
    if all(other.model != name for other in others):
        try:
            was_loaded = await _give_back(core, name, owner)
        except Forbidden:
            if not chosen:
                raise
    known.drop(uid)
    return _answer({"id": uid, "object": "model", "deleted": chosen, "unloaded": was_loaded})


async def _give_back(core: Core, name: str, owner: str) -> bool:
    """Whether it held memory. Raises: Forbidden, ModelNotFound, ModelNotOnDisk."""
    if name == MODEL or name in core.settings.ocr.models:
        return await core.service.models.unload_reader(owner, name)
    return await core.service.models.unload(owner, _spec(core, name).name)


async def _stop(core: Core, job: Job, owner: str) -> None:
    try:
        await core.service.cancel(job.id, owner)
    except JobNotFound:
        raise InvalidRequest("Another client launches this model.", param="model_uid") from None


def _launch_named(request: Request) -> tuple[Core, Launches, str]:
    core = core_of(request)
    return core, launches(core, owner_of(request)), request.path_params["uid"]


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


# ---- named requests --------------------------------------------------------------------------------


async def progress(request: Request) -> Response:
    """GET /v1/requests/{request_id}/progress: 0 to 1; `request_id` is the one the client put into its kwargs."""
    job = await _job_named(request, request.path_params["request_id"])
    if job is None:
        raise InvalidRequest("No request has this id.", param="request_id", code="request_not_found")
    if job.state is not None and job.state.terminal:
        return _answer({"progress": 1.0}, job)
    now = core_of(request).service.events.progress(job.id)
    return _answer({"progress": 0.0 if now is None else now.fraction}, job)


async def abort(request: Request) -> Response:
    """POST /v1/models/{uid}/requests/{request_id}/abort. The call that waits for the pictures gets a 499."""
    core, known, uid = _launch_named(request)
    uid = known.model_of(uid)
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
    job_id = request_ids(core).job_of(owner, name)
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
    Route(INSTANCES, instances, methods=["GET"]),
    Route("/v1/models/{uid:path}/progress", launch_progress, methods=["GET"]),
    Route("/v1/models/{uid:path}/cancel", cancel_launch, methods=["POST"]),
    Route("/v1/models/{uid:path}/requests/{request_id}/abort", abort, methods=["POST"]),
    Route("/v1/models/{uid:path}", terminate, methods=["DELETE"]),
)
