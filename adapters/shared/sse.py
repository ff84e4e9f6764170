"""Server-sent events of every protocol. Source: WHATWG HTML, 9.2."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from adapters.shared.context import core_of
from adapters.shared.waiting import disconnected
from gateway.first_of import first_of

STREAM_HEADERS = {"Cache-Control": "no-cache, no-store, no-transform", "X-Accel-Buffering": "no"}
"""Proxies that compress a stream delay its events; no-transform (RFC 9111, 5.2.2.6) forbids compression."""

OPENING = b": open\n\n"


class EventStream(Response):
    """A response of encoded server-sent events, with a comment as heartbeat while there is no event.

    It begins with `opening` at once, so that client and proxies see that it works: a comment, or a field that is none
    of an event.

    The server disconnects a client that does not read: it sees the bytes leave (gateway/http/server.py).
    sse-starlette's response would double the cost of each frame, and a gateway sends 10,000 a second.
    """

    media_type = "text/event-stream"

    def __init__(
        self, frames: AsyncGenerator[bytes, None], *, opening: bytes = OPENING, heartbeat_s: float = 15.0
    ) -> None:
        super().__init__(headers=STREAM_HEADERS)
        del self.headers["content-length"]
        self._frames = frames
        self._opening = opening
        self._heartbeat_s = heartbeat_s
        self._last_s = 0.0
        """The time at which the last frame began to be sent, of the loop's clock."""
        self._is_sending = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._frames):
            if scope["method"] == "HEAD":
                return await send({"type": "http.response.body", "body": b"", "more_body": False})
            await self._send(send, self._opening)
            await first_of(self._go(send), self._beat(send), disconnected(receive))

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


def event_stream(request: Request, frames: AsyncGenerator[bytes, None], *, opening: bytes = OPENING) -> EventStream:
    """The stream of a job that is stored: whatever is refused with a status was refused before."""
    return EventStream(frames, opening=opening, heartbeat_s=core_of(request).settings.http.heartbeat_s)
