"""Launches of models, as Xinference's clients make them: start, list, progress, cancel, terminate.

A launch is a uid that means a model, and the job that loads it; state.py keeps them.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from adapters.shared.body import query, validated
from adapters.shared.context import core_of, idempotency_key, is_attached, owner_of
from adapters.shared.responses import raise_for
from adapters.shared.waiting import attached
from adapters.v1.errors import render_error
from adapters.v1.model_responses import to_instance
from adapters.v1.ocr import is_reader
from adapters.v1.request_schemas import InstanceQuery, Launch
from adapters.v1.requests import BORROWED_NAME, find_model, served_names
from adapters.v1.response_schemas import Launched, Message, Progress, Terminated
from adapters.v1.responses import json_response
from adapters.v1.state import Launches, LaunchRecord, Status, launches_of
from engine.catalog import ModelSpec
from gateway.context import Core
from gateway.errors import ClientGone, Forbidden, GatewayError, InvalidRequest, JobDamaged, JobNotFound
from gateway.jobs.job import Job, State
from gateway.jobs.origin import Origin
from gateway.ocr.packages import MODEL, check_installed, check_vision
from gateway.strict_json import parse_async

UID = re.compile(r"\w[\w.:@+ -]{0,127}")
RESERVED = frozenset({"instances"})
"""Paths below /v1/models that are no model."""
DEFAULT_OPTIONS = {"replica": 1, "n_worker": 1, "n_gpu": "auto"}
"""The options that Xinference's client sends in every launch by itself."""
STATUS: Mapping[State | None, Status] = {
    None: "CREATING",
    State.QUEUED: "CREATING",
    State.RUNNING: "LOADING",
    State.SUCCEEDED: "READY",
    State.FAILED: "ERROR",
    State.CANCELLED: "TERMINATED",
}


# ---- routes ----------------------------------------------------------------------------------------


async def launch(request: Request) -> Response:
    """POST /v1/models: bring a model into memory, and from the hub first where it is not on disk.

    Its uid, by default its name, means it until it is terminated. `?wait_ready=false` does not wait for it.
    """
    core, owner = core_of(request), owner_of(request)
    fields = await parse_async(await request.body())
    if not isinstance(fields, dict):
        raise InvalidRequest("The body must be a JSON object.")
    body = validated(Launch, {key: value for key, value in fields.items() if value is not None})
    ignored = ignored_options(body)
    records, is_read = launches_of(core, owner), _check_reader(core, body.model_name)
    model = body.model_name if is_read else find_model(body.model_name, core.library).name
    uid = body.model_uid or body.model_name
    is_chosen = uid != body.model_name
    if is_chosen:
        check_uid(uid, served_names(core.library) | {MODEL, *core.settings.ocr.models})
    records.check(uid, model)
    waits = request.query_params.get("wait_ready", "true").lower() not in ("false", "0")
    answer = Launched(model_uid=uid, ignored=ignored)
    if is_read or model in core.service.engines.loaded_models:
        records.put(LaunchRecord(uid, model, is_chosen=is_chosen, status="READY"))
        return json_response(answer)
    origin = Origin(
        owner=owner,
        protocol="xinference",
        attached=waits and is_attached(request),
        idempotency_key=idempotency_key(request),
    )
    job = await core.service.submit_load(model, origin, body.memory)
    records.put(LaunchRecord(uid, model, job.id, is_chosen=is_chosen))
    if waits:
        try:
            raise_for(await attached(request, job))
        except GatewayError as error:
            if job.idempotency_key is None or not isinstance(error, ClientGone):  # with a key the load continues
                records.drop_of(job.id)
            return render_error(error, job.id)
    return json_response(answer, job.id)


async def list_instances(request: Request) -> Response:
    """GET /v1/models/instances: what was launched, and what is in memory; of one uid or one model where it is said."""
    core, filters = core_of(request), query(InstanceQuery, request)
    records = await refresh_launches(core, launches_of(core, owner_of(request)))
    for loaded in core.service.engines.loaded_models:
        if all(record.model != loaded for record in records):
            records.append(LaunchRecord(loaded, loaded, status="READY", created_at=0))
    if filters.model_uid is not None:
        records = [record for record in records if record.uid == filters.model_uid]
    elif filters.model_name is not None:
        records = [record for record in records if filters.model_name in (record.model, record.uid)]
    specs = [None if is_reader(core, record.model) else core.library.find(record.model) for record in records]
    return json_response([to_instance(*row) for row in zip(records, specs, strict=True)])


async def launch_progress(request: Request) -> Response:
    """GET /v1/models/{uid}/progress: how far its launch is; 1 for a model that is in memory."""
    core, records, uid = _read_path(request)
    name = records.model_of(uid)
    if _check_reader(core, name) or (spec := find_model(name, core.library)).name in core.service.engines.loaded_models:
        return json_response(Progress(progress=1.0))
    job = await loading_job(core, records, uid)
    if job is None:
        core.library.folder(spec)
    download = None if job is None else core.service.downloads.progress.waits(job)
    fraction = 0.0 if download is None else round(download.fraction, 4)
    return json_response(Progress(progress=fraction, launching=job is not None))


async def cancel_launch(request: Request) -> Response:
    """POST /v1/models/{uid}/cancel."""
    core, records, uid = _read_path(request)
    name = records.model_of(uid)
    if not _check_reader(core, name):
        find_model(name, core.library)
    job = await loading_job(core, records, uid)
    if job is None:
        raise InvalidRequest("This model is not being launched.", param="model_uid")
    await _cancel(core, job, owner_of(request))
    return json_response(Message(msg="DONE"))


async def terminate(request: Request) -> Response:
    """DELETE /v1/models/{uid}: give its memory back, and forget a uid of the client's own choice.

    The model stays served, and is loaded again when it is asked for. A launch that is under way is cancelled.
    """
    core, records, uid = _read_path(request)
    owner, name = owner_of(request), records.model_of(uid)
    record, job = records.find(uid), await loading_job(core, records, uid)
    if job is not None:
        await _cancel(core, job, owner)
    is_chosen = record is not None and record.is_chosen
    others = [other for other in await refresh_launches(core, records) if other.uid != uid and other.status != "ERROR"]
    was_loaded = False
    if all(other.model != name for other in others):
        try:
            was_loaded = await _unload(core, name, owner)
        except Forbidden:
            if not is_chosen:
                raise
    records.drop(uid)
    return json_response(Terminated(id=uid, object="model", deleted=is_chosen, unloaded=was_loaded))


def _read_path(request: Request) -> tuple[Core, Launches, str]:
    core = core_of(request)
    return core, launches_of(core, owner_of(request)), request.path_params["uid"]


# ---- requests --------------------------------------------------------------------------------------


def ignored_options(body: Launch) -> list[str]:
    """The names of the options that change nothing here. Raises: InvalidRequest for those that cannot be ignored."""
    if body.model_type not in (None, "image"):
        raise InvalidRequest("Only models of type 'image' are served.", param="model_type")
    ignored = []
    for name, value in (body.model_extra or {}).items():
        if name.startswith("gguf") or name in ("model_path", "peft_model_config", "controlnet", "download_hub"):
            raise InvalidRequest("Models are the operator's: this cannot be chosen at launch.", param=name[:64])
        if DEFAULT_OPTIONS.get(name) != value:
            ignored.append(name[:64])
    return sorted(ignored)[:64]


def check_uid(uid: str, taken: Container[str]) -> None:
    """Raises: InvalidRequest for a uid of the client's own choice that is no name, or a model's that is served."""
    if not UID.fullmatch(uid) or uid in RESERVED:
        raise InvalidRequest(
            "A uid begins with a letter or digit and has at most 128 letters, digits, spaces and _ . : @ + -",
            param="model_uid",
        )
    if uid in taken or BORROWED_NAME.fullmatch(uid):
        raise InvalidRequest(f"Model is already in the model list, uid: {uid}", param="model_uid")


def _check_reader(core: Core, name: str) -> bool:
    """Whether this model reads text: it is loaded with its first image. Raises: NotInstalled, ModelNotOnDisk."""
    if name == MODEL:
        check_installed(pdf=False)
    elif (folder := core.settings.ocr.models.get(name)) is not None:
        check_vision(name, folder, pdf=False)
    else:
        return False
    return True


def find_model_on_disk(name: str, core: Core) -> ModelSpec:
    """Raises: ModelNotFound, ModelNotServed, ModelNotOnDisk."""
    spec = find_model(name, core.library)
    core.library.folder(spec)
    return spec


# ---- launches and their jobs -----------------------------------------------------------------------


async def refresh_launches(core: Core, records: Launches) -> list[LaunchRecord]:
    """All launches as they stand now; a cancelled one is gone."""
    return [record for record in [await _refresh(core, record, records) for record in records] if record is not None]


async def ready_launches(core: Core, owner: str) -> list[LaunchRecord]:
    """The launches that succeeded."""
    return [record for record in await refresh_launches(core, launches_of(core, owner)) if record.status == "READY"]


async def loading_job(core: Core, records: Launches, uid: str) -> Job | None:
    """The job that loads what was launched under this uid, while it has not ended."""
    record = records.find(uid)
    if record is None or record.job_id is None or record.has_ended:
        return None
    job = await _find_job(core, record.job_id)
    return None if job is None or job.state is None or job.state.terminal else job


async def _refresh(core: Core, record: LaunchRecord, records: Launches) -> LaunchRecord | None:
    if record.has_ended or record.job_id is None:
        return record
    job = await _find_job(core, record.job_id)
    if records.find(record.uid) is not record:
        return records.find(record.uid)
    if job is None:
        now = replace(record, status="READY")  # its job ended so long ago that it is no longer stored
    else:
        failure = None if job.failure is None else job.failure.message
        now = replace(record, status=STATUS[job.state], failure=failure)
    if now.status == "TERMINATED":
        records.drop(record.uid)
        return None
    if now != record:
        records.put(now)
    return now


async def _find_job(core: Core, job_id: str) -> Job | None:
    try:
        return await core.service.get(job_id)
    except (JobNotFound, JobDamaged):
        return None


async def _cancel(core: Core, job: Job, owner: str) -> None:
    try:
        await core.service.cancel(job.id, owner)
    except JobNotFound:
        raise InvalidRequest("Another client launches this model.", param="model_uid") from None


async def _unload(core: Core, name: str, owner: str) -> bool:
    """Whether it held memory. Raises: Forbidden, ModelNotFound, ModelNotOnDisk."""
    if is_reader(core, name):
        return await core.service.models.unload_reader(owner, name)
    return await core.service.models.unload(owner, find_model_on_disk(name, core).name)
