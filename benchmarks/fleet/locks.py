"""Times of the job store in PostgreSQL: claims of long queues, and how many writes its lock lets through."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.fleet.speed import middle
from engine.protocol import Succeeded
from gateway.store.base import Bounds, WorkerInfo
from gateway.store.postgres.store import PostgresStore
from tests.support import a_job
from tests.support.postgres import OPTIONS, Server
from tests.support.store import image

BOUNDS = Bounds(waiting=1_000_000)
DURABLE = tuple(option for option in OPTIONS if option != "fsync=off")
OWNERS = 100


async def _filled(url: str, folder: Path, waiting: int) -> PostgresStore:
    store = PostgresStore(url, folder)
    await store.open()
    for n in range(waiting):
        await store.submit(a_job(owner=f"o{n % OWNERS}"), BOUNDS)
    return store


async def _claims(folder: Path, server: Server, many: int, few: int, times: int) -> list[dict[str, float]]:
    """Rounds of claims in a short and a long queue, in alternation; each claimed job is committed and replaced."""
    stores = {waiting: await _filled(server.new_url(), folder / f"{waiting}", waiting) for waiting in (few, many)}
    rounds = []
    try:
        for _ in range(5):
            took: dict[int, list[float]] = {few: [], many: []}
            for n in range(times):
                for waiting, store in stores.items():
                    began = time.perf_counter()
                    lease = await store.claim(WorkerInfo("w", lease_s=60))
                    took[waiting].append(time.perf_counter() - began)
                    assert lease is not None
                    await store.commit(lease, Succeeded())
                    await store.submit(a_job(owner=f"o{n % OWNERS}"), BOUNDS)
            medians = {waiting: 1000 * statistics.median(values) for waiting, values in took.items()}
            rounds.append(
                {f"{few}_ms": medians[few], f"{many}_ms": medians[many], "ratio": medians[many] / medians[few]}
            )
    finally:
        for store in stores.values():
            await store.close()
    return rounds


def claims(folder: Path, server: Server, *, many: int, few: int, times: int) -> dict[str, Any]:
    """Medians of a claim at `few` and at `many` waiting jobs, and their ratio."""
    return {"claim": middle(asyncio.run(_claims(folder, server, many, few, times)))}


def _lock_only(url: str, seconds: float) -> int:
    """Transactions of one connection that take the lock and add one to a counter."""
    done, end = 0, time.monotonic() + seconds
    with psycopg.connect(url, autocommit=True) as db:
        while time.monotonic() < end:
            with db.pipeline():
                db.execute("BEGIN")
                db.execute("SELECT pg_advisory_xact_lock(1)")
                db.execute("UPDATE counted SET n = n + 1")
                db.execute("COMMIT")
            done += 1
    return done


def _images(url: str, seconds: float, folder: Path) -> int:
    """Images of one process: a submit, a claim, and a commit with the image, each a transaction of the store."""

    async def run() -> int:
        store = PostgresStore(url, folder)
        await store.open()
        done, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            await store.submit(a_job(), BOUNDS)
            if (lease := await store.claim(WorkerInfo("w", lease_s=60))) is not None:
                outcome, _ = await store.commit(lease, Succeeded(), image(0))
                assert outcome == "committed"
                done += 1
        await store.close()
        return done

    return asyncio.run(run())


def _together(call: Any, processes: int, arguments: Sequence[tuple[Any, ...]]) -> int:
    with get_context("spawn").Pool(processes) as pool:
        return sum(pool.starmap(call, arguments))


def lock(folder: Path, _: Server, *, seconds: float, processes: Sequence[int] = (1, 2, 4)) -> dict[str, Any]:
    """Transactions a second through one lock, and images a second through the store; PostgreSQL syncs to the disk."""
    server = Server(DURABLE)
    try:
        figures: dict[str, Any] = {"transactions of the lock a second": {}, "images a second": {}}
        for count in processes:
            url = server.new_url()
            with psycopg.connect(url, autocommit=True) as db:
                db.execute("CREATE TABLE counted (n BIGINT)")
                db.execute("INSERT INTO counted VALUES (0)")
            done = _together(_lock_only, count, [(url, seconds)] * count)
            figures["transactions of the lock a second"][str(count)] = round(done / seconds)
            url = server.new_url()
            places = [(url, seconds, folder / f"{count}-{n}") for n in range(count)]
            folder.mkdir(parents=True, exist_ok=True)
            done = _together(_images, count, places)
            figures["images a second"][str(count)] = round(done / seconds)
        return figures
    finally:
        server.remove()
