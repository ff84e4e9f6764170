"""The routes of /sdapi/v1. Each one parses, asks the core, and hands on; no state is kept here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from adapters.base import attached, core_of, idempotency_key, owner_of, parse, png_of, raise_for
from adapters.sdapi.faults import OptionRefused
from adapters.sdapi.fit import fitted
from adapters.sdapi.lenient import TRUE
from adapters.sdapi.options import SAMPLERS, checkpoint_rows, options_of
from adapters.sdapi.payloads import Img2Img, Options, Txt2Img
from adapters.sdapi.progress import progress_of
from adapters.sdapi.reply import Told, to_body
from adapters.sdapi.request import Translated, field_of, refuse, to_request, without_hash
from engine.protocol import Generate
from gateway.errors import GatewayError, InvalidRequest, JobNotFound, ModelNotFound, ModelNotOnDisk
from gateway.images import base64_picture, checked_picture
from gateway.job import Job, State
from gateway.service import Origin

PREFIX = "/sdapi/v1"
PROTOCOL = "sdapi"
INTERRUPT_WAIT_S = 0.5
"""A1111 answers an interrupt at once; this is how long we wait to see it take effect."""


async def txt2img(request: Request) -> Response:
    """POST txt2img: waits for its pictures."""
    return await _drawn(request, await parse(Txt2Img, request))


async def img2img(request: Request) -> Response:
    """POST img2img: as txt2img, from one start picture."""
    asked = await parse(Img2Img, request)
    refuse(asked)
    return await _drawn(request, asked, await _start_picture(request, asked))


async def _drawn(request: Request, asked: Txt2Img | Img2Img, init_image: str | None = None) -> Response:
    core = core_of(request)
    generation = core.settings.generation
    translated = to_request(
        asked,
        checkpoint=core.checkpoint,
        limits=generation.limits,
        previews=generation.previews,
        init_image=init_image,
    )
    with _client_names(asked):
        job = await core.service.submit(translated.request, _origin(request))
    return await _told(request, asked, translated, await attached(request, job))


async def _told(request: Request, asked: Txt2Img | Img2Img, translated: Translated, job: Job) -> Response:
    """The pictures of an ended job; an interrupted one answers with those it has. Raises: GenerationFailed."""
    if job.state is State.FAILED:
        raise_for(job)
    assert isinstance(job.plan, Generate)
    pngs = [await png_of(request, image.file) for image in job.images] if asked.send_images else []
    told = Told(asked, job, job.plan, translated.adjustments)
    return Response(await asyncio.to_thread(to_body, told, pngs), media_type="application/json")


async def _start_picture(request: Request, asked: Img2Img) -> str:
    """The name under which the start picture, at the size of the result, is stored. Raises: InvalidRequest."""
    core = core_of(request)
    data = await asyncio.to_thread(base64_picture, asked.init_images[0], "init_images")
    png = await checked_picture(data, core.decoder, "init_images")
    picture = await asyncio.to_thread(
        fitted,
        png,
        width_px=asked.width,
        height_px=asked.height,
        resize_mode=asked.resize_mode,
        limits=core.settings.generation.limits,
    )
    return await core.service.keep_input(picture)


@contextlib.contextmanager
def _client_names(asked: Txt2Img | Img2Img) -> Iterator[None]:
    try:
        yield
    except InvalidRequest as error:
        error.param = field_of(asked, error.param) if error.param else None
        raise


def _origin(request: Request) -> Origin:
    return Origin(
        owner=owner_of(request),
        protocol=PROTOCOL,
        attached=True,
        idempotency_key=idempotency_key(request),
        leniency="drop",
    )


async def progress(request: Request) -> Response:
    """GET progress: of the job that runs, whoever asked for it; its preview only for its owner."""
    service = core_of(request).service
    job = service.running()
    newest = service.progress(job.id) if job else None
    skip = request.query_params.get("skip_current_image", "").lower() in TRUE
    return JSONResponse(progress_of(job, newest, owner=owner_of(request), with_image=not skip))


async def interrupt(request: Request) -> Response:
    """POST interrupt: stops the caller's own running /sdapi picture and nothing that comes after it."""
    service = core_of(request).service
    job = service.running()
    is_own = job is not None and job.protocol == PROTOCOL and job.owner == owner_of(request)
    if job is not None and is_own and isinstance(job.plan, Generate):
        with contextlib.suppress(TimeoutError, JobNotFound):
            await asyncio.wait_for(service.cancel(job.id), INTERRUPT_WAIT_S)
    return JSONResponse({})


async def get_options(request: Request) -> Response:
    """GET options: the current checkpoint and A1111's constants."""
    return JSONResponse(options_of(_checkpoint(request)))


async def post_options(request: Request) -> Response:
    """POST options: `sd_model_checkpoint` loads that model and makes it the default of /sdapi; the rest is ignored."""
    wanted = (await parse(Options, request)).sd_model_checkpoint
    if wanted and without_hash(wanted) != _checkpoint(request):
        try:
            await _load(request, without_hash(wanted))
        except (ModelNotFound, ModelNotOnDisk) as error:
            raise OptionRefused(error.message, code=error.code, details=error.details) from None
    return JSONResponse(None)


async def _load(request: Request, model: str) -> None:
    core = core_of(request)
    job = await attached(request, await core.service.submit_load(model, _origin(request)))
    if job.state is not State.SUCCEEDED:
        raise_for(job)
        raise GatewayError("The model was not loaded.")
    core.checkpoint = model


async def sd_models(request: Request) -> Response:
    """GET sd-models: what can be drawn with now."""
    library = core_of(request).library
    rows = await asyncio.to_thread(
        checkpoint_rows, library.specs, library.aliases, library.on_disk, _checkpoint(request)
    )
    return JSONResponse(rows)


async def samplers(_: Request) -> Response:
    """GET samplers: the one there is; every other name is accepted and reported."""
    return JSONResponse(SAMPLERS)


def _checkpoint(request: Request) -> str:
    core = core_of(request)
    return core.checkpoint or core.library.default


def _get(path: str, endpoint: object) -> Route:
    """A GET route that answers 405 to HEAD, as FastAPI's do."""
    route = Route(PREFIX + path, endpoint, methods=["GET"])  # type: ignore[arg-type]
    route.methods = {"GET"}
    return route


ROUTES = (
    Route(PREFIX + "/txt2img", txt2img, methods=["POST"]),
    Route(PREFIX + "/img2img", img2img, methods=["POST"]),
    _get("/progress", progress),
    Route(PREFIX + "/interrupt", interrupt, methods=["POST"]),
    _get("/options", get_options),
    Route(PREFIX + "/options", post_options, methods=["POST"]),
    _get("/sd-models", sd_models),
    _get("/samplers", samplers),
)
