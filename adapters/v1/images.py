"""The images of a request, for every route that draws: submit, wait or stream, answer.

The meaning of the fields is in request_schemas.py and requests.py, the form of the answers in responses.py.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from adapters.shared.context import core_of, idempotency_key, is_attached, owner_of
from adapters.shared.responses import adjustments_header, error_of, stored_png
from adapters.shared.sse import event_stream
from adapters.shared.waiting import attached, attached_events
from adapters.v1.content import origin_of
from adapters.v1.errors import client_param_names, error_frame, render_error
from adapters.v1.image_formats import from_png, from_preview
from adapters.v1.request_schemas import ImageBody
from adapters.v1.requests import Submission
from adapters.v1.responses import (
    ImageRow,
    adjustments_of,
    completed_frame,
    partial_frame,
    request_id,
    to_response,
    to_url,
)
from adapters.v1.state import request_ids
from engine.protocol import Cancelled, Failed, Generate, Preview, PromptRead, Succeeded
from gateway.errors import ClientGone, GatewayError, InternalError, Unavailable
from gateway.events.bus import Event, ProgressEvent
from gateway.jobs.facts import ImageDone
from gateway.jobs.job import Job, JobEvent, State
from gateway.jobs.origin import Origin

log = logging.getLogger("adapters.v1")


async def answer_images(request: Request, submission: Submission) -> Response:
    """Submit, and answer whole or as a stream, as the client asked. Raises: as JobService.submit."""
    core = core_of(request)
    core.check_waits()  # refused here with a status: a stream that has begun has none left
    job = await submit(request, submission)
    if submission.body.stream:
        response: Response = event_stream(request, event_frames(request, job, submission))
        response.headers["x-request-id"] = job.id
        return response
    try:
        return await answer_whole(request, await attached(request, job), submission)
    except GatewayError as error:
        return render_error(error, job.id)


async def submit(request: Request, submission: Submission) -> Job:
    """The stored job. Raises: as JobService.submit, naming parameters as the client did."""
    core, owner, body = core_of(request), owner_of(request), submission.body
    origin = Origin(
        owner=owner,
        protocol="openai",
        attached=is_attached(request),
        idempotency_key=idempotency_key(request),
        waits=body.stream,  # these clients give up after minutes: a stream has its heartbeat
    )
    with client_param_names(submission.names):
        job = await core.service.submit(submission.request, origin)
    if body.request_id is not None:
        request_ids(core).put(owner, body.request_id, job.id)
    return job


async def answer_whole(request: Request, job: Job, submission: Submission) -> Response:
    """The images of an ended job in one JSON body. Raises: GenerationFailed, InvalidRequest, ClientGone."""
    if (failure := failure_of(job)) is not None:
        raise failure
    body, adjustments = submission.body, submission.adjustments
    output, origin = core_of(request).output, origin_of(request)

    def write() -> bytes:
        rows = []
        for image in job.images:
            data = in_format(stored_png(output, image), body) if "b64_json" in body.rows else None
            rows.append(ImageRow(image, data, to_url(origin, image, body) if "url" in body.rows else None))
        return to_response(job, body, rows, adjustments)

    content = await output.run(write)
    headers = {**request_id(job.id), **adjustments_header(adjustments_of(job, body, adjustments))}
    return Response(content, media_type="application/json", headers=headers)


async def encode_image(request: Request, image: ImageDone, body: ImageBody) -> bytes:
    """A finished image in the format that was asked for. Raises: as stored_png."""
    output = core_of(request).output
    return await output.run(lambda: in_format(stored_png(output, image), body))


def in_format(png: bytes, body: ImageBody) -> bytes:
    """A stored image in the format that was asked for. Blocks."""
    return from_png(png, body.output_format, body.output_compression)


def failure_of(end: Job | Event | None) -> GatewayError | None:
    """Why a job, or its last event, has no images for this client; None for a success.

    A cancelled job is a failure here even where some images are finished: OpenAI's clients expect all of them.
    """
    failed = end.failure if isinstance(end, Job) else end.fact if isinstance(end, JobEvent) else None
    cancelled = end.state is State.CANCELLED if isinstance(end, Job) else isinstance(failed, Cancelled)
    if isinstance(failed, Failed):
        return error_of(failed)
    return ClientGone() if cancelled else None


# ---- the stream ------------------------------------------------------------------------------------


async def event_frames(request: Request, job: Job, submission: Submission) -> AsyncGenerator[bytes, None]:
    """The job as OpenAI's events; every failure becomes the error event."""
    previews: Counter[int] = Counter()
    try:
        last: Event | None = None
        async with aclosing(attached_events(request, job)) as events:
            async for last in events:
                job = add_reading(job, last)
                if (frame := await to_frame(request, job, submission, last, previews)) is not None:
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


def add_reading(job: Job, event: Event) -> Job:
    """The job with the reading of its prompt, where this event brings one: its adjustments depend on that."""
    if not isinstance(event, JobEvent) or not isinstance(event.fact, PromptRead) or event.fact in job.readings:
        return job
    return replace(job, readings=(*job.readings, event.fact))


async def to_frame(
    request: Request, job: Job, submission: Submission, event: Event, previews: Counter[int]
) -> bytes | None:
    """A preview or a finished image as a frame; `previews` counts those sent of each image. None for other events."""
    body = submission.body
    match event:
        case ProgressEvent(fact=Preview(image=image) as preview) if previews[image] < body.partial_images:
            index = previews[image]
            previews[image] += 1
            return await asyncio.to_thread(_to_partial_frame, job, body, preview, index)
        case JobEvent(fact=ImageDone() as image, at=at):
            data = await encode_image(request, image, body)
            return await asyncio.to_thread(completed_frame, job, body, image, at, data, submission.adjustments)
        case _:
            return None


def _to_partial_frame(job: Job, body: ImageBody, preview: Preview, index: int) -> bytes:
    plan = job.plan
    assert isinstance(plan, Generate)
    size_px = (plan.width_px, plan.height_px)
    jpeg = base64.b64decode(preview.jpeg_base64)
    data = from_preview(jpeg, size_px, body.output_format, body.output_compression)
    return partial_frame(body, size_px, preview.image, index, time.time(), data)
