"""What the tests of an S3 storage share: moto's in a process of its own, and a gate before it that closes at will."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx

from tests.support.live import free_port

KEY, SECRET = "AKIDEXAMPLEOFTESTS", "wJalrXUtnFEMIexampleOfTests"
PAGE = 50
"""Objects of one page of a list; S3 itself has 1000."""
SERVE = """
import os, sys, threading
threading.Thread(target=lambda: os._exit(len(sys.stdin.read())), daemon=True).start()  # leaves with whoever started it
from moto.server import main
main(["-H", "127.0.0.1", "-p", sys.argv[1]])
"""
REFUSAL = (
    b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\nContent-Length: 63\r\nConnection: close\r\n\r\n"
    b"<Error><Code>AccessDenied</Code><Message>No.</Message>  </Error>"
)


@functools.cache
def storage() -> str:
    """The address of moto's storage, started with the first call and ended with this process."""
    port = free_port()
    command = [sys.executable, "-c", SERVE, str(port)]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = {**os.environ, "MOTO_S3_DEFAULT_MAX_KEYS": str(PAGE)}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, **quiet, env=environment)

    def end() -> None:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()

    atexit.register(end)
    url, last = f"http://127.0.0.1:{port}", time.monotonic() + 60
    while time.monotonic() < last:
        with contextlib.suppress(httpx.TransportError):
            httpx.get(url)
            return url
        time.sleep(0.05)
    raise AssertionError("moto does not answer")


def new_bucket() -> str:
    """The name of a new, empty bucket."""
    name = f"bucket-{secrets.token_hex(6)}"
    assert httpx.put(f"{storage()}/{name}").status_code == 200
    return name


def remove_bucket(name: str) -> None:
    """Remove a bucket with all that is in it."""
    listing = httpx.get(f"{storage()}/{name}?list-type=2").text
    for part in listing.split("<Key>")[1:]:
        httpx.delete(f"{storage()}/{name}/{part.partition('</Key>')[0]}", headers={"Authorization": "AWS a:b"})
    assert httpx.delete(f"{storage()}/{name}").status_code == 204


def settings_of(endpoint: str, bucket: str, **more: Any) -> dict[str, Any]:
    """The settings of a gateway whose files are in a bucket."""
    return {
        "url": f"s3://{bucket}/mflux",
        "endpoint": endpoint,
        "region": "us-east-1",
        "access_key_id": KEY,
        "secret_access_key": SECRET,
        "timeout_s": 5,
        **more,
    }


class Gate:
    """A TCP port before the storage: it is `open`, `closed` (connections end), `silent` or `refuses` (403)."""

    def __init__(self, to: str) -> None:
        self._to = int(to.rpartition(":")[2])
        self.state = "open"
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait(10)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._end = asyncio.Event()
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._end.wait()
        self._server.close()
        await self._drop()

    async def _drop(self) -> None:
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self.state == "closed":
                return
            if self.state == "silent":
                await self._end.wait()
                return
            if self.state == "refuses":
                await reader.readuntil(b"\r\n\r\n")
                writer.write(REFUSAL)
                await writer.drain()
                return
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._to)
            try:
                await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))
            finally:
                inner_writer.close()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    def set(self, state: str) -> None:
        """Change the state and end all connections."""
        self.state = state
        asyncio.run_coroutine_threadsafe(self._drop(), self._loop).result(10)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError, RuntimeError):
        writer.write_eof()


@contextlib.contextmanager
def gate() -> Iterator[Gate]:
    """A gate before the storage, open at first."""
    made = Gate(storage())
    try:
        yield made
    finally:
        made.close()
