"""A guarded server in a process of its own, with a raw ASGI application behind it, for tests over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[2]


class Guarded:
    """The running server; `url` is where it listens."""

    def __init__(self, settings: dict[str, Any]) -> None:
        values = {"server": {"port": 0}, **settings}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.guarded", json.dumps(values)], cwd=ROOT, stderr=subprocess.PIPE
        )
        assert self.process.stderr is not None
        self.lines: list[str] = []
        for line in self.process.stderr:
            self.lines.append(line.decode())
            record = json.loads(line) if line.startswith(b"{") else {}
            if record.get("msg") == "listening":
                self.port = int(record["address"].rpartition(":")[2])
                break
        else:
            raise AssertionError("".join(self.lines))
        self.url = f"http://127.0.0.1:{self.port}"

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.url + path, timeout=10, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return httpx.post(self.url + path, timeout=10, **options)

    def connect(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        return sock

    def raw(self, request: bytes) -> bytes:
        """Send `request` and read until the server closes."""
        with self.connect() as sock:
            sock.sendall(request)
            return rest(sock)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Exit code, and all that was logged after the start."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            _, logged = self.process.communicate(timeout=12)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise AssertionError("the server did not stop") from None
        return self.process.returncode, logged.decode()


def rest(sock: socket.socket) -> bytes:
    """All that comes until the other side closes or resets."""
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(65536):
            got += data
    return got


@contextlib.contextmanager
def guarded(**settings: Any) -> Iterator[Guarded]:
    server = Guarded(settings)
    try:
        yield server
    finally:
        server.stop()


# ---- the process ---------------------------------------------------------------------------------

stopping = asyncio.Event()
departures: list[str] = []
"""Paths of the requests whose client left before the answer."""


async def until_gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    logging.getLogger("tests").info("a reader is gone")


async def app(scope: Any, receive: Any, send: Any) -> None:
    """What stands behind the guard in these tests."""
    if scope["type"] == "lifespan":
        for what in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{what}.complete"})
        return
    path = scope["path"]
    if path in ("/stream", "/deaf", "/flood"):
        gone = asyncio.ensure_future(until_gone(receive))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        while not gone.done() and (path != "/stream" or not stopping.is_set()):
            await send(
                {"type": "http.response.body", "body": b"x" * (1 if path != "/flood" else 65536), "more_body": True}
            )
            await asyncio.sleep(0.02 if path != "/flood" else 0)
        await send({"type": "http.response.body", "body": b"bye", "more_body": False})
        return
    if path.startswith("/waits"):
        await receive()
        gone = asyncio.ensure_future(until_gone(receive))
        await asyncio.wait({gone}, timeout=float(path.removeprefix("/waits/")))
        if gone.done():
            departures.append(path)
            return
        gone.cancel()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return
    if path == "/boom":
        raise RuntimeError("secret-in-an-exception")
    body, more = b"", path != "/unread"
    while more:
        try:
            message = await receive()
        except Exception:
            if path != "/swallows":
                raise
            break  # an app that turns every error into its own answer
        body += message.get("body", b"")
        more = message.get("more_body", False)
    value: Any = len(body)
    if path == "/json":
        from gateway.strict_json import parse_async

        value = type(await parse_async(body)).__name__
    answer = json.dumps({"body": value, "owner": scope["state"]["owner"], "departures": len(departures)}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": answer, "more_body": False})


def main() -> None:
    from gateway import logs
    from gateway.access.guard import Guard
    from gateway.http.server import ServerError, run
    from gateway.settings import Settings

    settings = Settings.model_validate(json.loads(sys.argv[1]))
    logs.setup("INFO")
    guard = Guard(
        app,
        settings,
        body_limit=lambda path: (
            settings.http.image_body_bytes if path == "/images" else settings.http.default_body_bytes
        ),
        is_image_path=lambda path: path.startswith("/pictures/"),
        is_open_path=lambda path: path == "/open",
    )
    try:
        run(guard, settings, stopping=stopping.set)
    except ServerError as error:
        print(error, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    os.environ.pop("PYTHONWARNINGS", None)
    main()
