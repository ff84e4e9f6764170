"""HTTP server: sockets, connections and shutdown. Knows bytes of HTTP/1.1 and settings, no route.

uvicorn with h11, which can be bounded; httptools accepts 2.6 MB of headers. `conn`, `cycle` and `handle_events` are
uvicorn's internals and may change: tests/http/test_http_guard.py checks each bound over a real socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import socket
import struct
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any, TypedDict, Unpack

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import HANDLED_SIGNALS, ServerState

from engine.clock import Alarm
from gateway.asgi import App, Receive, Scope, Send
from gateway.http import open_files as descriptors
from gateway.http.accepting import Acceptor
from gateway.http.connection import MAX_HEADER_BYTES, REFUSALS, Connection
from gateway.http.half_close import HalfCloseWatch
from gateway.settings import HttpSettings, Settings, is_loopback
from gateway.shutdown import Stopping

SWITCH_S = 0.0005
"""How long a busy thread delays the loop at each of its turns; 5 ms by default, several times a request."""
LINGER_S = 1.0
FULL_LINGER_S = 0.25
"""Seconds of lingering if more connections wait in the kernel to be refused."""

_log = logging.getLogger(__name__)


class ServerError(Exception):
    """The server, or what it serves, cannot start; the text is one line for the person who starts it."""


class Steps(TypedDict, total=False):
    """What an application does besides answering requests."""

    start: Callable[[], Awaitable[None]]
    """Awaited while requests are accepted already."""
    stopping: Callable[[], None]
    """Called in the loop as soon as the shutdown begins, before connections are waited for, so that streams can end by
    themselves."""
    stop: Callable[[], Awaitable[None]]
    """Awaited after the last request."""


async def serve(app: App, settings: Settings, *, budget: Stopping | None = None, **steps: Unpack[Steps]) -> None:
    """Serve until SIGINT or SIGTERM, with which `budget` begins; at a second signal nothing more is waited for.

    Raises: ServerError if a port is not available; as `start`.
    """
    budget = budget or Stopping(settings.http.shutdown_s)
    sockets = listen(settings)
    config = uvicorn.Config(
        app,
        http=_protocol(settings.http),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=idle_s(settings.http.keep_alive_s),
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
    )
    server = _Server(config, budget, steps)
    config.app = _without_traces_of_cancel(app, server)
    try:
        await server.serve(sockets)
    finally:
        for sock in sockets:
            sock.close()


def run(app: App, settings: Settings, **steps: Unpack[Steps]) -> None:
    """Run `serve` on a new event loop, uvloop's if it is installed. Raises: as `serve`."""
    sys.setswitchinterval(SWITCH_S)
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    budget = Stopping(settings.http.shutdown_s)
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(app, settings, budget=budget, **steps))
        if budget.has_begun:  # threads above all have the rest of the budget to end
            for sig in HANDLED_SIGNALS:
                signal.signal(sig, lambda *_: budget.hurry())


def idle_s(told_s: int) -> int:
    """Seconds an idle connection is kept if clients are told `told_s`: one used at the last moment still works."""
    return told_s * 16 // 15


def listen(settings: Settings) -> list[socket.socket]:
    """A bound socket for each port; the caller closes them. Raises: ServerError."""
    host = settings.server.host.strip("[]")
    sockets: list[socket.socket] = []
    for port in settings.server.ports:
        sock: socket.socket | None = None
        try:
            family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            sock = socket.socket(family, kind, proto)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setblocking(False)
            sock.bind(address)
            sock.listen(1024)
        except OSError as error:
            for opened in (*sockets, *([sock] if sock else [])):
                opened.close()
            raise ServerError(f"cannot listen on {host} port {port}: {error.strerror or error}") from None
        sockets.append(sock)
    return sockets


class _Server(uvicorn.Server):
    """uvicorn's server with a shutdown that is announced early and a clean exit code."""

    def __init__(self, config: uvicorn.Config, budget: Stopping, steps: Steps) -> None:
        super().__init__(config)
        self._steps = steps
        self._budget = budget
        self._told = False
        self._signal: signal.Signals | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._acceptors: list[Acceptor] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        if self.should_exit:
            self._tell()
        sockets = sockets or []
        await self.on_tick(0)  # the Date of the first responses
        servers = await self._accept(sockets)
        await super().startup([])
        self.servers = servers
        if "start" in self._steps:
            try:
                await self._steps["start"]()
            except Exception:
                self.should_exit = True
                if self.server_state.tasks:  # requests that waited for the start
                    await asyncio.wait(self.server_state.tasks, timeout=LINGER_S)
                raise
        for sock in [] if self.should_exit else sockets:
            host, port = sock.getsockname()[:2]
            _log.info("listening", extra={"address": f"{host}:{port}"})

    async def _accept(self, sockets: list[socket.socket]) -> list[asyncio.Server]:
        """Accept connections from now on; the servers that do, or none where connections are counted first."""
        if descriptors.are_ample(self._kind().bounds.max_connections):
            create, backlog = asyncio.get_running_loop().create_server, self.config.backlog
            return [await create(self._connection, sock=sock, backlog=backlog) for sock in sockets]
        for sock in sockets:
            self._acceptors.append(
                Acceptor(sock, self._connection, count=lambda: len(self.server_state.connections), most=self._most)
            )
        return []

    def _connection(self) -> asyncio.Protocol:
        protocol = self.config.http_protocol_class(
            config=self.config,  # type: ignore[call-arg]
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        assert isinstance(protocol, asyncio.Protocol)
        return protocol

    def _most(self) -> int:
        return self._kind().most() + descriptors.refusals()

    def _kind(self) -> type[_GuardedProtocol]:
        kind = self.config.http_protocol_class
        assert isinstance(kind, type)
        assert issubclass(kind, _GuardedProtocol)
        return kind

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # uvicorn would raise the signal again at the end, but a requested stop is not a death by signal.
        if self.should_exit:
            self.force_exit = True
            self._budget.hurry()
        self.should_exit = True
        self._signal = signal.Signals(sig)
        self._budget.begin()
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._tell()
        for acceptor in self._acceptors:
            acceptor.close()
        self.config.timeout_graceful_shutdown = max(0.1, self._budget.requests_left_s)  # type: ignore[assignment]
        await super().shutdown(sockets)
        if not self.force_exit and "stop" in self._steps:
            await self._steps["stop"]()

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            _log.info("stopping", extra={"signal": None if self._signal is None else self._signal.name})
            if "stopping" in self._steps:
                self._steps["stopping"]()


def _without_traces_of_cancel(app: App, server: _Server) -> Any:
    """`app` with requests that end without a traceback if the shutdown deadline cancels them."""

    async def quiet(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:
            if not server.should_exit:
                raise

    return quiet


# ---- one connection ------------------------------------------------------------------------------


def _protocol(http: HttpSettings) -> type[asyncio.Protocol]:
    """The connection class of one server, with its bounds and its count of peers."""
    peers: Counter[str] = Counter()

    class Bounded(_GuardedProtocol):
        bounds = http
        open_by_peer = peers

    return Bounded


class _GuardedProtocol(H11Protocol):
    """uvicorn's connection with a deadline and bounds for the head, a limit of peers, and a timeout for stuck readers.

    S-10, S-14, R-10.
    """

    bounds: HttpSettings
    open_by_peer: Counter[str]

    @classmethod
    def most(cls) -> int:
        """How many connections may be served now."""
        return min(cls.bounds.max_connections, descriptors.connections())

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = Connection(h11.SERVER, MAX_HEADER_BYTES)
        self._deadline: Alarm | None = None
        self._stuck: Alarm | None = None
        self._refused = False
        self._peer: str | None = None
        self._half_closed: HalfCloseWatch | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        peer = self.client[0] if self.client else ""
        if peer and not is_loopback(peer):
            self._peer = peer
            self.open_by_peer[peer] += 1
        too_many_here = self._peer is not None and self.open_by_peer[peer] > self.bounds.max_connections_per_ip
        if too_many_here or len(self.connections) > self.most():
            self._refuse(503)
        else:
            self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        self._unwatch_reader()
        self._unset_keepalive_if_required()
        if self._half_closed is not None:
            self._half_closed.cancel()
        if self._peer is not None:
            self.open_by_peer[self._peer] -= 1
            if not self.open_by_peer[self._peer]:
                del self.open_by_peer[self._peer]
            self._peer = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._refused:
            super().data_received(data)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Whether the connection stays open: its client may still wait for the response to a complete request.

        An endless response ends here, since nothing else would show that its reader has left.
        """
        cycle = self.cycle
        if self._refused or cycle is None or cycle.more_body or cycle.response_complete:
            return False
        assert isinstance(self.conn, Connection)
        if cycle.response_started and not self.conn.is_finite:
            return False
        self._half_closed = HalfCloseWatch(self.loop, self.transport, self.conn.next_byte)
        return True

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unwatch_reader()

    def _watch_reader(self, left: int) -> None:
        """Close the connection if none of `left` bytes is read in time: a reader that is only slow stays."""

        def look() -> None:
            now_left = self.transport.get_write_buffer_size()
            if now_left >= left:
                # Without RST the kernel would keep offering its unsent bytes.
                linger_not = struct.pack("ii", 1, 0)
                self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_not)
                self.transport.abort()  # close() would wait for the reader
            else:
                self._watch_reader(now_left)

        self._stuck = Alarm(self.bounds.stuck_s, look)

    def _unwatch_reader(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    def handle_events(self) -> None:
        super().handle_events()
        if self._refused or self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self._unwatch()
            if not self.cycle.more_body and len(self.conn.trailing_data[0]) <= MAX_HEADER_BYTES:
                self.flow.resume_reading()  # the next request waits; a client that leaves is noticed only while reading
        elif self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._watch_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = Alarm(self.timeout_keep_alive, self.timeout_keep_alive_handler)  # type: ignore[assignment]
        if self._half_closed is not None and self.cycle.response_complete:
            self.transport.close()
        if self.conn.their_state is h11.SEND_BODY:  # answered early; the rest of the body has a deadline, too
            self._watch_head()

    def send_400_response(self, msg: str) -> None:
        self._refuse(self.conn.refusal_status if isinstance(self.conn, Connection) else 400)

    def _watch_head(self) -> None:
        if self._deadline is None:
            self._deadline = Alarm(self.bounds.header_deadline_s, self._too_slow)

    def _unwatch(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._refuse(408)
        else:
            self.transport.close()

    def _refuse(self, status: int) -> None:
        """Send a refusal without h11, whose state may be broken, and keep reading, so that no reset overtakes it.

        If a response has begun, nothing is sent.
        """
        self._refused = True
        self._unwatch()
        self._unset_keepalive_if_required()
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.close()
            return
        reason, sentence = REFUSALS[status]
        body = json.dumps({"error": sentence, "code": reason.lower().replace(" ", "_")}).encode()
        head = f"HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        retry = "retry-after: 5\r\n" if status == 503 else ""
        self.transport.write(f"{head}{retry}connection: close\r\n\r\n".encode() + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(FULL_LINGER_S if status == 503 else LINGER_S, self.transport.close)
