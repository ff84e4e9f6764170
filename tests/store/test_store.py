"""The conformance suite of every JobStore. A second implementation joins by one line in `STORES` of store_support."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engine.protocol import Cancelled, Failed, Succeeded
from gateway.errors import IdempotencyConflict, JobNotFound, OwnerQueueFull, QueueFull
from gateway.jobs.facts import CancelRequested, ImageDone, PageRead, Queued, Requeued, Started, TextLine
from gateway.jobs.job import Priority, State
from gateway.jobs.plans import Ocr
from gateway.store.base import Bounds, JobStore, WorkerInfo
from gateway.store.sqlite import SqliteStore
from tests.support import a_job, a_plan
from tests.support.store import NO_BOUNDS, WORKER, Clock, claim, image, opened, submit


async def test_job_is_read_from_the_store_as_it_was_submitted(make_store: Callable[[], JobStore]) -> None:
    async with opened(make_store) as store:
        job = await submit(store, plan=a_plan(prompt="ein roter Kreis ☀"), priority=Priority.HIGH)
        assert await store.get(job.id) == job
        assert (job.state, job.seq, job.events[0].fact) == (State.QUEUED, 1, Queued())
        with pytest.raises(JobNotFound):
            await store.get("0" * 32)


async def test_queue_order_is_priority_first_then_submission(make_store: Callable[[], JobStore]) -> None:
    async with opened(make_store) as store:
        classes = [Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.NORMAL, Priority.HIGH]
        jobs = [await submit(store, priority=p) for p in classes]
        expected = [jobs[i].id for i in (2, 4, 1, 3, 0)]
        assert [job.id for job in await store.waiting()] == expected
        assert [await store.position(job_id) for job_id in expected] == [0, 1, 2, 3, 4]
        assert [(await claim(store)).job.id for _ in jobs] == expected
        assert await store.claim(WORKER) is None


async def test_queue_position_counts_the_running_job(make_store: Callable[[], JobStore]) -> None:
    async with opened(make_store) as store:
        first, second = await submit(store), await submit(store)
        lease = await claim(store)
        assert (await store.position(first.id), await store.position(second.id)) == (0, 1)
        await store.commit(lease, Succeeded())
        assert (await store.position(first.id), await store.position(second.id)) == (None, 0)


async def test_a_worker_gets_only_models_it_can_run_and_no_job_that_is_held(make_store: Callable[[], JobStore]) -> None:
    async with opened(make_store) as store:
        await submit(store, plan=a_plan(model="big"))
        small = await submit(store, plan=a_plan(model="small"))
        assert await store.claim(WorkerInfo(id="w", models=frozenset({"other"}))) is None
        assert await store.claim(WorkerInfo(id="w", lane="network")) is None
        able = WorkerInfo(id="w", models=frozenset({"small", "other"}))
        assert await store.claim(replace(able, held_jobs=frozenset({small.id}))) is None
        lease = await store.claim(able)
        assert lease is not None
        assert lease.job.id == small.id


async def test_each_lane_claims_its_own_jobs_and_counts_its_own_queue(make_store: Callable[[], JobStore]) -> None:
    async with opened(make_store) as store:
        drawn = [await submit(store), await submit(store)]
        read = [await submit(store, plan=Ocr(document=d * 64), priority=Priority.HIGH) for d in "ab"]
        assert [await store.position(job.id) for job in (*drawn, *read)] == [0, 1, 0, 1]
        cpu = await store.claim(WorkerInfo(id="c", lane="cpu"))
        assert cpu is not None
        assert cpu.job.id == read[0].id
        assert (await claim(store)).job.id == drawn[0].id
        assert await store.position(read[1].id) == 1
        assert await store.claim(WorkerInfo(id="n", lane="network")) is None
        await store.commit(cpu, Succeeded())
        assert await store.position(read[1].id) == 0


async def test_ocr_pages_are_kept_over_a_release_and_a_restart(make_store: Callable[[], JobStore]) -> None:
    line = TextLine(box=((0, 0), (9.5, 0), (9.5, 8), (0, 8)), text="Größe ☀", score=0.9)
    page = PageRead(page=0, width_px=64, height_px=64, lines=(line,), seconds=0.1)
    worker = WorkerInfo(id="c", lane="cpu")
    async with opened(make_store) as store:
        job = await submit(store, plan=Ocr(document="a" * 64, pages=(3, 1), dpi=150))
        lease = await store.claim(worker)
        assert lease is not None
        await store.record(lease, page)
        assert await store.release(lease, "engine_crash") is not None
        assert await store.claim(worker) is not None
    async with opened(make_store) as store:
        again = await store.get(job.id)
        assert (again.plan, again.pages, again.text) == (job.plan, (page,), line.text)
        assert (again.state, again.crashes) == (State.QUEUED, 1)


async def test_store_facts_have_sequence_numbers_without_gaps_and_can_be_replayed_from_any(
    make_store: Callable[[], JobStore],
) -> None:
    async with opened(make_store) as store:
        job = await submit(store, plan=a_plan(seeds=(1, 2)))
        lease = await claim(store)
        for n in range(2):
            await store.record(lease, image(n))
        await store.commit(lease, Succeeded())
        events = await store.events_after(job.id, 0)
        assert [e.seq for e in events] == [1, 2, 3, 4, 5]
        assert [type(e.fact) for e in events] == [Queued, Started, ImageDone, ImageDone, Succeeded]
        for after in range(6):
            assert await store.events_after(job.id, after) == events[after:]


async def test_lease_that_is_stale_can_write_nothing_to_the_store(make_store: Callable[[], JobStore]) -> None:
    async with opened(make_store) as store:
        job = await submit(store)
        stale = await claim(store)
        await store.release(stale, "engine_crash")
        assert (await store.get(job.id)).crashes == 1
        fresh = await claim(store)
        assert (fresh.job.id, fresh.job.attempt) == (job.id, 2)
        assert await store.record(stale, image(0)) is None
        assert await store.heartbeat(stale) == "lost"
        assert await store.release(stale, "engine_crash") is None
        assert (await store.commit(stale, Succeeded()))[0] == "fenced"
        assert (await store.commit(fresh, Succeeded()))[0] == "committed"
        assert (await store.get(job.id)).state is State.SUCCEEDED


async def test_store_commit_retried_is_recognized_as_already_done(make_store: Callable[[], JobStore]) -> None:
    async with opened(make_store) as store:
        await submit(store)
        lease = await claim(store)
        assert (await store.commit(lease, Succeeded()))[0] == "committed"
        verdict, job = await store.commit(lease, Succeeded())
        assert (verdict, job.seq) == ("already_mine", 3)
        failed = Failed(code="engine_crash", message="x")
        assert (await store.commit(lease, failed))[0] == "fenced"


async def test_job_released_keeps_its_former_queue_position(make_store: Callable[[], JobStore]) -> None:
    async with opened(make_store) as store:
        first, _ = await submit(store), await submit(store)
        lease = await claim(store)
        released = await store.release(lease, "released")
        assert released is not None
        assert released.crashes == 0
        assert (await claim(store)).job.id == first.id


async def test_job_cancel_ends_a_queued_one_signals_a_running_one_and_ignores_an_ended_one(
    make_store: Callable[[], JobStore],
) -> None:
    async with opened(make_store) as store:
        queued = await submit(store)
        assert (await store.cancel(queued.id, "user")).state is State.CANCELLED
        running = await submit(store)
        lease = await claim(store)
        assert await store.heartbeat(lease) == "ok"
        asked = await store.cancel(running.id, "client_gone")
        assert (asked.state, asked.events[-1].fact) == (State.RUNNING, CancelRequested(reason="client_gone"))
        assert (await store.cancel(running.id, "user")).seq == asked.seq
        assert await store.heartbeat(lease) == "cancel"
        await store.commit(lease, Cancelled(reason="client_gone"))
        assert (await store.cancel(running.id, "user")).seq == asked.seq + 1
        with pytest.raises(JobNotFound):
            await store.cancel("0" * 32, "user")


async def test_an_idempotency_key_finds_its_job_and_refuses_another_body(make_store: Callable[[], JobStore]) -> None:
    async with opened(make_store) as store:
        new = a_job(idempotency_key="k", fingerprint="a")
        first = await store.submit(new, NO_BOUNDS)
        again = await store.submit(a_job(idempotency_key="k", fingerprint="a"), NO_BOUNDS)
        assert (first.created, again.created, again.job.id) == (True, False, new.id)
        with pytest.raises(IdempotencyConflict):
            await store.submit(a_job(idempotency_key="k", fingerprint="b"), NO_BOUNDS)
        other = await store.submit(a_job(idempotency_key="k", fingerprint="b", owner="you"), NO_BOUNDS)
        assert other.created


async def test_an_idempotency_key_is_forgotten_after_a_day(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(lambda: SqliteStore(tmp_path, clock)) as store:
        await store.submit(a_job(idempotency_key="k", fingerprint="a"), NO_BOUNDS)
        clock.now += 24 * 3600 + 1
        assert (await store.submit(a_job(idempotency_key="k", fingerprint="b"), NO_BOUNDS)).created


async def test_a_hundred_submits_at_once_with_one_key_make_one_job(make_store: Callable[[], JobStore]) -> None:
    async with opened(make_store) as store:
        tries = [store.submit(a_job(idempotency_key="k"), NO_BOUNDS) for _ in range(100)]
        done = await asyncio.gather(*tries)
        assert len({s.job.id for s in done}) == 1
        assert sum(s.created for s in done) == 1


async def test_the_queue_is_bounded_in_all_and_for_one_owner(make_store: Callable[[], JobStore]) -> None:
    async with opened(make_store) as store:
        bounds = Bounds(waiting=3, waiting_per_owner=2)
        for owner in ("me", "me"):
            await store.submit(a_job(owner=owner), bounds)
        with pytest.raises(OwnerQueueFull):
            await store.submit(a_job(owner="me"), bounds)
        await store.submit(a_job(owner="you"), bounds)
        with pytest.raises(QueueFull):
            await store.submit(a_job(owner="third"), bounds)


async def test_store_reopened_recovers_each_kind_of_job_as_specified(make_store: Callable[[], JobStore]) -> None:
    """Decided: attached jobs without a key are gone with their client, all others wait, running ones first."""
    async with opened(make_store) as store:
        running = await submit(store, plan=a_plan(seeds=(1, 2)))
        lease = await claim(store)
        await store.record(lease, image(0))
        queued = await submit(store)
        attached = await submit(store, attached=True)
        kept = await submit(store, attached=True, idempotency_key="k")
    async with opened(make_store) as store:
        assert [job.id for job in await store.waiting()] == [running.id, queued.id, kept.id]
        again = await store.get(running.id)
        assert again.events[-1].fact == Requeued(reason="gateway_restart")
        assert (again.first_undrawn, again.crashes) == (1, 0)
        assert (await store.get(attached.id)).events[-1].fact == Cancelled(reason="client_gone")
        assert (await claim(store)).job.attempt == 2


async def test_a_running_job_that_was_asked_to_stop_is_cancelled_on_reopening(
    make_store: Callable[[], JobStore],
) -> None:
    async with opened(make_store) as store:
        job = await submit(store)
        await claim(store)
        await store.cancel(job.id, "user")
    async with opened(make_store) as store:
        assert (await store.get(job.id)).state is State.CANCELLED


async def test_an_expired_lease_is_reaped_and_a_renewed_one_is_not(tmp_path: Path) -> None:
    clock = Clock()
    store = SqliteStore(tmp_path, clock)
    await store.open()
    await submit(store)
    lease = await store.claim(WorkerInfo(id="far", lease_s=30))
    assert lease is not None
    clock.now += 20
    await store.heartbeat(lease, lease_s=30)
    clock.now += 20
    assert await store.reap() == []
    clock.now += 20
    assert [job.events[-1].fact for job in await store.reap()] == [Requeued(reason="lease_expired")]
    assert await store.heartbeat(lease) == "lost"
    await store.close()
