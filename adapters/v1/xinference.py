"""Xinference's own routes: cluster, login, inpainting, and requests by the name that the client gave them.

The routes it shares with OpenAI are in openai.py, whose objects carry what its client reads; those for models in
launches.py and registrations.py.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapters.shared.body import parse, validated
from adapters.shared.context import core_of, owner_of
from adapters.v1.images import answer_images
from adapters.v1.launches import find_model_on_disk
from adapters.v1.ocr import is_reader
from adapters.v1.payload import flatten, read_payload
from adapters.v1.request_schemas import Inpainting, Login
from adapters.v1.requests import translate_images
from adapters.v1.response_schemas import Auth, Message, Progress, Token
from adapters.v1.responses import json_response, request_id
from adapters.v1.state import launches_of, request_ids
from gateway.errors import InvalidRequest, JobNotFound, NotFound
from gateway.jobs.job import Job, State


async def cluster_auth(request: Request) -> Response:
    """GET /v1/cluster/auth, without a key: the client sends its key only where this says so."""
    return json_response(Auth(auth=core_of(request).settings.access.keys_file is not None))


async def login(request: Request) -> Response:
    """POST /token: a key, given as the password, is the token that the command line keeps and sends from then on.

    Raises: WrongKey, TooManyGuesses; NotFound where there are no keys.
    """
    check_key: Callable[[str], str] | None = request.state.check_key
    if check_key is None:
        raise NotFound("There are no keys here: no login is needed.")
    body = await parse(Login, request)
    check_key(body.password)
    token = Token(access_token=body.password, token_type="bearer")
    return JSONResponse(token, headers={**request_id(), "Cache-Control": "no-store"})


async def inpaint(request: Request) -> Response:
    """POST /v1/images/inpainting: white of the mask is repainted."""
    payload = await read_payload(request)
    body = validated(Inpainting, flatten(payload.fields))
    return await answer_images(request, await translate_images(request, body, payload))


# ---- named requests --------------------------------------------------------------------------------


async def request_progress(request: Request) -> Response:
    """GET /v1/requests/{request_id}/progress: 0 to 1; `request_id` is the one the client put into its kwargs."""
    job = await _find_job(request)
    if job is None:
        raise InvalidRequest("No request has this id.", param="request_id", code="request_not_found")
    if job.state is not None and job.state.terminal:
        return json_response(Progress(progress=1.0), job.id)
    progress = core_of(request).service.events.progress(job.id)
    return json_response(Progress(progress=0.0 if progress is None else progress.fraction), job.id)


async def abort(request: Request) -> Response:
    """POST /v1/models/{uid}/requests/{request_id}/abort. The call that waits for the pictures gets a 499."""
    core, owner = core_of(request), owner_of(request)
    name = launches_of(core, owner).model_of(request.path_params["uid"])
    if not is_reader(core, name):
        find_model_on_disk(name, core)
    job = await _find_job(request)
    if job is None:
        return json_response(Message(msg="NOT_FOUND"))
    if job.state is not None and job.state.terminal:
        return json_response(Message(msg="NO_OP"), job.id)
    ended = await core.service.cancel(job.id, owner)
    return json_response(Message(msg="DONE" if ended.state is State.CANCELLED else "NO_OP"), job.id)


async def _find_job(request: Request) -> Job | None:
    """This client's newest job of the request_id in the path; None where there is none."""
    core, owner = core_of(request), owner_of(request)
    job_id = request_ids(core).job_of(owner, request.path_params["request_id"])
    if job_id is None:
        return None
    try:
        return await core.service.get(job_id, owner)
    except JobNotFound:
        return None
