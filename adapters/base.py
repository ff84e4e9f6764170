"""What every protocol adapter shares: parsing a body, waiting on a connection, streaming events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Container, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

from pydantic import AliasChoices, BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from engine.protocol import Failed, ImageDone
from gateway.access.round_robin import Share
from gateway.context import Core
from gateway.errors import ClientGone, GatewayError, GenerationFailed, InvalidRequest, PictureGone, clip
from gateway.events.bus import Event
from gateway.http.error_body import bounded
from gateway.http.openapi import Operation
from gateway.http.text_bounds import check_texts
from gateway.http.unknown_images import unknown_pictures
from gateway.images.codec import MAX_PICTURE_BYTES, base64_picture, checked_picture
from gateway.images.output import Note
from gateway.jobs.job import Job, State
from gateway.jobs.resolve import Adjustment
from gateway.service.pending_stops import first_of
from gateway.strict_json import parse_async

STREAM_HEADERS = {"Cache-Control": "no-cache, no-store, no-transform", "X-Accel-Buffering": "no"}
"""Proxies that compress what they pass on hold a stream back; no-transform (RFC 9111, 5.2.2.6) forbids it."""
IDEMPOTENCY_KEY_CHARS = 255
ADJUSTMENTS_CHARS = 2048
"""Of the header: nginx takes 4 KiB of headers from behind it."""
DETAILS = 10
PICTURE_CHARS = MAX_PICTURE_BYTES * 3 // 2
"""As base64, which takes a third more, and with line ends."""
PICTURES = (
    *("image", "images", "init_image", "init_images", "extra_images", "reference_images", "mask", "mask_image"),
    *("input_image", "effective_region_mask", "firstpass_image", "latent_mask", "data", "video"),
)
PROMPTS = ("prompt", "negative_prompt", "hr_prompt", "hr_negative_prompt")
PROMPT_CHARS = 64 * 1024
"""Of a prompt as it is sent, with what is taken out of it before its own bound is checked."""
LONGER = {
    **dict.fromkeys(PICTURES, PICTURE_CHARS),
    **dict.fromkeys(PROMPTS, PROMPT_CHARS),
    "infotext": 256 * 1024,
}
"""Fields of all protocols that may be longer than a name, and their characters."""
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
    unprefixed: tuple[str, ...] = ()
    """Paths below the prefix that are its, too, where a client leaves the prefix out."""
    page_paths: tuple[str, ...] = ()
    """Pages for people: a link on any site may lead to them."""
    changing_paths: tuple[str, ...] = ()
    """Where a GET changes something: pages of other sites are refused even where the browser does not say so."""
    described: Mapping[str, Operation] = field(default_factory=dict)
    """What each route takes and answers, under "METHOD /path"."""
    error: Any = None
    """The type of what `render_error` draws."""
    around: Callable[[ASGIApp], ASGIApp] = lambda app: app
    """What all its answers go through, refusals at the door included."""

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


def share_of(request: Request) -> Share:
    """Whose turn work on what this request sent takes: without a key, its address's first of all."""
    owner = owner_of(request)
    if owner.startswith("key:"):
        return Share(owner, owner)
    return Share(f"peer:{request.client.host if request.client else 'unknown'}", owner)


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
    prompt_chars = max(PROMPT_CHARS, 2 * core_of(request).settings.generation.max_prompt_bytes)
    return validated(model, await parse_async(await body_of(request)), prompt_chars=prompt_chars)


async def body_of(request: Request) -> bytes:
    """The whole body, which `request` keeps no longer: what is made of it is as large. Read it once."""
    body = await request.body()
    request._body = b""
    return body


def let_go(request: Request, held: object = None) -> None:
    """Give the memory of the body back, but for the text in `held`: call it where its pictures are stored."""
    request.state.body_memory.keep(_text_bytes(held))


def _text_bytes(value: object) -> int:
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, Mapping):
        return sum(_text_bytes(item) for item in value.values())
    return sum(_text_bytes(item) for item in value) if isinstance(value, list | tuple) else 0


def validated(model: type[M], value: object, *, prompt_chars: int = PROMPT_CHARS) -> M:
    """Texts are bounded before anything looks into them; of fields that the model does not have nothing is read.

    A picture in one of these is refused: without it, something else would be drawn. A model whose
    `tells_unknown_pictures` is set says itself that it was left out.
    Raises: InvalidRequest naming the first field at fault; the input itself is never repeated.
    """
    if isinstance(value, dict):
        if not getattr(model, "tells_unknown_pictures", False):
            check_unknown_pictures(value, names_of(model))
        longer = LONGER if prompt_chars == PROMPT_CHARS else LONGER | dict.fromkeys(PROMPTS, prompt_chars)
        check_texts({name: inner for name, inner in value.items() if name in names_of(model)}, longer)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = [
            {"loc": [str(part)[:64] for part in item["loc"]], "msg": item["msg"][:200], "type": item["type"]}
            for item in error.errors(include_url=False, include_context=False, include_input=False)[:DETAILS]
        ]
        param = clip(".".join(str(part) for part in found[0]["loc"])) or None
        message = f"{param}: {found[0]['msg']}" if param else str(found[0]["msg"])
        raise InvalidRequest(message, param=param, details={"errors": found}) from None


def check_unknown_pictures(body: Mapping[str, object], known: Container[str]) -> None:
    """Raises: InvalidRequest for a picture in a field that is not known."""
    for name in unknown_pictures(body, known):
        raise InvalidRequest(f"There is no field '{clip(name)}' for a picture here.", param=clip(name))


@cache
def names_of(model: type[BaseModel]) -> frozenset[str]:
    """Every key of a body that a model reads."""
    found = set(model.model_fields)
    for info in model.model_fields.values():
        if isinstance(info.validation_alias, AliasChoices):
            found.update(choice for choice in info.validation_alias.choices if isinstance(choice, str))
    return frozenset(found)


def error_response(body: Mapping[str, Any], status: int, headers: Mapping[str, str] | None = None) -> Response:
    """An error as JSON, of 1 KiB at most: every protocol's go through here (S-13)."""
    return JSONResponse(bounded(body), status_code=status, headers=headers)


async def input_picture(request: Request, text: str, param: str) -> str:
    """Check a base64 or data-URL picture and store it; returns its name for a request.

    Raises: InvalidRequest, RemoteImagesDisabled, TooManyFiles, Unavailable, StorageFull.
    """
    core, share = core_of(request), share_of(request)
    data = await core.files.read(share, base64_picture, text, param)
    return await core.service.keep_input(await checked_picture(data, core.decoder, param, share), share)


async def attached(request: Request, job: Job) -> Job:
    """Wait for the end of a job whose client waits on this connection; a hang-up abandons the job.

    Raises: ClientGone, Unavailable.
    """
    core = core_of(request)
    with _abandoning(core, job), core.waits():
        ended = asyncio.ensure_future(core.service.ended(job.id))
        gone = asyncio.ensure_future(_gone(request.receive))
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


def error_of(failed: Failed) -> GatewayError:
    """Why a job failed, as this client meets it: what it sent was at fault, or we were."""
    if failed.code == "bad_input":
        return InvalidRequest(failed.message, code=failed.code)
    return GenerationFailed(failed.message, code=failed.code)


def raise_for(job: Job) -> None:
    """Raises: GenerationFailed or InvalidRequest for a failed job, ClientGone for one cancelled without pictures."""
    if job.failure is not None:
        raise error_of(job.failure)
    if job.state is State.CANCELLED and not job.images:
        raise ClientGone


async def png_of(request: Request, done: ImageDone) -> bytes:
    """The stored PNG of a finished picture. Raises: PictureGone, PictureDamaged, StorageFault."""
    data = await asyncio.to_thread(core_of(request).pictures.read, done.file, Note.of(done))
    if data is None:
        raise PictureGone
    return data


def query(model: type[M], request: Request) -> M:
    """What stands behind the question mark; of equal names the last counts. Raises: InvalidRequest."""
    return validated(model, dict(request.query_params))


def adjustments_header(adjustments: Sequence[Adjustment]) -> dict[str, str]:
    """The header X-Adjustments: what was not done as asked, as JSON in ASCII; no header where all was.

    Where that is longer than proxies let pass it names the parameters alone.
    """
    rows = [one.model_dump() for one in adjustments]
    text = json.dumps(rows, separators=(",", ":"))
    if len(text) > ADJUSTMENTS_CHARS:
        rows = [{"param": name} for name in dict.fromkeys(clip(one.param) for one in adjustments)]
        while len(text := json.dumps(rows, separators=(",", ":"))) > ADJUSTMENTS_CHARS:
            rows.pop()
    return {"X-Adjustments": text} if rows else {}


class EventStream(Response):
    """Pre-encoded server-sent events, and a comment while nothing happens.

    A reader that takes nothing is the server's to drop: it sees bytes leave (gateway/http/server.py).
    Not sse-starlette's response: that one costs as much again for each frame, and a gateway sends 10,000 a second.
    """

    media_type = "text/event-stream"

    def __init__(self, frames: AsyncGenerator[bytes, None], *, heartbeat_s: float = 15.0) -> None:
        super().__init__(headers=STREAM_HEADERS)
        del self.headers["content-length"]
        self._frames = frames
        self._heartbeat_s = heartbeat_s
        self._last_s = 0.0
        """When a frame went out last, or began to; of the loop's clock."""
        self._is_sending = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._frames):
            if scope["method"] == "HEAD":
                return await send({"type": "http.response.body", "body": b"", "more_body": False})
            await first_of(self._go(send), self._beat(send), _gone(receive))

    async def _go(self, send: Send) -> None:
        async for frame in self._frames:
            await self._send(send, frame)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _beat(self, send: Send) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(self._heartbeat_s / 2)
            if not self._is_sending and clock() - self._last_s >= self._heartbeat_s:
                await self._send(send, b": ping\n\n")

    async def _send(self, send: Send, frame: bytes) -> None:
        self._last_s, self._is_sending = asyncio.get_running_loop().time(), True
        await send({"type": "http.response.body", "body": frame, "more_body": True})
        self._is_sending = False


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def event_stream(request: Request, frames: AsyncGenerator[bytes, None]) -> EventStream:
    return EventStream(frames, heartbeat_s=core_of(request).settings.http.heartbeat_s)
