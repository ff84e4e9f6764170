"""What a long queue costs: python -m benchmarks.queue

Ten thousand jobs of a hundred owners wait; how long claim, position, a page of the queue and submit take then (R-11).
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from gateway.job import Priority
from gateway.store.base import Bounds, WorkerInfo
from gateway.store.sqlite import SqliteStore
from tests.support import a_job

OWNERS = 100
BOUNDS = Bounds(waiting=1_000_000)


async def timed(work: Callable[[], Awaitable[object]], times: int) -> str:
    """Median and 99th percentile in milliseconds."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        await work()
        took.append((time.perf_counter() - began) * 1000)
    return f"p50 {statistics.median(took):.1f} ms, p99 {statistics.quantiles(took, n=100)[98]:.1f} ms"


async def measure(waiting: int, times: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder))
        await store.open()
        store._database._write_db.execute("PRAGMA synchronous=OFF")  # only while it is filled
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
        await store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waiting", type=int, default=10_000)
    parser.add_argument("--times", type=int, default=200)
    asked = parser.parse_args()
    asyncio.run(measure(asked.waiting, asked.times))


if __name__ == "__main__":
    main()
