"""What every protocol adapter shares: parsing a body, waiting on a connection, streaming events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from sse_starlette import EventSourceResponse
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.core import Core
from gateway.errors import ClientGone, GatewayError, GenerationFailed, InvalidRequest, PictureGone
from gateway.hub import Event
from gateway.images import base64_picture, checked_picture
from gateway.job import Job, State
from gateway.strict_json import parse_async

IDEMPOTENCY_KEY_CHARS = 255
DETAILS = 10
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Adapter:
    """One protocol: the prefix whose 404 and 405 it owns, its routes, and how it spells an error."""

    name: str
    prefix: str
    routes: tuple[Route, ...]
    render_error: Callable[[GatewayError], Response]
    image_paths: tuple[str, ...] = ()
    """Paths whose bodies may carry pictures."""
    picture_prefix: str | None = None
    """Below this lie unguessable picture URLs, readable from any site."""
    open_paths: tuple[str, ...] = ()
    """Paths that need no key."""
    more_prefixes: tuple[str, ...] = ()
    """Where clients of this protocol look besides: errors there are its, too."""

    @property
    def prefixes(self) -> tuple[str, ...]:
        return (self.prefix, *self.more_prefixes)


def core_of(request: Request) -> Core:
    core: Core = request.state.core
    return core


def owner_of(request: Request) -> str:
    """Whose jobs this request may see: the key's name, else the client's own id or address."""
    owner: str = request.state.owner
    return owner


def idempotency_key(request: Request) -> str | None:
    """Source: the Idempotency-Key header. Raises: InvalidRequest."""
    key = request.headers.get("idempotency-key")
    if key is not None and not 1 <= len(key) <= IDEMPOTENCY_KEY_CHARS:
        raise InvalidRequest("Idempotency-Key must have 1 to 255 characters.", param="Idempotency-Key")
    return key


async def parse(model: type[M], request: Request) -> M:
    """The JSON body as a payload model.

    Raises: MalformedBody; InvalidRequest whose `details["errors"]` lists {loc, msg, type}.
    """
    return validated(model, await parse_async(await request.body()))


def validated(model: type[M], value: object) -> M:
    """Raises: InvalidRequest naming the first field at fault; the input itself is never repeated."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = [
            {"loc": [str(part)[:64] for part in item["loc"]], "msg": item["msg"][:200], "type": item["type"]}
            for item in error.errors(include_url=False, include_context=False, include_input=False)[:DETAILS]
        ]
        param = ".".join(str(part) for part in found[0]["loc"]) or None
        message = f"{param}: {found[0]['msg']}" if param else str(found[0]["msg"])
        raise InvalidRequest(message, param=param, details={"errors": found}) from None


async def input_picture(request: Request, text: str, param: str) -> str:
    """Check a base64 or data-URL picture and store it; returns its name for a request.

    Raises: InvalidRequest, RemoteImagesDisabled.
    """
    core = core_of(request)
    return await core.service.keep_input(await checked_picture(base64_picture(text, param), core.decoder, param))


async def attached(request: Request, job: Job) -> Job:
    """Wait for the end of a job whose client waits on this connection; a hang-up abandons the job.

    Raises: ClientGone, Unavailable.
    """
    core = core_of(request)
    with _abandoning(core, job), core.waits():
        ended = asyncio.ensure_future(core.service.ended(job.id))
        gone = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait({ended, gone}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                return ended.result()
            raise ClientGone
        finally:
            for task in (ended, gone):
                task.cancel()
            await asyncio.gather(ended, gone, return_exceptions=True)


async def attached_events(request: Request, job: Job) -> AsyncGenerator[Event, None]:
    """All events of a job whose client follows it on this connection; a hang-up abandons the job.

    From the first one on: a job found by its Idempotency-Key may have ended long ago. Raises: Unavailable.
    """
    core = core_of(request)
    with _abandoning(core, job), core.waits():
        # Closed here and now: while its subscription lives, the job counts as watched and is not cancelled.
        async with aclosing(core.service.watch(job.id)) as events:
            async for event in events:
                yield event


@contextmanager
def _abandoning(core: Core, job: Job) -> Iterator[None]:
    """Abandon the job where what waits for it does not come to its end; an ended job minds nothing."""
    try:
        yield
    except BaseException:
        core.service.abandon(job)
        raise


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def raise_for(job: Job) -> None:
    """Raises: GenerationFailed for a failed job, ClientGone for one cancelled with no picture finished."""
    if job.failure is not None:
        raise GenerationFailed(job.failure.message, code=job.failure.code)
    if job.state is State.CANCELLED and not job.images:
        raise ClientGone


async def png_of(request: Request, name: str) -> bytes:
    """The stored PNG of a finished picture. Raises: PictureGone."""
    data = await asyncio.to_thread(core_of(request).pictures.read, name)
    if data is None:
        raise PictureGone
    return data


def event_stream(frames: AsyncIterator[bytes]) -> EventSourceResponse:
    """Pre-encoded SSE frames; a comment every 15 s keeps the connection, a reader stuck for 30 s loses it."""
    return EventSourceResponse(
        frames, ping=15, send_timeout=30, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )
