"""What the tests of job stores share: the stores there are, and short ways to use one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.jobs.facts import ImageDone
from gateway.jobs.job import Job
from gateway.store.base import Bounds, JobStore, Lease, WorkerInfo
from gateway.store.sqlite import SqliteStore
from tests.support import a_job
from tests.support.postgres import postgres_store

STORES: dict[str, Callable[[Path, Callable[[], float]], JobStore]] = {
    "sqlite": SqliteStore,
    "postgres": postgres_store,
}
WORKER = WorkerInfo(id="w")
NO_BOUNDS = Bounds(waiting=100_000)
Test = Callable[[JobStore], Awaitable[None]]


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@asynccontextmanager
async def opened(make: Callable[[], JobStore]) -> AsyncIterator[JobStore]:
    store = make()
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def submit(store: JobStore, **changes: object) -> Job:
    return (await store.submit(a_job(**changes), NO_BOUNDS)).job


async def claim(store: JobStore) -> Lease:
    lease = await store.claim(WORKER)
    assert lease is not None
    return lease


def image(n: int) -> ImageDone:
    return ImageDone(image=n, seed=n, file=f"{n}.png", width_px=64, height_px=64, drawn_px=(64, 64), seconds=0.1)
