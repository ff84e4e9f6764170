"""Cost of a long queue: python -m benchmarks.queue

Ten thousand jobs of a hundred owners wait. It measures claim, position, a page of the queue and submit, and the longest
`/health/live` of a real gateway while its queue is read (R-11).
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import statistics
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import httpx

from gateway.jobs.job import Priority
from gateway.store.base import Bounds, WorkerInfo
from gateway.store.sqlite import SqliteStore
from tests.support import a_job, a_plan
from tests.support.live import Live

OWNERS = 100
STREAMS = 5
"""More connections would measure this process, whose threads read them."""
BOUNDS = Bounds(waiting=1_000_000)


async def timed(work: Callable[[], Awaitable[object]], times: int) -> str:
    """Median and 99th percentile in milliseconds."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        await work()
        took.append((time.perf_counter() - began) * 1000)
    return f"p50 {statistics.median(took):.2f} ms, p99 {statistics.quantiles(took, n=100)[98]:.1f} ms"


WATCHED = (
    ("a page of the queue", "/api/v1/queue?limit=100"),
    ("the whole list of the queue", "/api/v1/queue"),
    ("a list of 100 jobs", "/api/v1/jobs"),
    ("tasks of mflux-server", "/api/tasks"),
    ("the studio's page", "/"),
    ("metrics", "/metrics"),
    ("progress of sdapi", "/sdapi/v1/progress"),
    ("a cancel", None),
)


def gateway_with(folder: Path, waiting: int, owners: int) -> tuple[Live, list[str]]:
    """A paused gateway with so many waiting jobs, and their ids."""

    async def fill() -> list[str]:
        store = SqliteStore(folder / "data")
        await store.open()
        store._database._write_db.execute("PRAGMA synchronous=OFF")  # only while the queue is filled
        await store.pause("engine", True)
        ids = [(await store.submit(a_job(owner=f"client:o{n % owners}"), BOUNDS)).job.id for n in range(waiting)]
        await store.close()
        return ids

    ids = asyncio.run(fill())
    return Live(folder, config={"queue": {"waiting": 2 * waiting}}).start(), ids


class Prober(threading.Thread):
    """Thread that requests `/health/live` every few milliseconds on a connection of its own."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._over = threading.Event()
        self.took: list[float] = []

    def run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as client:
            while not self._over.wait(0.003):
                began = time.perf_counter()
                client.get("/health/live")
                self.took.append((time.perf_counter() - began) * 1000)

    def stop(self) -> str:
        self._over.set()
        self.join()
        middle, high = statistics.median(self.took), statistics.quantiles(self.took, n=100)[98]
        return f"p50 {middle:.1f} ms, p99 {high:.1f} ms, most {max(self.took):.1f} ms"


def lag(waiting: int, owners: int, times: int = 10) -> None:
    """Times of `/health/live` while other clients read a long queue."""
    with tempfile.TemporaryDirectory() as folder:
        gateway, ids = gateway_with(Path(folder), waiting, owners)
        print(f"/health/live while {waiting} jobs of {owners} owners wait, and somebody asks for")
        try:
            with httpx.Client(
                base_url=gateway.url, timeout=60, headers={"X-Client-Id": f"o{min(1, owners - 1)}"}
            ) as client:
                for name, path in (("nothing", "/health/live"), *WATCHED):
                    prober = Prober(gateway.url)
                    prober.start()
                    took = []
                    for n in range(times):
                        began = time.perf_counter()
                        if path is None:
                            job = ids[owners * (n + 10) + min(1, owners - 1)]
                            client.delete(f"/api/v1/jobs/{job}").raise_for_status()
                        else:
                            client.get(path).raise_for_status()
                        took.append((time.perf_counter() - began) * 1000)
                        time.sleep(0.05)
                    print(f"  {name}: {prober.stop()}; its answer p50 {statistics.median(took):.0f} ms")
            prober = Prober(gateway.url)
            prober.start()
            names = [f"o{n}" for n in range(min(owners, STREAMS))]
            streams = [threading.Thread(target=listen, args=(gateway.url, name)) for name in names]
            for stream in streams:
                stream.start()
            for stream in streams:
                stream.join()
            print(f"  {len(names)} streams, their snapshots and places: {prober.stop()}")
        finally:
            gateway.stop()


def listen(url: str, owner: str, seconds: float = 4.0) -> None:
    """Reader of a stream of all jobs."""
    with (
        httpx.Client(base_url=url, timeout=60, headers={"X-Client-Id": owner}) as client,
        client.stream("GET", "/api/v1/events") as answer,
    ):
        answer.raise_for_status()
        end = time.monotonic() + seconds
        for _ in answer.iter_raw():
            if time.monotonic() > end:
                return


async def measure(waiting: int, times: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder))
        await store.open()
        store._database._write_db.execute("PRAGMA synchronous=OFF")  # only while the queue is filled
        ids = []
        for n in range(waiting):
            priority = Priority.NORMAL if n % 5 else Priority.HIGH
            new = a_job(owner=str(n % OWNERS), priority=priority)
            ids.append((await store.submit(new, BOUNDS)).job.id)
        store._database._write_db.execute("PRAGMA synchronous=FULL")

        async def claim_then_position() -> None:
            await store.claim(WorkerInfo(id="w"))
            await store.position(secrets.choice(ids))

        print(f"{waiting} jobs wait")
        print("claim:", await timed(lambda: store.claim(WorkerInfo(id="w")), times))
        print("position, nothing new:", await timed(lambda: store.position(secrets.choice(ids)), times))
        print("claim, then position:", await timed(claim_then_position, times))
        print("a page of 100:", await timed(lambda: store.waiting(limit=100), times))
        print("submit:", await timed(lambda: store.submit(a_job(), BOUNDS), times))
        store._database._write_db.execute("PRAGMA synchronous=OFF")
        for name, prompt in (("a short prompt", "a red circle"), ("a prompt of 52 KB", "a red circle " * 4000)):
            long = partial(a_job, plan=a_plan(prompt=prompt))
            took = await timed(lambda long=long: store.submit(long(), BOUNDS), times)  # type: ignore[misc]
            print(f"submit of {name}, not waiting for the disk:", took)
        await store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waiting", type=int, default=10_000)
    parser.add_argument("--owners", type=int, default=50)
    parser.add_argument("--times", type=int, default=200)
    asked = parser.parse_args()
    asyncio.run(measure(asked.waiting, asked.times))
    lag(asked.waiting, asked.owners)
    lag(asked.waiting, 1)


if __name__ == "__main__":
    main()
