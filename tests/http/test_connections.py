"""One connection of the server, without a socket: who is counted, and what a slow reader may do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from gateway.http.server import _GuardedProtocol, _protocol
from gateway.settings import HttpSettings


class Wire(asyncio.Transport):
    """A connection from `peer` that keeps what is written."""

    def __init__(self, peer: str) -> None:
        super().__init__({"peername": (peer, 1), "sockname": ("192.0.2.9", 80)})
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        pass


async def nothing(scope: Any, receive: Any, send: Any) -> None: ...


async def test_connections_per_address_are_limited_except_for_loopback() -> None:
    """S-14."""
    connection_of = partial(_protocol(HttpSettings(max_connections_per_ip=2)), Config(nothing, log_config=None))
    state = ServerState()

    def connect(peer: str) -> bytes:
        wire = Wire(peer)
        connection_of(state, {}).connection_made(wire)
        return wire.written

    here, there, loopback = "192.0.2.1", "192.0.2.2", "127.0.0.1"
    assert [connect(peer) for peer in (here, here, there, loopback, loopback, loopback)] == [b""] * 6
    assert b" 503 " in connect(here)
    for connection in [connection for connection in state.connections if connection.client[0] == here]:
        connection.connection_lost(None)
    assert connect(here) == b""


def test_connection_of_a_slow_reading_client_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    later: list[Callable[[], None]] = []
    monkeypatch.setattr("gateway.http.server.Alarm", lambda after_s, look: later.append(look))
    unsent = [90, 80, 80, 80]
    aborted: list[bool] = []
    transport = SimpleNamespace(
        get_write_buffer_size=lambda: unsent.pop(0),
        abort=lambda: aborted.append(True),
        get_extra_info=lambda name: SimpleNamespace(setsockopt=lambda *said: None),
    )
    reader = SimpleNamespace(
        transport=transport,
        bounds=HttpSettings(),
    )
    reader._watch_reader = partial(_GuardedProtocol._watch_reader, reader)
    reader._watch_reader(100)
    for still_there in (True, True, False):
        later.pop()()
        assert bool(aborted) != still_there
