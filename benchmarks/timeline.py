"""Time line of one request: python -m benchmarks.overhead --timeline

A gateway in this process, a client in a thread of it, the embedded model in its engine process. Functions along the
way of a request are timed from outside; each row has when it began after the client's request and how long it took,
medians over the requests. Rows overlap where work runs concurrently. Counts are of this process, without the engine.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import statistics
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from adapters import PROTOCOLS
from gateway.downloads.tracker import Downloads
from gateway.http import server
from gateway.images.output import OutputFolder
from gateway.lanes.engine import EngineLane
from gateway.lanes.filing import Filing
from gateway.residency import ResidencyManager
from gateway.service.planner import Planner
from gateway.service.service import JobService
from gateway.settings import load_settings
from gateway.startup import Gateway
from gateway.store.database import Database
from gateway.store.folder_health import StorageHealth
from gateway.store.sqlite import SqliteStore

SPANS: tuple[tuple[str, type, str], ...] = (
    ("plan the job", Planner, "drawing"),
    ("check the folders", StorageHealth, "check"),
    ("admit to memory", ResidencyManager, "admit"),
    ("store the job", SqliteStore, "submit"),
    ("start downloads", Downloads, "start_for"),
    ("submit, all of it", JobService, "submit"),
    ("claim", SqliteStore, "claim"),
    ("make the command", EngineLane, "_command"),
    ("draw", EngineLane, "_draw"),
    ("encode and write the image", OutputFolder, "keep"),
    ("hash the image", OutputFolder, "note_of"),
    ("record", SqliteStore, "record"),
    ("wait until all is written", Filing, "written"),
    ("commit", SqliteStore, "commit"),
    ("wait for the end", JobService, "ended"),
    ("read the image", OutputFolder, "read"),
    ("save state", SqliteStore, "save_state"),
)
"""Methods along the way of a request, in order."""
COUNTS: tuple[tuple[str, type, str], ...] = (
    ("write transactions", Database, "write"),
    ("read transactions", Database, "read"),
)


@dataclass
class Recorder:
    """Spans and counts of the current request."""

    began: float = 0.0
    began_processor: float = 0.0
    spans: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    counts: Counter[str] = field(default_factory=Counter)

    def wrap(self, title: str, kind: type, name: str, *, is_span: bool = True) -> None:
        """Time, or count, the calls of a method."""
        method: Callable[..., Any] = getattr(kind, name)

        def note(start: float) -> None:
            if is_span:
                self.spans[title].append((start, time.perf_counter()))

        if inspect.iscoroutinefunction(method):

            @functools.wraps(method)
            async def awaited(*args: Any, **values: Any) -> Any:
                start = time.perf_counter()
                self.counts[title] += 1
                try:
                    return await method(*args, **values)
                finally:
                    note(start)

            setattr(kind, name, awaited)
        else:

            @functools.wraps(method)
            def called(*args: Any, **values: Any) -> Any:
                start = time.perf_counter()
                self.counts[title] += 1
                try:
                    return method(*args, **values)
                finally:
                    note(start)

            setattr(kind, name, called)

    def audit(self, event: str, _: tuple[Any, ...]) -> None:
        if event in ("open", "os.listdir", "os.scandir"):
            self.counts["files opened" if event == "open" else "folders listed"] += 1


class Rounds:
    """Spans of many requests."""

    def __init__(self) -> None:
        self.rows: dict[str, list[tuple[float, float]]] = defaultdict(list)
        """Milliseconds from the request to the begin of a span, and of the span, one pair a request."""
        self.counts: dict[str, list[int]] = defaultdict(list)
        self.processor_ms: list[float] = []

    def add(self, recorder: Recorder, ended: float) -> None:
        for title, spans in recorder.spans.items():
            first = min(start for start, _ in spans)
            self.rows[title].append(((first - recorder.began) * 1000, sum(end - start for start, end in spans) * 1000))
        self.rows["answered"].append(((ended - recorder.began) * 1000, 0.0))
        for title, count in recorder.counts.items():
            self.counts[title].append(count)
        self.processor_ms.append((time.process_time() - recorder.began_processor) * 1000)

    def __str__(self) -> str:
        rows = [
            (statistics.median(at for at, _ in pairs), statistics.median(took for _, took in pairs), title)
            for title, pairs in self.rows.items()
        ]
        lines = [f"{at:9.1f} {took:9.1f}   {title}" for at, took, title in sorted(rows)]
        counts = (f"{title} {statistics.median(values):g}" for title, values in self.counts.items())
        processor = f"{statistics.median(self.processor_ms):.1f} ms of processor"
        return "\n".join(["    at ms   took ms", *lines, f"a request: {processor}, " + ", ".join(counts)])


@contextmanager
def _counting_threads(recorder: Recorder) -> Iterator[None]:
    run = asyncio.BaseEventLoop.run_in_executor

    def counted(self: asyncio.BaseEventLoop, *args: Any) -> Any:
        recorder.counts["hand-offs to threads"] += 1
        return run(self, *args)

    asyncio.BaseEventLoop.run_in_executor = counted  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        asyncio.BaseEventLoop.run_in_executor = run  # type: ignore[method-assign]


def timeline(folder: Path, port: int, requests: int, body: dict[str, Any]) -> Rounds:
    """The time line of `requests` requests to /v1/images/generations, one after the other."""
    recorder, rounds = Recorder(), Rounds()
    for title, kind, name in SPANS:
        recorder.wrap(title, kind, name)
    for title, kind, name in COUNTS:
        recorder.wrap(title, kind, name, is_span=False)
    sys.addaudithook(recorder.audit)
    arguments = ["--port", str(port), "--data-dir", str(folder / "data"), "--output-dir", str(folder / "output")]
    settings = load_settings([*arguments, "--model", "flux2-tiny"], {})
    gateway = Gateway(settings, PROTOCOLS)

    def ask() -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            while not _is_ready(client):
                time.sleep(0.1)
            for number in range(requests + 2):
                time.sleep(0.2)  # what belongs to the request before is over
                recorder.spans.clear()
                recorder.counts.clear()
                recorder.began, recorder.began_processor = time.perf_counter(), time.process_time()
                client.post("/v1/images/generations", json={**body, "seed": number}).raise_for_status()
                ended = time.perf_counter()
                if number >= 2:  # the first ones load the model
                    time.sleep(0.1)  # what is done after the answer is counted too
                    rounds.add(recorder, ended)

    async def serve() -> None:
        serving = asyncio.create_task(
            server.serve(gateway, settings, start=gateway.start, stopping=gateway.begin_stop, stop=gateway.stop)
        )
        thread = threading.Thread(target=ask)
        thread.start()
        await asyncio.to_thread(thread.join)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)

    with _counting_threads(recorder):
        asyncio.run(serve())
    return rounds


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/health/ready").status_code == 200
    except httpx.TransportError:
        return False
