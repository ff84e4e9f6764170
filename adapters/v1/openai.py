"""OpenAI's Images API: its routes and its stream.

What the fields mean is in payloads.py, what is said back in answers.py. Knows no other dialect of /v1.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from adapters.base import (
    attached,
    attached_events,
    core_of,
    event_stream,
    idempotency_key,
    owner_of,
    png_of,
    validated,
)
from adapters.v1.answers import (
    CONTENT,
    MEDIA_TYPES,
    Row,
    completed_frame,
    error_frame,
    partial_frame,
    to_response,
    to_url,
)
from adapters.v1.errors import render_error, request_id
from adapters.v1.models import served_names, to_model, to_models
from adapters.v1.payloads import Generation, PictureFormat, named_as_sent, to_request, unfolded
from adapters.v1.pictures import from_png, from_preview
from engine.protocol import Cancelled, Failed, Generate, ImageDone, Preview, Succeeded
from gateway.errors import ClientGone, GatewayError, GenerationFailed, InternalError, NotFound, Unavailable
from gateway.hub import Event, ProgressEvent
from gateway.job import Job, JobEvent, State
from gateway.service import Origin
from gateway.strict_json import parse_async

log = logging.getLogger("adapters.v1")

PICTURE_NAME = re.compile(r"([0-9a-f]{32}\.[0-9]{1,9}\.[0-9]{1,4})\.(png|jpeg|webp)")
COMPRESSION = re.compile(r"100|[0-9]{1,2}")


async def generate(request: Request) -> Response:
    """POST /v1/images/generations."""
    body = unfolded(await parse_async(await request.body()))
    asked = validated(Generation, body)
    with core_of(request).waits():
        pass  # one client too many is refused here, with a status: a stream that has begun has none left
    job = await submit(request, body, asked)
    if asked.stream:
        response: Response = event_stream(frames(request, job, asked))
        response.headers["x-request-id"] = job.id
        return response
    try:
        return await answer(request, await attached(request, job), asked)
    except GatewayError as error:
        return render_error(error, job.id)


async def submit(request: Request, body: dict[str, Any], asked: Generation) -> Job:
    """Raises: as JobService.submit, naming parameters as the client did."""
    core = core_of(request)
    origin = Origin(owner=owner_of(request), protocol="openai", attached=True, idempotency_key=idempotency_key(request))
    with named_as_sent(body):
        return await core.service.submit(to_request(asked, served_names(core.library)), origin)


async def answer(request: Request, job: Job, asked: Generation) -> Response:
    """An ended job's pictures in one JSON body. Raises: GenerationFailed, ClientGone."""
    if (failure := failure_of(job)) is not None:
        raise failure
    rows = []
    for done in job.images:
        picture = await drawn(request, done, asked) if "b64_json" in asked.rows else None
        url = to_url(origin_of(request), done, asked) if "url" in asked.rows else None
        rows.append(Row(done, picture, url))
    body = await asyncio.to_thread(to_response, job, asked, rows)
    return Response(body, media_type="application/json", headers={"x-request-id": job.id})


async def drawn(request: Request, done: ImageDone, asked: Generation) -> bytes:
    """A finished picture in the format that was asked for. Raises: PictureGone."""
    png = await png_of(request, done.file)
    return await asyncio.to_thread(from_png, png, asked.output_format, asked.output_compression)


def failure_of(end: Job | Event | None) -> GatewayError | None:
    """Why a job, or its last event, has no pictures for this client; None for a success.

    A cancelled job is a failure here even with pictures finished: OpenAI's clients expect all they asked for.
    """
    failed = end.failure if isinstance(end, Job) else end.fact if isinstance(end, JobEvent) else None
    cancelled = end.state is State.CANCELLED if isinstance(end, Job) else isinstance(failed, Cancelled)
    if isinstance(failed, Failed):
        return GenerationFailed(failed.message, code=failed.code)
    return ClientGone() if cancelled else None


def origin_of(request: Request) -> str:
    """Scheme and host of picture URLs: the configured ones, else what this client called us by."""
    return core_of(request).settings.server.public_url or str(request.base_url).rstrip("/")


# ---- the stream ------------------------------------------------------------------------------------


async def frames(request: Request, job: Job, asked: Generation) -> AsyncIterator[bytes]:
    """The job as OpenAI's events; whatever goes wrong becomes the error event."""
    shown: Counter[int] = Counter()
    try:
        last: Event | None = None
        async with aclosing(attached_events(request, job)) as events:
            async for last in events:
                if (frame := await to_frame(request, job, asked, last, shown)) is not None:
                    yield frame
        if not isinstance(last, JobEvent) or not isinstance(last.fact, Succeeded | Failed | Cancelled):
            raise Unavailable("The gateway is stopping.", retry_after_s=5)
        if (failure := failure_of(last)) is not None:
            raise failure
    except GatewayError as error:
        yield error_frame(error)
    except Exception:
        log.exception("stream failed", extra={"job": job.id})
        yield error_frame(InternalError())


async def to_frame(request: Request, job: Job, asked: Generation, event: Event, shown: Counter[int]) -> bytes | None:
    """A preview or a finished picture as a frame; `shown` counts the previews sent of each picture."""
    match event:
        case ProgressEvent(fact=Preview(image=image) as preview) if shown[image] < asked.partial_images:
            index = shown[image]
            shown[image] += 1
            return await asyncio.to_thread(_partial, job, asked, preview, index)
        case JobEvent(fact=ImageDone() as done, at=at):
            picture = await drawn(request, done, asked)
            return await asyncio.to_thread(completed_frame, job, asked, done, at, picture)
        case _:
            return None


def _partial(job: Job, asked: Generation, preview: Preview, index: int) -> bytes:
    plan = job.plan
    assert isinstance(plan, Generate)
    size_px = (plan.width_px, plan.height_px)
    jpeg = base64.b64decode(preview.jpeg_base64)
    raw = from_preview(jpeg, size_px, asked.output_format, asked.output_compression)
    return partial_frame(asked, size_px, preview.image, index, time.time(), raw)


# ---- pictures by URL, models -----------------------------------------------------------------------


async def content(request: Request) -> Response:
    """GET /v1/images/content/{name}: a picture by its unguessable name, without a key."""
    found = PICTURE_NAME.fullmatch(request.path_params["name"])
    png = await asyncio.to_thread(core_of(request).pictures.read, f"{found[1]}.png") if found else None
    if found is None or png is None:
        raise NotFound("There is no such picture, or it was removed.")
    picture_format = cast(PictureFormat, found[2])
    asked = request.query_params.get("output_compression", "")
    compression = int(asked) if COMPRESSION.fullmatch(asked) else None
    picture = await asyncio.to_thread(from_png, png, picture_format, compression)
    headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "private, max-age=3600", **request_id()}
    return Response(picture, media_type=MEDIA_TYPES[picture_format], headers=headers)


async def list_models(request: Request) -> Response:
    """GET /v1/models."""
    return JSONResponse(await asyncio.to_thread(to_models, core_of(request).library), headers=request_id())


async def retrieve_model(request: Request) -> Response:
    """GET /v1/models/{id}; the id may hold slashes and colons."""
    row = await asyncio.to_thread(to_model, request.path_params["id"], core_of(request).library)
    return JSONResponse(row, headers=request_id())


ROUTES = (
    Route("/v1/images/generations", generate, methods=["POST"]),
    Route(CONTENT + "{name}", content, methods=["GET"]),
    Route("/v1/models", list_models, methods=["GET"]),
    Route("/v1/models/{id:path}", retrieve_model, methods=["GET"]),
)
