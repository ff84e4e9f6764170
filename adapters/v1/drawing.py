"""From a request to its pictures, for every route that draws: submit, wait or stream, answer.

What the fields mean is in payloads.py, what is said back in answers.py.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Container
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from adapters.shared.body import let_go
from adapters.shared.context import core_of, idempotency_key, owner_of
from adapters.shared.responses import adjustments_header, error_of, png_of
from adapters.shared.sse import event_stream
from adapters.shared.waiting import attached, attached_events
from adapters.v1.answers import Row, adjustments_of, completed_frame, error_frame, partial_frame, to_response, to_url
from adapters.v1.content import origin_of
from adapters.v1.errors import render_error
from adapters.v1.inputs import inputs_of
from adapters.v1.launched import launches
from adapters.v1.models import served_names
from adapters.v1.payloads import Drawing, FromPictures, client_param_names, known_model, to_request
from adapters.v1.pictures import from_png, from_preview
from adapters.v1.sent import Sent
from adapters.v1.state import request_ids
from engine.protocol import Cancelled, Failed, Generate, Preview, PromptRead, Succeeded
from gateway.errors import (
    ClientGone,
    GatewayError,
    InternalError,
    Unavailable,
)
from gateway.events.bus import Event, ProgressEvent
from gateway.jobs.facts import ImageDone
from gateway.jobs.job import Job, JobEvent, State
from gateway.jobs.resolve import Adjustment, GenerationRequest
from gateway.service.service import Origin

D = TypeVar("D", bound=Drawing)

log = logging.getLogger("adapters.v1")


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked, as it is submitted, and what of it this prefix itself did otherwise."""

    asked: Drawing
    request: GenerationRequest
    told: tuple[Adjustment, ...] = ()


def from_text(request: Request, asked: Drawing) -> Order:
    asked = under_its_name(request, asked)
    return Order(asked, to_request(asked, served_names(core_of(request).library)))


def under_its_name(request: Request, asked: D) -> D:
    """As asked, with the model's own name where it was launched under another."""
    if asked.model is None:
        return asked
    name = launches(core_of(request), owner_of(request)).model_of(asked.model)
    return asked if name == asked.model else asked.model_copy(update={"model": name})


async def from_pictures(request: Request, asked: FromPictures, sent: Sent) -> Order:
    """Raises: ModelNotFound, ModelNotOnDisk, ModelIsDownloading, InvalidRequest, Unavailable, StorageFull."""
    core, asked = core_of(request), under_its_name(request, asked)
    with core.waits():
        pass  # nobody's pictures are opened who will be refused afterwards
    served = served_names(core.library)
    spec = core.library.find(known_model(asked.model, served))
    await core.service.downloads.need(spec, owner_of(request))
    with client_param_names(sent.names):
        inputs = await inputs_of(request, asked, sent, spec)
    sent.let_go()
    let_go(request, sent.fields)
    given = {
        "width_px": inputs.width_px,
        "height_px": inputs.height_px,
        "init_image": inputs.init_image,
        "denoise": inputs.denoise,
        "mask": inputs.mask,
        "references": inputs.references,
    }
    return Order(asked, to_request(asked, served).model_copy(update=given), inputs.told)


async def drawn(request: Request, order: Order, names: Container[str]) -> Response:
    """Submit and answer as the client wishes; `names` are the parameters it sent. Raises: as JobService.submit."""
    core = core_of(request)
    with core.waits():
        pass  # one client too many is refused here, with a status: a stream that has begun has none left
    job = await submit(request, order, names)
    if order.asked.stream:
        response: Response = event_stream(request, frames(request, job, order))
        response.headers["x-request-id"] = job.id
        return response
    try:
        return await answer(request, await attached(request, job), order)
    except GatewayError as error:
        return render_error(error, job.id)


async def submit(request: Request, order: Order, names: Container[str]) -> Job:
    """Raises: as JobService.submit, naming parameters as the client did."""
    core, owner = core_of(request), owner_of(request)
    origin = Origin(
        owner=owner,
        protocol="openai",
        attached=True,
        idempotency_key=idempotency_key(request),
        waits=order.asked.stream,  # these clients give up after minutes: a stream has its heartbeat
    )
    with client_param_names(names):
        job = await core.service.submit(order.request, origin)
    if order.asked.request_id is not None:
        request_ids(core).put(owner, order.asked.request_id, job.id)
    return job


async def answer(request: Request, job: Job, order: Order) -> Response:
    """An ended job's pictures in one JSON body. Raises: GenerationFailed, InvalidRequest, ClientGone."""
    if (failure := failure_of(job)) is not None:
        raise failure
    asked, rows = order.asked, []
    for done in job.images:
        picture = await encoded(request, done, asked) if "b64_json" in asked.rows else None
        url = to_url(origin_of(request), done, asked) if "url" in asked.rows else None
        rows.append(Row(done, picture, url))
    body = await asyncio.to_thread(to_response, job, asked, rows, order.told)
    headers = {"x-request-id": job.id, **adjustments_header(adjustments_of(job, asked, order.told))}
    return Response(body, media_type="application/json", headers=headers)


async def encoded(request: Request, done: ImageDone, asked: Drawing) -> bytes:
    """A finished picture in the format that was asked for. Raises: as png_of."""
    png = await png_of(request, done)
    return await asyncio.to_thread(from_png, png, asked.output_format, asked.output_compression)


def failure_of(end: Job | Event | None) -> GatewayError | None:
    """Why a job, or its last event, has no pictures for this client; None for a success.

    A cancelled job is a failure here even with pictures finished: OpenAI's clients expect all they asked for.
    """
    failed = end.failure if isinstance(end, Job) else end.fact if isinstance(end, JobEvent) else None
    cancelled = end.state is State.CANCELLED if isinstance(end, Job) else isinstance(failed, Cancelled)
    if isinstance(failed, Failed):
        return error_of(failed)
    return ClientGone() if cancelled else None


# ---- the stream ------------------------------------------------------------------------------------


async def frames(request: Request, job: Job, order: Order) -> AsyncGenerator[bytes, None]:
    """The job as OpenAI's events; whatever goes wrong becomes the error event."""
    shown: Counter[int] = Counter()
    try:
        last: Event | None = None
        async with aclosing(attached_events(request, job)) as events:
            async for last in events:
                job = with_reading(job, last)
                if (frame := await to_frame(request, job, order, last, shown)) is not None:
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


def with_reading(job: Job, event: Event) -> Job:
    """The job as far as a frame tells of it, after this event."""
    if not isinstance(event, JobEvent) or not isinstance(event.fact, PromptRead) or event.fact in job.readings:
        return job
    return replace(job, readings=(*job.readings, event.fact))


async def to_frame(request: Request, job: Job, order: Order, event: Event, shown: Counter[int]) -> bytes | None:
    """A preview or a finished picture as a frame; `shown` counts the previews sent of each picture."""
    asked = order.asked
    match event:
        case ProgressEvent(fact=Preview(image=image) as preview) if shown[image] < asked.partial_images:
            index = shown[image]
            shown[image] += 1
            return await asyncio.to_thread(_partial, job, asked, preview, index)
        case JobEvent(fact=ImageDone() as done, at=at):
            picture = await encoded(request, done, asked)
            return await asyncio.to_thread(completed_frame, job, asked, done, at, picture, order.told)
        case _:
            return None


def _partial(job: Job, asked: Drawing, preview: Preview, index: int) -> bytes:
    plan = job.plan
    assert isinstance(plan, Generate)
    size_px = (plan.width_px, plan.height_px)
    jpeg = base64.b64decode(preview.jpeg_base64)
    raw = from_preview(jpeg, size_px, asked.output_format, asked.output_compression)
    return partial_frame(asked, size_px, preview.image, index, time.time(), raw)
