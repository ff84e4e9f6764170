"""A long queue costs those who look at it a page, and nobody else anything (R-11)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gateway.store import queries
from gateway.store.base import Bounds, WorkerInfo
from gateway.store.sqlite import SqliteStore
from tests.support import a_job

BOUNDS = Bounds(waiting=10_000)


async def test_a_snapshot_of_a_long_queue_has_its_first_jobs_and_the_count_of_all(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    await store.open()
    ids = [(await store.submit(a_job(), BOUNDS)).job.id for _ in range(queries.LIVE_MOST + 20)]
    lease = await store.claim(WorkerInfo(id="w"))
    assert lease is not None
    seen = await store.missed_events("me", None)
    assert seen.live is not None
    assert [job.id for job in seen.live] == ids[: queries.LIVE_MOST]
    assert seen.live_count == len(ids)
    page = await store.waiting(owner="me", limit=5, offset=10)
    assert [job.id for job in page] == ids[11:16]
    await store.close()


async def test_inputs_in_use_are_collected_from_all_pages_of_jobs(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    await store.open()
    kept, dropped = await store.put_blob(b"kept"), await store.put_blob(b"dropped")
    new = a_job()
    await store.submit(replace(new, plan=new.plan.model_copy(update={"references": (kept,)})), BOUNDS)
    assert await store.drop_unused_blobs(grace_s=-60.0) == 1
    assert await store.blob(kept) == b"kept"
    await store.close()
    assert not (tmp_path / "blobs" / dropped).exists()
