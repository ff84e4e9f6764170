"""The server's bounds over real sockets: heads, bodies, slow clients, connections, and the way out.

uvicorn's connection class is not a promised interface; these tests say when an upgrade took a bound away.
"""

from __future__ import annotations

import contextlib
import json
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.support.guarded import ROOT, Guarded, guarded, rest

JSON = {"content-type": "application/json"}
HEAD = b"POST /x HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Guarded]:
    with guarded() as running:
        yield running


@pytest.fixture(scope="module")
def hasty() -> Iterator[Guarded]:
    """A server whose deadlines are a second or less."""
    http = {
        "header_deadline_s": 0.6,
        "body_deadline_s": 1.5,
        "body_window_s": 0.5,
        "body_bytes_per_s": 1000,
        "keep_alive_s": 1,
        "max_connections": 300,
    }
    with guarded(http=http) as running:
        yield running


def answer_on(sock: socket.socket) -> bytes:
    """One chunked answer on a connection that stays open."""
    got = b""
    while not got.endswith(b"\r\n0\r\n\r\n") and (data := sock.recv(65536)):
        got += data
    return got


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


# ---- the head ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST"])
@pytest.mark.parametrize(
    ("rest_of_head", "status"),
    [
        (b"/%s HTTP/1.1\r\nhost: localhost\r\n\r\n" % (b"a" * 8192), 414),
        (b"/?%s HTTP/1.1\r\nhost: localhost\r\n\r\n" % (b"a" * 60_000), 414),
        (b"/ HTTP/1.1\r\nhost: localhost\r\n%s\r\n" % b"".join(b"x%d: 1\r\n" % n for n in range(100)), 431),
        (b"/ HTTP/1.1\r\nhost: localhost\r\nx: %s\r\n\r\n" % (b"a" * 65_536), 431),
        (b"/ HTTP/1.1\r\nhost: localhost\r\n%s\r\n" % (b"x: %s\r\n" % (b"a" * 65_536) * 40), 431),
        (b"/ HTTP/1.1\r\nhost: a\r\nhost: localhost\r\n\r\n", 400),
        (b"/ HTTP/1.1\r\n\r\n", 400),
        (b"/ HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ntransfer-encoding: gzip\r\n\r\n", 400),
        (b"/ HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n", 400),
        (b"/ HTTP/1.1\r\nhost: localhost\r\n folded: x\r\n\r\n", 400),
        (b"/ HTTP/9.1\r\n\r\n", 400),
        (b"\xff\xfe\r\n\r\n", 400),
    ],
)
def test_request_head_over_the_limits_is_refused_with_its_status(
    server: Guarded, method: bytes, rest_of_head: bytes, status: int
) -> None:
    """S-10: whether it comes in one piece or in many."""
    for pieces in (1, 7):
        request = method + b" " + rest_of_head
        size = len(request) // pieces + 1
        with server.connect() as sock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for at in range(0, len(request), size):
                sock.sendall(request[at : at + size])
            assert status_of(sock.recv(65536)) == status


def test_request_head_just_inside_the_limits_passes(server: Guarded) -> None:
    """S-10."""
    fields = b"".join(b"x%d: %s\r\n" % (n, b"a" * 600) for n in range(98))
    request = b"GET /%s HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n%s\r\n" % (b"a" * 4000, fields)
    assert status_of(server.raw(request)) == 200


def test_connection_with_a_slow_request_head_is_closed_at_its_deadline_others_stay(hasty: Guarded) -> None:
    """S-10, slowloris: 200 sockets that drip a byte now and then."""
    with contextlib.ExitStack() as open_sockets:
        socks = [open_sockets.enter_context(hasty.connect()) for _ in range(200)]
        began = time.monotonic()
        for n, sock in enumerate(socks):
            if n % 4:
                sock.sendall(b"GET / HTTP/1.1\r\nhost: local")
        while time.monotonic() - began < 0.5:
            for sock in socks[1::4]:
                with contextlib.suppress(OSError):
                    sock.sendall(b"x")
            assert hasty.get("/x").status_code == 200
            time.sleep(0.1)
        answers = [status_of(rest(sock)) for sock in socks]
    assert time.monotonic() - began < 4
    assert set(answers[0::4]) == {0}
    assert set(answers[1::4]) <= {408, 0}
    assert set(answers[2::4]) == {408}


def test_connection_kept_alive_has_the_same_deadline_for_its_second_request_head(hasty: Guarded) -> None:
    """S-10."""
    with hasty.connect() as sock:
        sock.sendall(b"GET /x HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert status_of(answer_on(sock)) == 200
        sock.sendall(b"GET /x HTT")
        began = time.monotonic()
        assert b"HTTP/1.1 408" in rest(sock)
        assert time.monotonic() - began < 2


def test_an_idle_connection_is_closed_and_a_busy_one_kept(hasty: Guarded) -> None:
    """S-10: keep-alive."""
    with hasty.connect() as sock:
        for _ in range(4):
            sock.sendall(b"GET /x HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert status_of(answer_on(sock)) == 200
            time.sleep(0.3)
        began = time.monotonic()
        rest(sock)
        assert 0.3 < time.monotonic() - began < 2.5


# ---- the body ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/x", "/json", "/swallows", "/unread", "/nowhere"])
def test_body_over_the_limit_is_413_chunked_or_with_content_length(server: Guarded, path: str) -> None:
    """S-11: by its length, in chunks, and whatever the app makes of the error."""
    if path != "/unread":
        answer = server.post(path, headers=JSON, content=(b"1" * 65_536 for _ in range(32)))
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    answer = server.post(path, headers=JSON, content=b"1" * (256 * 1024 + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert answer.headers["connection"] == "close"


def test_body_of_two_gibibytes_is_refused_before_it_is_sent(server: Guarded) -> None:
    """S-11."""
    with server.connect() as sock:
        began = time.monotonic()
        sock.sendall(HEAD + b"content-length: 2147483648\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 413")
        assert time.monotonic() - began < 1
        assert len(rest(sock)) < 1000
        assert time.monotonic() - began < 4


def test_expect_100_continue_for_a_too_large_body_is_413_at_once(server: Guarded) -> None:
    """S-11."""
    with server.connect() as sock:
        sock.sendall(HEAD + b"content-length: 2147483648\r\nexpect: 100-continue\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 413")
    with server.connect() as sock:
        sock.sendall(HEAD + b"content-length: 2\r\nexpect: 100-continue\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 100")
        sock.sendall(b"{}")
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")


def test_body_limit_is_larger_on_picture_routes() -> None:
    """S-11: exactly their limit, and no byte more."""
    most = 2**20
    with guarded(http={"image_body_bytes": most}) as server:
        assert server.post("/images", headers=JSON, content=b"1" * most).json()["body"] == most
        assert server.post("/images", headers=JSON, content=b"1" * (most + 1)).status_code == 413
        assert server.post("/x", headers=JSON, content=b"1" * (256 * 1024)).json()["body"] == 256 * 1024


def test_connection_with_a_slow_request_body_is_closed(hasty: Guarded) -> None:
    """S-11: by rate after one window, by deadline even at a good rate."""
    with contextlib.ExitStack() as open_sockets:
        silent = [open_sockets.enter_context(hasty.connect()) for _ in range(50)]
        steady = open_sockets.enter_context(hasty.connect())
        for sock in silent:
            sock.sendall(HEAD + b"content-length: 1000\r\n\r\n123")
        began = time.monotonic()
        steady.sendall(HEAD + b"content-length: 100000\r\n\r\n")
        steady.settimeout(0.05)
        answer = b""
        while time.monotonic() - began < 6 and b"\r\n\r\n" not in answer:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                steady.sendall(b"1" * 200)
            with contextlib.suppress(TimeoutError, ConnectionResetError):
                answer += steady.recv(65536)
        assert status_of(answer) == 408
        assert 1.2 < time.monotonic() - began < 4
        assert {status_of(rest(sock)) for sock in silent} == {408}
        assert time.monotonic() - began < 6


def test_body_that_the_app_does_not_read_cannot_keep_its_connection_open(hasty: Guarded) -> None:
    """S-11: the answer is out, the rest of the body drips on."""
    with hasty.connect() as sock:
        sock.sendall(HEAD.replace(b"/x", b"/unread") + b"content-length: 1000\r\n\r\n1")
        assert status_of(answer_on(sock)) == 200
        began = time.monotonic()
        sock.settimeout(0.1)
        while time.monotonic() - began < 5:
            try:
                sock.sendall(b"1")
                if not sock.recv(65536):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        assert time.monotonic() - began < 3


def test_connection_stays_usable_for_httpx_after_a_refused_body(server: Guarded) -> None:
    with httpx.Client(base_url=server.url) as client:
        for _ in range(3):
            assert client.post("/x", headers=JSON, content=b"1" * 400_000).status_code == 413
            assert client.post("/x", headers={"content-type": "text/plain"}, content=b"{}").status_code == 415
            assert client.post("/x", headers=JSON, content=b"{}").status_code == 200


def test_hostile_json_over_the_wire_never_is_a_5xx(server: Guarded) -> None:
    """S-12, S-13: table A2."""
    for body in (
        b"[" * 200_000,
        b"9" * 5000,
        b"\xff\xfe",
        b"NaN",
        b"1e999",
        b'"\\ud800"',
        b'"\\u0000"',
        b'{"a":1,"a":2}',
    ):
        answer = server.post("/json", headers=JSON, content=body)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_json")
        assert len(answer.content) < 4096


def test_hostile_host_headers_are_refused_over_a_socket(server: Guarded) -> None:
    """S-02: five bad, three good."""
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "", "evil.example:7861"):
        answer = server.raw(b"GET /x HTTP/1.1\r\nhost: %s\r\nconnection: close\r\n\r\n" % host.encode())
        assert status_of(answer) == 400
    for host in ("localhost", f"127.0.0.1:{server.port}", f"[::1]:{server.port}"):
        answer = server.raw(b"GET /x HTTP/1.1\r\nhost: %s\r\nconnection: close\r\n\r\n" % host.encode())
        assert status_of(answer) == 200


def test_internal_error_is_logged_and_not_shown_to_the_client(server: Guarded) -> None:
    """S-13."""
    answer = server.get("/boom?key=CANARY-QUERY", headers={"cookie": "CANARY-COOKIE"})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text


# ---- framing -------------------------------------------------------------------------------------

CHUNK = b"2\r\n{}\r\n0\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "fields",
    [
        b"content-length: 12\r\ntransfer-encoding: chunked\r\n",
        b"transfer-encoding: chunked\r\nContent-Length: 0\r\n",
        b"content-length: 12\r\nTransfer-Encoding:\tchunked\r\n",
        b"content-length: 12\r\ncontent-length: 13\r\n",
        b"content-length: 12, 13\r\n",
        b"content-length: +12\r\n",
        b"content-length: 0x0c\r\n",
        b"content-length: 12 13\r\n",
        b"transfer-encoding: gzip, chunked\r\n",
        b"transfer-encoding: chunked, chunked\r\n",
        b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        b"transfer-encoding: xchunked\r\n",
        b"transfer-encoding:\r\n chunked\r\ncontent-length: 12\r\n",
        b"transfer-encoding : chunked\r\n",
        b"content-length : 12\r\n",
        b"content-length: 12\r\ntransfer-encoding\x0b: chunked\r\n",
        b"content-length: 12\rtransfer-encoding: chunked\r\n",
    ],
)
def test_body_with_two_content_lengths_is_refused_and_connection_closed(server: Guarded, fields: bytes) -> None:
    """S-10: what is in front of us may have read the other one, and would take what follows for its next request."""
    for pieces in (1, 5):
        request = HEAD + fields + b"\r\n" + CHUNK + SMUGGLED
        size = len(request) // pieces + 1
        with server.connect() as sock:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for at in range(0, len(request), size):
                    sock.sendall(request[at : at + size])
            answer = rest(sock)
        assert status_of(answer) == 400
        assert answer.count(b"HTTP/1.1") == 1
        assert b"connection: close" in answer.lower()


def test_chunks_of_http_1_0_are_refused(server: Guarded) -> None:
    head = HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") + b"transfer-encoding: chunked\r\n\r\n"
    assert status_of(server.raw(head + CHUNK)) == 400


@pytest.mark.parametrize(
    "rest_of_request",
    [
        HEAD + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n" + CHUNK,
        HEAD + b"content-length: 2\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}",
        HEAD.replace(b"\r\n", b"\n") + b"content-length: 2\nconnection: close\n\n{}",
        HEAD + b"x: a\r\n folded\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}",
        HEAD + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n2;a=b\r\n{}\r\n0\r\nx: trailer\r\n\r\n",
    ],
)
def test_request_framing_with_one_meaning_is_read_as_exactly_one_request(
    server: Guarded, rest_of_request: bytes
) -> None:
    """RFC 9112 lets a lone LF end a line and a folded value be joined: read so, never as a second request."""
    answer = server.raw(rest_of_request)
    assert status_of(answer) == 200
    assert answer.count(b"HTTP/1.1") == 1
    assert b'"body": 2' in answer


@pytest.mark.parametrize("part", [b"2;%s", b"0\r\nx: %s", b"2\r\n{}\r\n0\r\nx: %s"])
def test_chunk_extensions_and_trailers_of_megabytes_are_refused(server: Guarded, part: bytes) -> None:
    head = HEAD + b"transfer-encoding: chunked\r\n\r\n"
    with server.connect() as sock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        sock.sendall(head + part % (b"a" * 4_000_000))
        answer = rest(sock)
        assert 400 <= status_of(answer) < 500
        assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("path", ["/x%00", "/x?a=%00", "/x/%00/y"])
def test_a_url_with_nul_is_refused(server: Guarded, path: str) -> None:
    answer = server.get(path)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_url")


# ---- connections ---------------------------------------------------------------------------------


def test_connection_over_the_limit_is_refused_and_the_others_continue() -> None:
    """S-14."""
    with guarded(http={"max_connections": 5}) as server, contextlib.ExitStack() as open_sockets:
        socks = [open_sockets.enter_context(server.connect()) for _ in range(5)]
        time.sleep(0.1)
        with server.connect() as sock:
            answer = rest(sock)
        assert status_of(answer) == 503
        assert b"retry-after" in answer
        for sock in socks:
            sock.sendall(b"GET /x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            assert status_of(rest(sock)) == 200
        assert server.get("/x").status_code == 200


def test_ports_in_the_settings_all_serve_the_same_app() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        extra = int(probe.getsockname()[1])
    with guarded(server={"port": 0, "extra_ports": [extra]}) as server:
        assert server.get("/x").status_code == 200
        assert httpx.get(f"http://127.0.0.1:{extra}/x").status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_port_in_use_exits_with_one_line_and_code_1(host: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = {"server": {"host": host, "port": taken.getsockname()[1]}}
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.guarded", json.dumps(settings)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("cannot listen on")


# ---- the way out ---------------------------------------------------------------------------------


def streaming(server: Guarded, path: bytes, *, read: bool = True) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(10)
    sock.connect(("127.0.0.1", server.port))
    sock.sendall(b"GET " + path + b" HTTP/1.1\r\nhost: localhost\r\n\r\n")
    if read:
        assert b"200" in sock.recv(20)
    return sock


def test_streams_that_watch_for_shutdown_end_cleanly_and_at_once() -> None:
    """Requirement 18: `stopping` is called before the server waits for connections."""
    with guarded() as server, contextlib.ExitStack() as open_sockets:
        socks = [open_sockets.enter_context(streaming(server, b"/stream")) for _ in range(20)]
        open_sockets.enter_context(server.connect())  # never says a word
        began = time.monotonic()
        code, logged = server.stop()
        assert time.monotonic() - began < 1.5
        assert code == 0
        assert all(rest(sock).endswith(b"bye\r\n0\r\n\r\n") for sock in socks)
        assert "exc" not in logged


@pytest.mark.parametrize(("sig", "shutdown_s"), [(signal.SIGTERM, 3), (signal.SIGINT, 1)])
def test_shutdown_is_not_held_up_by_unread_streams_and_stuck_clients(sig: signal.Signals, shutdown_s: int) -> None:
    """Requirement 18: exit within 5 s with the default, code 0, no tracebacks."""
    with guarded(http={"shutdown_s": shutdown_s}) as server, contextlib.ExitStack() as open_sockets:
        for path in (b"/deaf", b"/flood"):
            for _ in range(5):
                open_sockets.enter_context(streaming(server, path, read=path == b"/deaf"))
        body = open_sockets.enter_context(server.connect())
        body.sendall(HEAD + b"content-length: 10\r\n\r\n1")
        time.sleep(0.3)
        began = time.monotonic()
        code, logged = server.stop(sig)
        assert time.monotonic() - began < shutdown_s + 2
        assert code == 0
        assert "Traceback" not in logged


def test_connection_of_a_client_that_reads_nothing_is_closed_and_the_writer_notified() -> None:
    """R-10: aborted, as closing would wait for the reader; seen here without reading."""
    with guarded(http={"stuck_s": 0.2}) as server, streaming(server, b"/flood", read=False) as sock:
        hung_up = select.poll()
        hung_up.register(sock, 0)
        assert hung_up.poll(20_000)
        code, logged = server.stop()
        assert code == 0
        assert "a reader is gone" in logged
        assert "Traceback" not in logged


def test_shutdown_on_a_second_signal_does_not_wait() -> None:
    """R-13."""
    with guarded() as server, streaming(server, b"/deaf"):
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.4)
        assert server.process.poll() is None
        began = time.monotonic()
        code, _ = server.stop(signal.SIGTERM)
        assert time.monotonic() - began < 1.5
        assert code == 0


def test_log_contains_nothing_a_client_sent(server: Guarded) -> None:
    """S-41, and last in this module, since it stops the server the others share."""
    server.get("/x?key=CANARY-1", headers={"authorization": "Bearer CANARY-2", "x-api-key": "CANARY-3"})
    server.post("/json", headers=JSON, content=b'{"prompt": "CANARY-4", "prompt": 1}')
    server.get("/x", headers={"host": "CANARY-5"})
    server.get("/x", headers={"origin": "http://CANARY-6"})
    server.raw(b"GET /CANARY-7\x1b[2J HTTP/1.1\r\nCANARY-8\r\n\r\n")
    _, logged = server.stop()
    assert "CANARY" not in logged
    assert "\x1b" not in logged
    assert all(json.loads(line)["level"] for line in logged.splitlines())
