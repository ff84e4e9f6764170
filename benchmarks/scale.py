"""Ten thousand waiting jobs and a hundred thousand in history against a small store: python -m benchmarks.scale

Prints claims and submits at 100 and at 10,000 waiting, in several kinds of queue; forecasts by one node and by
several; lists, searches and the gallery by the store and over HTTP, first pages and deep ones; starts; how long the
event loop is blocked; and the size of the database before and after retention. `python -m benchmarks.scale claims
http` prints some parts only.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import shutil
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx

from benchmarks.long_forecast import forecasts
from benchmarks.long_store import ME, RARE, prompt, with_history, with_queue
from benchmarks.queue import BOUNDS, Prober
from gateway.jobs.job import State
from gateway.store import guarded
from gateway.store.base import WorkerInfo
from gateway.store.sqlite import SqliteStore
from tests.support import a_job, a_plan
from tests.support.live import Live

SMALL = 100
TIMES = 220
QUEUES: dict[str, dict[str, Any]] = {
    "a hundred owners": {"owners": 100},
    "one owner": {"owners": 1},
    "as many owners as jobs": {"owners": 10_000},
    "half of the jobs held": {"owners": 100},
    "classes and moves": {"owners": 100, "classes": True},
    "waiting for hours": {"owners": 300, "classes": True, "every_s": 1.0},
}


T = TypeVar("T")


def line_of(took: Sequence[float]) -> str:
    """Median and 99th percentile in milliseconds."""
    return f"p50 {statistics.median(took):6.2f} ms, p99 {statistics.quantiles(took, n=100)[98]:6.2f} ms"


async def timed(work: Callable[[], Awaitable[object]], times: int) -> list[float]:
    took = []
    for _ in range(times):
        began = time.perf_counter()
        await work()
        took.append((time.perf_counter() - began) * 1000)
    return took


# ---- claims ------------------------------------------------------------------------------------------


class Took:
    """Milliseconds of one kind of operation: on the clock, and of this process's processor."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    async def of(self, work: Awaitable[T]) -> T:
        wall, cpu = time.perf_counter(), time.process_time()
        result = await work
        self.wall.append((time.perf_counter() - wall) * 1000)
        self.cpu.append((time.process_time() - cpu) * 1000)
        return result


async def claims(history: Path, folder: Path, waiting: int) -> None:
    print(f"claim and submit, each on disk, with {SMALL} and {waiting} waiting jobs; then the ratio of the p99s")
    for name, kind in QUEUES.items():
        results = []
        for count in (SMALL, waiting):
            place = folder / f"{name} {count}"
            options = {**kind, "owners": min(kind["owners"], count)}
            await with_queue(history, place, count, **options)
            results.append(await _claims_of(place, name, options["owners"]))
            shutil.rmtree(place)
        for at, what in enumerate(("claim", "submit")):
            small, large = (result[at] for result in results)
            for clock, pair in (("", (small.wall, large.wall)), (" cpu", (small.cpu, large.cpu))):
                last = [statistics.quantiles(took, n=100)[98] for took in pair]
                both = ";  ".join(line_of(took) for took in pair)
                print(f"  {name:24} {what + clock:10} {both};  {last[1] / last[0]:.2f}")


async def _claims_of(place: Path, name: str, owners: int) -> tuple[Took, Took]:
    """Claims and submits; for each claimed job another one is submitted."""
    store = SqliteStore(place)
    await store.open()
    held = frozenset(job.id for job in store.order("engine")[::2]) if name == "half of the jobs held" else frozenset()
    worker = WorkerInfo(id="w", held_jobs=held)
    gc.collect()
    gc.freeze()  # as the gateway does after its start
    claimed, submitted = Took(), Took()
    for n in range(TIMES):
        if name == "classes and moves" and n % 10 == 0:
            line = store.order("engine")
            await store.move(line[n % 50].id, n % 3)
        lease = await claimed.of(store.claim(worker))
        assert lease is not None
        new = a_job(owner=ME if owners == 1 else f"client:{n % owners}", plan=a_plan(prompt=prompt(n)))
        await submitted.of(store.submit(new, BOUNDS))
    await store.close()
    return claimed, submitted


# ---- lists -------------------------------------------------------------------------------------------


async def lists(place: Path, jobs: int, times: int = 100) -> None:
    store = SqliteStore(place)
    await store.open()
    deep = jobs // 10
    among = frozenset(job.id for job in await store.list_jobs(states=[State.SUCCEEDED], limit=jobs))
    gallery = partial(store.list_jobs, owner=ME, among=among, has_images=True, limit=50)
    reads: dict[str, Callable[[], Awaitable[object]]] = {
        "50 jobs": lambda: store.list_jobs(owner=ME, limit=51),
        "50 jobs, deep": lambda: store.list_jobs(owner=ME, limit=51, before=deep),
        "of a state": lambda: store.list_jobs(owner=ME, states=[State.FAILED], limit=51),
        "of a state that none has": lambda: store.list_jobs(owner=ME, states=[State.RUNNING], limit=51),
        "of a protocol": lambda: store.list_jobs(owner=ME, protocol="sdapi", limit=51, before=deep),
        "of a protocol that none has": lambda: store.list_jobs(owner=ME, protocol="gateway", limit=51),
        "of state and protocol, none": lambda: store.list_jobs(
            owner=ME, states=[State.RUNNING, State.QUEUED], protocol="sdapi", limit=51
        ),
        "1,000 tasks of mflux-server": lambda: store.list_jobs(
            owner=ME, states=[State.SUCCEEDED, State.FAILED], protocol="mflux-server", hidden=False, limit=1000
        ),
        "of another client": lambda: store.list_jobs(owner="client:nobody", limit=51),
        "gallery": gallery,
        "gallery, deep": lambda: gallery(before=deep),
        "gallery of a model": lambda: gallery(model="z-image-turbo"),
        "gallery of a model that none has": lambda: gallery(model="none"),
        "search, common words": lambda: gallery(words=["lighthouse", "fog"]),
        "search, a rare word": lambda: gallery(words=[RARE]),
        "search, no match": lambda: gallery(words=["nothing-has-this"]),
        "search, two letters, no match": lambda: gallery(words=["qx"]),
        "100 waiting": lambda: store.waiting(limit=100),
        "100 waiting, deep": lambda: store.waiting(limit=100, offset=9000),
        "missed events, unknown": lambda: store.missed_events(ME, None),
        "statistics": store.stats,
    }
    began = time.perf_counter()
    await store.index_prompts()
    print(f"prompts indexed in {time.perf_counter() - began:.1f} s with pauses; lists by the store")
    for name, read in reads.items():
        count = 10 if (await timed(read, 1))[0] > 100 else times
        print(f"  {name:34} {line_of(await timed(read, count))}")
    await store.close()


PATHS = (
    "/health/live",
    "/api/v1/jobs",
    "/api/v1/jobs?cursor={deep}",
    "/api/v1/jobs?status=failed",
    "/api/v1/jobs?status=generating",
    "/api/v1/jobs?status=queued",
    "/api/v1/jobs?protocol=sdapi",
    "/api/v1/jobs?protocol=none-has-this",
    "/api/v1/images",
    "/api/v1/images?cursor={deep}",
    "/api/v1/images?model=z-image-turbo",
    "/api/v1/images?search=lighthouse%20fog",
    f"/api/v1/images?search={RARE}",
    "/api/v1/images?search=nothing-has-this",
    "/api/v1/queue?limit=50",
    "/api/v1/queue?limit=50&offset=9000",
    "/api/v1/stats",
    "/api/tasks",
    "/sdapi/v1/progress",
    "/internal/pending-tasks",
    "/v1/models",
    "/metrics",
)


def over_http(place: Path, jobs: int, waiting: int, times: int = 100) -> None:
    """Lists over HTTP, start against start with an empty store, and the answers while jobs run."""
    config = {
        "retention": {"jobs": 10 * jobs, "days": 3650},
        "store": {"backup_hours": None},
        "queue": {"waiting": 4 * waiting},
    }
    starts: dict[str, list[float]] = {"empty": [], "long": []}
    for n in range(4):
        for name, folder in (("empty", place.parent / f"empty {n}"), ("long", place)):
            folder.mkdir(exist_ok=True)
            began = time.perf_counter()
            gateway = Live(folder, config=config, fake_script={"step_seconds": 0.1}).start()
            starts[name].append(time.perf_counter() - began)
            gateway.stop()
    empty, long = statistics.median(starts["empty"]), statistics.median(starts["long"])
    print(f"start until ready: {empty:.2f} s with an empty store, {long:.2f} s with this one")
    gateway = Live(place, config=config, fake_script={"step_seconds": 0.1}).start()
    try:
        with httpx.Client(base_url=gateway.url, timeout=60, headers={"X-Client-Id": "me"}) as client:
            print("over HTTP, while a job runs")
            for path in PATHS:
                path = path.format(deep=jobs // 10)
                if client.get(path).status_code == 404:
                    continue
                took = []
                for _ in range(times):
                    began = time.perf_counter()
                    client.get(path).raise_for_status()
                    took.append((time.perf_counter() - began) * 1000)
                print(f"  {path:44} {line_of(took)}")
            body = {"prompt": prompt(1), "width": 64, "height": 64, "steps": 1}
            prober = Prober(gateway.url)
            prober.start()
            took, moved, cancelled = [], [], []
            for n in range(times):
                began = time.perf_counter()
                job = client.post("/api/v1/generate", json=body).raise_for_status().json()["job_id"]
                took.append((time.perf_counter() - began) * 1000)
                if n % 5 == 0:
                    began = time.perf_counter()
                    client.post(f"/api/v1/jobs/{job}/move", json={"to": "front"})
                    moved.append((time.perf_counter() - began) * 1000)
                    began = time.perf_counter()
                    client.delete(f"/api/v1/jobs/{job}").raise_for_status()
                    cancelled.append((time.perf_counter() - began) * 1000)
            print(f"  {'POST /api/v1/generate':44} {line_of(took)}")
            print(f"  {'move to the front':44} {line_of(moved)}")
            print(f"  {'cancel':44} {line_of(cancelled)}")
            print(f"  /health/live meanwhile: {prober.stop()}")
    finally:
        gateway.stop()


# ---- retention ---------------------------------------------------------------------------------------


async def compaction(place: Path) -> None:
    guarded.PAUSE_S = 0.0
    store = SqliteStore(place)
    await store.open()

    def size() -> str:
        db = store._database._write_db
        events, jobs = (db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in ("events", "jobs"))
        bytes_ = [(place / f"jobs.sqlite3{end}").stat().st_size / 2**20 for end in ("", "-wal")]
        return f"{jobs} jobs, {events} rows of events, {bytes_[0]:.0f} MB, WAL {bytes_[1]:.0f} MB"

    print("as written:", size())
    began = time.perf_counter()
    await store.compact()
    print(f"compacted: {size()} ({time.perf_counter() - began:.1f} s)")
    began = time.perf_counter()
    while ended := await store.ended_before(0.0, keep_newest=5000):
        await store.delete([job.id for job in ended])
    print(f"with 5,000 ended jobs: {size()} ({time.perf_counter() - began:.1f} s)")
    began = time.perf_counter()
    await store.compact()
    print(f"compacted again: {size()} ({time.perf_counter() - began:.1f} s)")
    await store.close()


PARTS = ("claims", "forecasts", "lists", "http", "compaction")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=PARTS, help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--waiting", type=int, default=10_000)
    parser.add_argument("--history", type=int, default=100_000)
    parser.add_argument("--store", type=Path, help="a folder that keeps the filled store for the next time")
    asked = parser.parse_args()
    if "forecasts" in asked.parts:
        forecasts(asked.waiting)
    if not set(asked.parts) - {"forecasts"}:
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        history = (asked.store or folder) / "history"
        if not history.exists():
            asyncio.run(with_history(history, asked.history, files=history.parent / "output"))
        long = folder / "long"
        long.mkdir()
        if set(asked.parts) - {"claims"}:
            asyncio.run(with_queue(history, long / "data", asked.waiting, owners=1))
        if "claims" in asked.parts:
            asyncio.run(claims(history, folder, asked.waiting))
        if "lists" in asked.parts:
            asyncio.run(lists(long / "data", asked.history))
        if "http" in asked.parts:
            (long / "output").symlink_to(history.parent / "output")
            over_http(long, asked.history, asked.waiting)
        if "compaction" in asked.parts:
            asyncio.run(compaction(long / "data"))


if __name__ == "__main__":
    main()
