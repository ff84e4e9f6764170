"""A long queue costs those who look at it a page, and nobody else anything (R-11)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.events import positions
from gateway.store import queries
from gateway.store.base import Bounds, WaitingPlan, WorkerInfo
from gateway.store.sqlite import SqliteStore
from tests.support import a_job, a_plan
from tests.support.service import service_in, until
from tests.support.store import image

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


async def test_start_reads_the_first_waiting_jobs_and_the_others_in_the_background(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten thousand waiting jobs delay no start; their forecasts follow."""
    monkeypatch.setattr(positions, "READ_AT_ONCE", 5)
    store = SqliteStore(tmp_path / "data")
    await store.open()
    await store.pause("engine", True)
    ids = [(await store.submit(a_job(), BOUNDS)).job.id for _ in range(23)]
    await store.close()
    reads: list[int] = []
    original = SqliteStore.plans

    async def plans(store: SqliteStore, job_ids: Sequence[str]) -> list[WaitingPlan]:
        reads.append(len(job_ids))
        return await original(store, job_ids)

    monkeypatch.setattr(SqliteStore, "plans", plans)
    async with service_in(tmp_path) as service:
        first, last = await service.get(ids[0]), await service.get(ids[-1])
        assert service.events.forecast(first) is not None
        await until(lambda: service.events.forecast(last) is not None)
        await until(lambda: sum(reads) == len(ids))
        assert max(reads) == 5
        before, after = (service.events.forecast(job) for job in (first, last))
        assert before is not None
        assert after is not None
        assert after.wait_s > before.wait_s


async def test_plans_of_waiting_jobs_have_what_was_drawn_of_them(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    await store.open()
    jobs = [(await store.submit(a_job(plan=a_plan(seeds=(1, 2, 3))), BOUNDS)).job for _ in range(2)]
    lease = await store.claim(WorkerInfo(id="w"))
    assert lease is not None
    assert [one.job_id for one in await store.plans([job.id for job in jobs])] == [jobs[1].id]
    await store.record(lease, image(0))
    await store.release(lease, "released")
    plans = await store.plans([*(job.id for job in jobs), "0" * 32])
    assert sorted((one.job_id, one.done) for one in plans) == sorted([(jobs[0].id, 1), (jobs[1].id, 0)])
    assert all(one.plan == jobs[0].plan for one in plans)
    assert store.models("engine") == {"flux2-tiny"}
    assert store.models("network") == frozenset()
    await store.close()
