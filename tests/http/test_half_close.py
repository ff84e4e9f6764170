"""Clients that send no more: those that left, and those that only closed their sending half, as `nc -N` does."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator

import h11
import pytest

from gateway.http.connection import OPENING, Connection
from tests.support.guarded import Guarded, guarded, rest

LONG_S = 60
"""Seconds until the answer to a client that leaves: what is noticed before was no answer."""


@pytest.fixture(scope="module")
def server() -> Iterator[Guarded]:
    with guarded() as running:
        yield running


def ask(server: Guarded, path: str, *, tail: bytes = b"", version: str = "1.1") -> socket.socket:
    sock = server.connect()
    sock.sendall(f"GET {path} HTTP/{version}\r\nhost: localhost\r\n\r\n".encode() + tail)
    return sock


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("wait_s", [0, 0.3, 1.5])
def test_half_closed_connection_gets_its_whole_answer_and_is_closed(
    server: Guarded, version: str, wait_s: float
) -> None:
    with ask(server, f"/waits/{wait_s}", version=version) as sock:
        sock.shutdown(socket.SHUT_WR)
        answer = rest(sock)
    assert answer.startswith(b"HTTP/1.1 204 No Content\r\n")
    assert answer.endswith(b"\r\n\r\n")


def test_half_closed_connection_gets_the_answers_to_all_its_requests(server: Guarded) -> None:
    second = b"GET /waits/0.1 HTTP/1.1\r\nhost: localhost\r\n\r\n"
    with ask(server, "/waits/0.1", tail=second) as sock:
        sock.shutdown(socket.SHUT_WR)
        answer = rest(sock)
    assert answer.count(b"HTTP/1.1 204 No Content\r\n") == 2
    assert answer.startswith(b"HTTP/1.1 204")


def test_half_closed_connection_gets_its_refusal(server: Guarded) -> None:
    with server.connect() as sock:
        sock.sendall(b"GET /waits/0 HTTP/1.1\r\nhost: evil.example\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        assert rest(sock).startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_request_that_ends_before_its_body_gets_no_answer(server: Guarded) -> None:
    with server.connect() as sock:
        sock.sendall(
            b"POST /x HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{"
        )
        sock.shutdown(socket.SHUT_WR)
        assert rest(sock) == b""


def test_reader_of_a_stream_that_closes_its_sending_half_has_left(server: Guarded) -> None:
    with ask(server, "/stream") as sock:
        assert sock.recv(16)
        sock.shutdown(socket.SHUT_WR)
        rest(sock)


def close(sock: socket.socket) -> None:
    sock.close()


def shut_down(sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def close_in_halves(sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_WR)
    time.sleep(0.2)
    sock.close()


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.parametrize("leave", [close, shut_down, close_in_halves, reset])
@pytest.mark.parametrize(
    "tail", [b"", b"\r\n", b"GET /waits/0 HTTP/1.1\r\nhost: localhost\r\n\r\n"], ids=["", "line end", "next request"]
)
def test_client_that_leaves_is_noticed_while_its_request_is_answered(
    server: Guarded, leave: Callable[[socket.socket], None], tail: bytes
) -> None:
    before = server.get("/").json()["departures"]
    leave(ask(server, f"/waits/{LONG_S}", tail=tail))
    end = time.monotonic() + 20
    while server.get("/").json()["departures"] == before:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_response_begins_with_the_bytes_that_were_sent_ahead() -> None:
    for ahead in range(len(OPENING) + 2):
        connection = Connection(h11.SERVER)
        connection.receive_data(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert isinstance(connection.next_event(), h11.Request)
        sent = b"".join(connection.next_byte() for _ in range(ahead))
        sent += connection.send(h11.Response(status_code=404, headers=[("content-length", "0")])) or b""
        assert sent.startswith(b"HTTP/1.1 404 \r\n")
        assert connection.next_byte() == b""
        assert connection.is_finite
