"""python -m benchmarks.fanout [--streams 1000] [--jobs 20] [--seconds 15] [--rounds 3] [--stuck 50]: events to readers.

A gateway and its client share the machine and speak over real sockets. The jobs are in the store and in the hub as the
lanes would put them there; what they report is made up, so that all of them run at once. Each has ten steps a second
and a picture every few seconds, and each stream follows one job. Latency is from the report to the parsed event.

The rows, one for each response class, are medians of alternating rounds: the gateway's own, and sse-starlette's (of the
dependency group `bench`), which gets the same encoded frames. `frame_us` is the processor time that the class alone
takes for a frame, without sockets.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import psutil
from starlette.requests import Request
from starlette.types import Message

from engine.protocol import StepDone, Succeeded
from gateway.context import Core
from gateway.jobs.facts import ImageDone
from gateway.jobs.origin import Origin
from gateway.jobs.resolve import GenerationRequest
from gateway.store.base import Lease, WorkerInfo

PER_S = 10
IMAGES = 10
OWNER = "fanout"
OPENED_AT_ONCE = 50
MOST = 10_000
HEAD = "GET /api/v1/jobs/{job}/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Client-Id: {owner}\r\n\r\n"
ENDS = ("complete", "error", "cancelled")
OWN, LIBRARY = "gateway", "sse-starlette"
FRAMES, FRAME = 5000, b"event: progress\ndata: " + b"x" * 180 + b"\n\n"


# ---- the gateway: a process of its own ------------------------------------------------------------


async def serve(folder: Path, port: int, jobs: int, seconds: float, response: str) -> None:
    """Serve, and do as the lines on stdin say; answers are JSON lines on stdout."""
    if response == LIBRARY:
        use_library()
    from adapters import ADAPTERS
    from gateway.access.keys import Keys
    from gateway.app import build_app, build_core
    from gateway.http.server import serve as serve_app
    from gateway.settings import load_settings

    http = {"max_streams": MOST, "max_streams_per_client": MOST, "max_connections": MOST}
    config = {"http": http, "engine": {"backend": "fake"}}
    (folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    arguments = ["--config", str(folder / "config.yaml"), "--port", str(port), "--model", "flux2-tiny"]
    arguments += ["--data-dir", str(folder / "data"), "--output-dir", str(folder / "output")]
    settings = load_settings(arguments, {})
    core = build_core(settings)
    app, service = build_app(core, ADAPTERS, Keys()), core.service
    serving = asyncio.create_task(
        serve_app(app, settings, start=service.start, stopping=service.begin_stop, stop=service.stop)
    )
    leases: list[Lease] = []
    while line := await asyncio.to_thread(sys.stdin.readline):
        match line.strip():
            case "submit":
                leases = await claimed(core, jobs)
                say({"jobs": [lease.job.id for lease in leases]})
            case "go":
                say({"reported": await report(core, leases, seconds)})
            case "left":
                say({"streams": core.streaming.total()})
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


def use_library() -> None:
    """Serve the streams by sse-starlette's response."""
    from sse_starlette import EventSourceResponse

    from adapters.native import stream
    from adapters.shared.context import core_of
    from adapters.shared.sse import STREAM_HEADERS

    def event_stream(request: Request, frames: AsyncGenerator[bytes, None], *, opening: bytes) -> EventSourceResponse:
        return EventSourceResponse(frames, headers=STREAM_HEADERS, ping=core_of(request).settings.http.heartbeat_s)

    setattr(stream, "event_stream", event_stream)  # noqa: B010


def say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


async def claimed(core: Core, count: int) -> list[Lease]:
    """As many jobs, all of them running as far as store and hub know."""
    origin = Origin(owner=f"client:{OWNER}", protocol="native", attached=False)
    await core.service.queue.pause(origin.owner)
    for _ in range(count):
        request = GenerationRequest(prompt="x", width_px=64, height_px=64, count=IMAGES)
        await core.service.submit(request, origin)
    store = core.service._store
    await store.pause("engine", False)
    leases = [await store.claim(WorkerInfo(id=f"worker {i}")) for i in range(count)]
    await store.pause("engine", True)
    return [lease for lease in leases if lease is not None]


async def report(core: Core, leases: list[Lease], seconds: float) -> dict[str, list[float]]:
    """Report on all jobs until they end; returns when each step of each job was told, in Unix seconds."""
    told = await asyncio.gather(*(_report(core, lease, i, len(leases), seconds) for i, lease in enumerate(leases)))
    return {lease.job.id: times for lease, times in zip(leases, told, strict=True)}


async def _report(core: Core, lease: Lease, place: int, places: int, seconds: float) -> list[float]:
    hub, store, job = core.service._bus, core.service._store, lease.job
    hub.begin(job.id, IMAGES, 0)
    steps = round(seconds * PER_S)
    begin, times = time.monotonic() + 1 + place / places / PER_S, []
    for step in range(steps):
        await asyncio.sleep(max(0.0, begin + step / PER_S - time.monotonic()))
        image = step * IMAGES // steps
        times.append(time.time())
        hub.publish_progress(job.id, StepDone(image=image, step=step, steps=steps, seconds=1 / PER_S))
        if (step + 1) * IMAGES // steps > image:
            file = f"{job.id}.1.{image}.png"
            done = ImageDone(image=image, seed=1, file=file, width_px=64, height_px=64, drawn_px=(64, 64), seconds=1)
            await store.record(lease, done)
    await store.commit(lease, Succeeded())
    hub.end(job.id)
    return times


# ---- the client ------------------------------------------------------------------------------------


@dataclass
class Reader:
    """One stream: what came of it."""

    job: str
    seq: int = 0
    lost: int = 0
    ended: bool = False
    seen: list[tuple[int, float]] = field(default_factory=list)
    """Steps, and when they were parsed, in Unix seconds."""


async def follow(reader: Reader, port: int, opening: asyncio.Semaphore) -> None:
    async with opening:
        source, sink = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
        sink.write(HEAD.format(job=reader.job, owner=OWNER).encode())
        await source.readuntil(b"\r\n\r\n")
    event, seq = "", 0
    try:
        while not reader.ended and (line := await source.readline()):
            if line.startswith(b"id: "):
                seq = int(line.rpartition(b":")[2])
            elif line.startswith(b"event: "):
                event = line[7:-1].decode()
            elif line.startswith(b"data: ") and event == "progress":
                reader.seen.append((json.loads(line[6:])["step"], time.time()))
            elif line.startswith(b"data: ") and seq > reader.seq:
                reader.lost += seq - reader.seq - 1
                reader.seq, reader.ended = seq, event in ENDS
    finally:
        sink.close()


async def stuck(job: str, port: int) -> asyncio.StreamWriter:
    """A reader that never reads."""
    source, sink = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    sink.write(HEAD.format(job=job, owner=OWNER).encode())
    source._transport.pause_reading()  # type: ignore[attr-defined]
    return sink


class Gateway:
    """The other process."""

    def __init__(self, folder: Path, port: int, jobs: int, seconds: float, response: str) -> None:
        command = [sys.executable, "-m", "benchmarks.fanout", "--serve", str(folder), str(port)]
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--jobs", str(jobs), "--seconds", str(seconds), "--response", response],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.measured = psutil.Process(self._process.pid)

    def ask(self, what: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()


async def measure(streams: int, jobs: int, seconds: float, stuck_readers: int, response: str) -> dict[str, Any]:
    from tests.support.live import free_port

    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        gateway = Gateway(Path(folder), port, jobs, seconds, response)
        try:
            while True:
                with contextlib.suppress(OSError):
                    (await asyncio.open_connection("127.0.0.1", port))[1].close()
                    break
                await asyncio.sleep(0.1)
            await asyncio.sleep(1)
            ids = (await asyncio.to_thread(gateway.ask, "submit"))["jobs"]
            readers = [Reader(ids[i % len(ids)]) for i in range(streams)]
            opening = asyncio.Semaphore(OPENED_AT_ONCE)
            following = [asyncio.create_task(follow(reader, port, opening)) for reader in readers]
            still = [await stuck(ids[i % len(ids)], port) for i in range(stuck_readers)]
            while (await asyncio.to_thread(gateway.ask, "left"))["streams"] < streams:  # noqa: ASYNC110
                await asyncio.sleep(0.2)
            before, busy_before, began = sum(gateway.measured.cpu_times()[:2]), others_busy_s(gateway), time.monotonic()
            reported = (await asyncio.to_thread(gateway.ask, "go"))["reported"]
            took_s = time.monotonic() - began
            cpu = (sum(gateway.measured.cpu_times()[:2]) - before) / took_s
            others = (others_busy_s(gateway) - busy_before) / took_s
            await asyncio.wait(following, timeout=30)
            memory = gateway.measured.memory_info().rss
            for sink in still:
                sink.close()
            await asyncio.sleep(1)
            left = (await asyncio.to_thread(gateway.ask, "left"))["streams"]
        finally:
            gateway.end()
    return {
        **told(readers, reported, left),
        "cpu_percent_of_one_core": round(cpu * 100, 1),
        "others_percent_of_one_core": round(others * 100, 1),
        "memory_mb": round(memory / 2**20),
    }


def others_busy_s(gateway: Gateway) -> float:
    """Seconds of processor time of all processes but the gateway and this one: what disturbs the measurement."""
    times = psutil.cpu_times()
    all_s = sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
    return all_s - sum(sum(process.cpu_times()[:2]) for process in (gateway.measured, psutil.Process()))


def told(readers: list[Reader], reported: dict[str, list[float]], left: int) -> dict[str, Any]:
    late = [(at - reported[reader.job][step]) * 1000 for reader in readers for step, at in reader.seen]
    percent = quantiles(late, n=100)
    steps = Counter({job: len(times) for job, times in reported.items()})
    return {
        "streams": len(readers),
        "jobs": len(reported),
        "events": len(late),
        "p50_ms": round(percent[49], 1),
        "p99_ms": round(percent[98], 1),
        "progress_conflated": sum(steps[reader.job] for reader in readers) - len(late),
        "state_events_lost": sum(reader.lost for reader in readers),
        "streams_without_their_end": sum(not reader.ended for reader in readers),
        "streams_left_after_1_s": left,
    }


async def compare(rounds: int, streams: int, jobs: int, seconds: float, stuck_readers: int) -> list[dict[str, Any]]:
    """The median of each figure of each response class, over alternating rounds."""
    found = [
        (response, await measure(streams, jobs, seconds, stuck_readers, response))
        for _ in range(rounds)
        for response in (OWN, LIBRARY)
    ]
    frame_times = [(response, await frame_us(response)) for _ in range(7) for response in (OWN, LIBRARY)]
    rows = []
    for response in (OWN, LIBRARY):
        frame = round(median(us for name, us in frame_times if name == response), 1)
        figures = [row for name, row in found if name == response]
        medians = {key: median(row[key] for row in figures) for key in figures[0]}
        rows.append({"response": response, "version": version(_package(response)), **medians, "frame_us": frame})
    return rows


async def frame_us(response: str) -> float:
    """Microseconds of processor time of one frame in the response class alone."""
    from sse_starlette import EventSourceResponse

    from adapters.shared.sse import EventStream

    async def frames() -> AsyncGenerator[bytes, None]:
        for _ in range(FRAMES):
            await asyncio.sleep(0)
            yield FRAME

    async def receive() -> Message:
        await asyncio.sleep(3600)
        raise AssertionError("the client stays")

    async def send(_: Message) -> None:
        """Nobody reads."""

    stream = EventStream(frames()) if response == OWN else EventSourceResponse(frames())
    began = time.process_time()
    await stream({"type": "http", "method": "GET"}, receive, send)
    return (time.process_time() - began) / FRAMES * 1e6


def _package(response: str) -> str:
    return "mflux-gateway" if response == OWN else response


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stuck", type=int, default=0, help="readers besides that never read")
    parser.add_argument("--response", choices=(OWN, LIBRARY), default=OWN, help=argparse.SUPPRESS)
    parser.add_argument("--serve", nargs=2, metavar=("FOLDER", "PORT"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(MOST, most) if most > 0 else MOST, most))
    with asyncio.Runner(loop_factory=_loop) as runner:
        if asked.serve:
            runner.run(serve(Path(asked.serve[0]), int(asked.serve[1]), asked.jobs, asked.seconds, asked.response))
        else:
            for row in runner.run(compare(asked.rounds, asked.streams, asked.jobs, asked.seconds, asked.stuck)):
                print(json.dumps(row, indent=1))


def _loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


if __name__ == "__main__":
    main()
