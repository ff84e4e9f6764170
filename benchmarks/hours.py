"""R-20: a gateway that runs for hours, and one with a long history. Run by `python -m benchmarks.soak hours|history`.

`hours`: three requests a second, of all protocols in turn, with the fake engine; prints the gateway's resources at
intervals. `history`: a hundred thousand ended jobs; measures a start and every list.
"""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil

from engine.protocol import Succeeded
from gateway.jobs.facts import ImageDone, Started
from gateway.store import rows
from gateway.store.sqlite import SqliteStore
from tests.support import a_job, a_plan
from tests.support.live import Live

PER_S = 3.0
TINY = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 1}
REQUESTS: tuple[tuple[str, str, dict[str, Any] | None], ...] = (
    ("POST", "/api/v1/generate", TINY),
    ("POST", "/sdapi/v1/txt2img", TINY),
    ("POST", "/v1/images/generations", {"prompt": "a red circle", "size": "64x64", "response_format": "b64_json"}),
    ("POST", "/api/generate", {**TINY, "num_inference_steps": 1}),
    ("GET", "/api/v1/jobs", None),
    ("GET", "/api/v1/queue", None),
    ("GET", "/sdapi/v1/progress", None),
    ("GET", "/api/tasks", None),
    ("GET", "/v1/models", None),
    ("GET", "/metrics", None),
    ("GET", "/api/v1/images?limit=20", None),
    ("GET", "/health/ready", None),
)
MARKS = 20
TEMPLATE = 1000
"""Jobs that are created one by one; the others are copies of them under other ids."""
LISTS = (
    "/api/v1/jobs",
    "/api/v1/jobs?status=completed",
    "/api/v1/jobs?status=failed",
    "/api/v1/jobs?protocol=sdapi",
    "/api/v1/queue",
    "/api/v1/images",
    "/api/v1/images?search=circle",
    "/api/v1/images?search=nothing-has-this",
    "/api/tasks",
    "/health/live",
)
COUNTS = ("/api/v1/stats", "/metrics")
"""Requests that read every job on record."""
LIST_MS, COUNT_MS = 20.0, 100.0
START_S = 2.0


def hours(folder: Path, seconds: float, say: Callable[[str, Any], None]) -> None:
    """Send requests to a gateway for so long; prints a line of figures twenty times. Raises: SystemExit at a 5xx."""
    config = {"generation": {"previews": False}, "retention": {"jobs": 5000}}
    gateway = Live(folder, config=config).start()
    outcomes: Counter[str] = Counter()
    lock, local = threading.Lock(), threading.local()

    def send(n: int) -> None:
        method, path, body = REQUESTS[n % len(REQUESTS)]
        if not hasattr(local, "client"):
            local.client = httpx.Client(base_url=gateway.url, timeout=60)
        try:
            answer = local.client.request(method, path, json=body).status_code
        except httpx.HTTPError as error:
            answer = type(error).__name__
        with lock:
            outcomes[f"{path.partition('?')[0]} {answer}"] += 1

    try:
        assert gateway.process is not None
        process = psutil.Process(gateway.process.pid)
        began = time.monotonic()
        print(f"{'seconds':>8} {'requests':>9} {'MB':>7} {'files':>6} {'threads':>8} {'WAL MB':>7} {'log MB':>7}")
        with ThreadPoolExecutor(8) as pool:
            mark = 0.0
            for n in itertools.count():
                now = time.monotonic() - began
                if now >= mark or now >= seconds:
                    print(_held(gateway, process, now, outcomes.total()), flush=True)
                    mark += seconds / MARKS
                if now >= seconds:
                    break
                pool.submit(send, n)
                time.sleep(max(0.0, began + (n + 1) / PER_S - time.monotonic()))
    finally:
        gateway.stop()
    for name, many in sorted(outcomes.items()):
        say(name, many)
    if bad := [name for name in outcomes if not name.rpartition(" ")[2].startswith("2")]:
        raise SystemExit(f"not all went well: {bad}")


def _held(gateway: Live, process: psutil.Process, now: float, requests: int) -> str:
    wal = gateway.folder / "data" / "jobs.sqlite3-wal"
    sizes = [file.stat().st_size / 2**20 if file.exists() else 0.0 for file in (wal, gateway.folder / "gateway.log")]
    rss, files, threads = process.memory_info().rss / 2**20, process.num_fds(), process.num_threads()
    return f"{now:8.0f} {requests:9} {rss:7.1f} {files:6} {threads:8} {sizes[0]:7.1f} {sizes[1]:7.1f}"


def history(folder: Path, jobs: int, say: Callable[[str, Any], None]) -> None:
    """Raises: SystemExit where the start or a list takes too long."""
    asyncio.run(_fill(folder / "data", jobs))
    slow = []
    (folder / "empty").mkdir()
    began = time.monotonic()
    empty = Live(folder / "empty").start(ready=False)
    alone = time.monotonic() - began
    say("start without a history, seconds", round(alone, 2))
    empty.stop()
    config = {"retention": {"jobs": 10 * jobs, "days": 3650}, "store": {"backup_hours": None}}
    began = time.monotonic()
    gateway = Live(folder, config=config).start(ready=False)
    try:
        took = time.monotonic() - began
        say("start, seconds", round(took, 2))
        slow += ["start"] if took > START_S else []
        gateway.wait_for("/health/ready")
        with httpx.Client(base_url=gateway.url, timeout=60, headers={"X-Client-Id": "0"}) as client:
            for path in (*LISTS, *COUNTS):
                times = []
                for _ in range(20):
                    began = time.perf_counter()
                    client.get(path).raise_for_status()
                    times.append((time.perf_counter() - began) * 1000)
                middle = statistics.median(times)
                say(f"{path}, p50, most in ms", f"{middle:.1f} {max(times):.1f}")
                slow += [path] if middle > (COUNT_MS if path in COUNTS else LIST_MS) else []
    finally:
        gateway.stop()
    if slow:
        raise SystemExit(f"too slow: {slow}")


async def _fill(folder: Path, jobs: int) -> None:
    """Ended jobs of ten owners and four protocols, written with the store's rows, then copied within its tables."""
    store = SqliteStore(folder)
    await store.open()
    store._database._write_db.execute("PRAGMA synchronous=OFF")
    first = time.time() - 6 * 86400.0

    def some(db: sqlite3.Connection) -> None:
        for n in range(TEMPLATE):
            new = a_job(
                owner=f"client:{n % 10}",
                protocol=("native", "sdapi", "openai", "mflux-server")[n % 4],
                plan=a_plan(prompt=f"a red circle, number {n}", seeds=(n,)),
            )
            job = rows.insert(db, new, first + n, first + n)
            name = f"{new.id}.1.0.png"
            done = ImageDone(image=0, seed=n, file=name, width_px=64, height_px=64, drawn_px=(64, 64), seconds=1.0)
            for fact in (Started(attempt=1), done, Succeeded()):
                job = rows.append(db, job, fact, first + n, first + n)

    def copied(db: sqlite3.Connection) -> None:
        columns = [row[1] for row in db.execute("PRAGMA table_info(jobs)") if row[1] not in ("number", "id")]
        names = ", ".join(columns)
        another = "printf('%08x', {copy}) || substr({id}, 9)"
        jobs_of = f"INSERT INTO jobs (id, {names}) SELECT {another}, {names} FROM jobs WHERE number <= {TEMPLATE}"
        events_of = (
            f"INSERT INTO events (job_id, seq, at, fact, steady) SELECT {another}, seq, at, fact, steady FROM events"
            f" WHERE number <= {4 * TEMPLATE}"
        )
        for copy in range(1, jobs // TEMPLATE):
            db.execute(jobs_of.format(copy=copy, id="id"))
            db.execute(events_of.format(copy=copy, id="job_id"))
        db.execute("UPDATE jobs SET checksum = NULL")
        for row in db.execute("SELECT id FROM jobs").fetchall():
            rows.seal(db, row["id"])

    await store._database.write(some)
    await store._database.write(copied)
    await store.close()
