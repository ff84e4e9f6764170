"""A stream of server-sent events as an ASGI answer: when it is silent, left, or over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, MutableMapping
from typing import Any

from adapters.shared.sse import OPENING, EventStream

Message = MutableMapping[str, Any]
GET = {"type": "http", "method": "GET"}


class Line:
    """A connection: what was sent, and when the client leaves."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.left = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()
        self.changed = asyncio.Condition()
        self.closed = False

    async def receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await self.open.wait()
        if message["type"] == "http.response.start":
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            return
        self.closed = not message["more_body"]
        async with self.changed:
            self.sent.append(message["body"])
            self.changed.notify_all()

    async def until(self, count: int) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: len(self.sent) >= count)


class Source:
    """Frames that are fed by hand; `freed` once nobody takes them any more."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.freed = False

    async def frames(self) -> AsyncGenerator[bytes, None]:
        try:
            while (frame := await self.queue.get()) is not None:
                yield frame
        finally:
            self.freed = True


async def test_event_stream_sends_frames_at_once_and_ends_with_the_last() -> None:
    line, source = Line(), Source()
    for frame in (b"1", b"2", None):
        source.queue.put_nowait(frame)
    await EventStream(source.frames())(GET, line.receive, line.send)
    assert (line.sent, line.closed, source.freed) == ([OPENING, b"1", b"2", b""], True, True)
    assert line.headers["content-type"].startswith("text/event-stream")
    assert line.headers["cache-control"].split(", ") == ["no-cache", "no-store", "no-transform"]
    assert line.headers["x-accel-buffering"] == "no"
    assert "content-length" not in line.headers


async def test_event_stream_without_events_sends_a_comment_at_each_heartbeat() -> None:
    line, source = Line(), Source()
    playing = asyncio.create_task(EventStream(source.frames(), heartbeat_s=0.01)(GET, line.receive, line.send))
    await line.until(4)
    line.left.set()
    await playing
    assert line.sent[0] == OPENING
    assert set(line.sent[1:]) == {b": ping\n\n"}


async def test_event_stream_begins_before_its_source_has_anything() -> None:
    line, source = Line(), Source()
    playing = asyncio.create_task(EventStream(source.frames(), opening=b"retry: 1\n\n")(GET, line.receive, line.send))
    await line.until(1)
    assert line.sent == [b"retry: 1\n\n"]
    line.left.set()
    await playing
    assert source.freed


async def test_event_stream_source_is_released_on_client_disconnect() -> None:
    """R-08."""
    line, source = Line(), Source()
    playing = asyncio.create_task(EventStream(source.frames())(GET, line.receive, line.send))
    source.queue.put_nowait(b"1")
    await line.until(2)
    line.left.set()
    await playing
    assert source.freed
    assert not line.closed


async def test_event_stream_failure_is_raised_to_the_caller() -> None:
    async def broken() -> AsyncGenerator[bytes, None]:
        yield b"1"
        raise RuntimeError("no")

    line = Line()
    try:
        await EventStream(broken())(GET, line.receive, line.send)
    except RuntimeError:
        return
    raise AssertionError("the error was lost")


async def test_event_stream_answers_a_head_request_with_headers_only() -> None:
    line, source = Line(), Source()
    await EventStream(source.frames())({**GET, "method": "HEAD"}, line.receive, line.send)
    assert (line.sent, line.closed) == ([b""], True)
