"""Clients that hang up: a request over a raw socket, and what its job does from then on."""

from __future__ import annotations

import contextlib
import secrets
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.support.live import Live
from tests.support.native import ENDS, client_of, read

WAIT_S = 30.0


def close(sock: socket.socket) -> None:
    sock.close()


def shut_down(sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@dataclass
class Caller:
    """One owner of jobs at a gateway, who hangs up; and an observer that watches none of its jobs by a stream."""

    gateway: Live
    owner: str = field(default_factory=lambda: secrets.token_hex(8))

    def __post_init__(self) -> None:
        self.native = client_of(self.gateway.url, self.owner)

    def request(self, route: str, body: dict[str, Any], **headers: str) -> httpx.Request:
        """A request of `route`, "METHOD /path"; `body` is httpx's arguments."""
        method, _, path = route.partition(" ")
        return httpx.Request(method, self.gateway.url + path, headers={"X-Client-Id": self.owner, **headers}, **body)

    def send(self, request: httpx.Request, *, tail: bytes = b"", version: str = "1.1") -> socket.socket:
        """The open connection that waits for the answer."""
        head = f"{request.method} {request.url.raw_path.decode()} HTTP/{version}\r\n".encode()
        head += b"".join(name + b": " + value + b"\r\n" for name, value in request.headers.raw)
        sock = socket.create_connection(("127.0.0.1", self.gateway.port), timeout=WAIT_S)
        sock.sendall(head + b"\r\n" + request.read() + tail)
        return sock

    def answer(self, request: httpx.Request) -> httpx.Response:
        """The answer to a client that waits for it."""
        with httpx.Client(timeout=60) as client:
            return client.send(request)

    def leave(self, request: httpx.Request) -> None:
        """Send a request and hang up once its job is stored."""
        before = len(self.jobs())
        connection = self.send(request)
        end = time.monotonic() + WAIT_S
        while len(self.jobs()) == before:
            assert time.monotonic() < end
            time.sleep(0.01)
        connection.close()

    def jobs(self) -> list[dict[str, Any]]:
        """The jobs of this owner, the oldest first."""
        return list(reversed(self.native.get("/jobs").json()["jobs"]))

    def job(self, condition: str) -> dict[str, Any]:
        """The newest job, once it has that status, or runs in that phase; `drawing` is after the first step."""
        end = time.monotonic() + WAIT_S
        seen: list[dict[str, Any]] = []
        while time.monotonic() < end:
            if seen := self.jobs():
                job: dict[str, Any] = self.native.get(f"/jobs/{seen[-1]['id']}").json()
                progress = job.get("progress_detail") or {}
                is_drawing = condition == "drawing" and progress.get("step", 0) > 0
                if is_drawing or condition in (job["status"], progress.get("phase")):
                    return job
            time.sleep(0.01)
        raise AssertionError(f"no job was {condition}: {seen}")

    @contextlib.contextmanager
    def steps(self) -> Iterator[Iterator[tuple[str, int]]]:
        """The steps of all jobs, with the job's id, as they come; the stream of all jobs keeps none alive."""
        events = read(self.native, "/events")
        next(events)
        try:
            yield self._steps(events)
        finally:
            events.close()  # type: ignore[attr-defined]

    def _steps(self, events: Iterator[dict[str, Any]]) -> Iterator[tuple[str, int]]:
        """Ends with the first job that ends."""
        for event in events:
            if event.get("event") == "progress":
                yield event["data"]["job_id"], event["data"]["step"]
            elif event.get("event") in ENDS:
                return

    def close(self) -> None:
        for job in self.jobs():
            if job["status"] in ("queued", "generating"):
                self.native.delete(f"/jobs/{job['id']}")
        self.native.close()
