"""What every JobStore owes its queue: order, turns, pause, reorder, and telling of events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.protocol import Succeeded
from gateway.errors import JobNotFound, JobNotWaiting
from gateway.jobs.job import JobEvent, Priority, State
from gateway.jobs.plans import Ocr
from gateway.store.base import JobStore, WorkerInfo
from gateway.store.sqlite import SqliteStore
from tests.support import a_job
from tests.support.store import NO_BOUNDS, WORKER, Clock, claim, image, opened, submit


async def test_queue_claim_position_and_list_agree_about_owners_priority_and_age(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(lambda: SqliteStore(tmp_path, clock)) as store:
        old = await submit(store, priority=Priority.LOW, owner="old")
        clock.now += 1900
        for owner in ("a", "a", "b", "a", "c", "b"):
            await submit(store, owner=owner, priority=Priority.HIGH if owner == "c" else Priority.NORMAL)
        line = [job.id for job in await store.waiting()]
        assert line[0] == old.id
        assert [(await store.get(job_id)).owner for job_id in line[1:]] == ["c", "a", "b", "a", "b", "a"]
        assert [job.id for job in store.order("engine")] == line
        assert [await store.position(job_id) for job_id in line] == list(range(7))
        assert [(await claim(store)).job.id for _ in line] == line
        assert (store.running("engine"), store.depth("engine"), store.depth("cpu")) == (7, 0, 0)


async def test_queue_owner_turn_survives_a_restart(make_store: Callable[[], JobStore]) -> None:
    async with opened(make_store) as store:
        first, *_ = [await submit(store, owner=owner) for owner in "aaab"]
        assert (await claim(store)).job.id == first.id
        await store.cancel(first.id, "user")
        line = [job.owner for job in await store.waiting()]
        assert line == ["b", "a", "a"]
    async with opened(make_store) as store:
        assert [job.owner for job in await store.waiting()] == line


async def test_submit_with_a_worker_claims_where_nothing_else_waits_or_runs(make_store: Callable[[], JobStore]) -> None:
    async with opened(make_store) as store:
        submitted = await store.submit(a_job(owner="a", idempotency_key="k"), NO_BOUNDS, WORKER)
        lease = submitted.lease
        assert lease is not None
        assert (submitted.job.state, lease.job.state, lease.job.attempt) == (State.QUEUED, State.RUNNING, 1)
        assert (store.depth("engine"), store.running("engine"), await store.position(lease.job.id)) == (0, 1, 0)
        again = await store.submit(a_job(owner="a", idempotency_key="k"), NO_BOUNDS, WORKER)
        assert (again.created, again.lease, again.job.id) == (False, None, lease.job.id)
        assert (await store.submit(a_job(owner="a"), NO_BOUNDS, WORKER)).lease is None, "a job runs"
        assert (await store.commit(lease, Succeeded()))[0] == "committed"
        assert (await store.submit(a_job(owner="b"), NO_BOUNDS, WORKER)).lease is None, "a job waits"
        assert [job.owner for job in await store.waiting()] == ["b", "a"], "a has had its turn"
    async with opened(make_store) as store:
        assert [job.owner for job in await store.waiting()] == ["b", "a"]


@pytest.mark.parametrize(
    "worker",
    [
        WorkerInfo(id="w", lane="cpu"),
        WorkerInfo(id="w", models=frozenset({"another"})),
        WorkerInfo(id="w", held_jobs=frozenset({"f" * 32})),
    ],
    ids=("another lane", "another model", "a held job"),
)
async def test_submit_is_not_claimed_by_a_worker_that_cannot_run_it(
    make_store: Callable[[], JobStore], worker: WorkerInfo
) -> None:
    async with opened(make_store) as store:
        submitted = await store.submit(a_job(id="f" * 32), NO_BOUNDS, worker)
        assert (submitted.lease, store.depth("engine")) == (None, 1)


async def test_submit_is_not_claimed_in_a_paused_lane(make_store: Callable[[], JobStore]) -> None:
    async with opened(make_store) as store:
        await store.pause("engine", True)
        assert (await store.submit(a_job(), NO_BOUNDS, WORKER)).lease is None


async def test_facts_of_a_commit_are_recorded_before_the_outcome_or_not_at_all(
    make_store: Callable[[], JobStore],
) -> None:
    async with opened(make_store) as store:
        await submit(store)
        lease = await claim(store)
        await store.record(lease, image(0))
        status, job = await store.commit(lease, Succeeded(), image(1))
        assert (status, [event.fact for event in job.events[-3:]]) == ("committed", [image(0), image(1), Succeeded()])
        assert (await store.commit(lease, Succeeded(), image(1)))[0] == "already_mine"
        assert len((await store.get(job.id)).images) == 2
        await submit(store)
        lost = await claim(store)
        await store.release(lost, "released")
        status, job = await store.commit(lost, Succeeded(), image(0))
        assert (status, job.images, job.state) == ("fenced", (), State.QUEUED)


async def test_lane_paused_gives_no_job_until_resumed_and_other_lanes_continue(
    make_store: Callable[[], JobStore],
) -> None:
    async with opened(make_store) as store:
        await submit(store)
        await submit(store, plan=Ocr(document="a" * 64))
        await store.pause("engine", True)
        assert store.is_paused("engine")
        assert await store.claim(WORKER) is None
        assert await store.claim(WorkerInfo(id="c", lane="cpu")) is not None
    async with opened(make_store) as store:
        assert await store.claim(WORKER) is None
        await store.pause("engine", False)
        assert not store.is_paused("engine")
        await claim(store)


async def test_job_moved_keeps_its_queue_position_among_its_owners_jobs_over_a_restart(
    make_store: Callable[[], JobStore],
) -> None:
    async with opened(make_store) as store:
        a, b, c = [await submit(store, priority=p) for p in (Priority.HIGH, Priority.NORMAL, Priority.LOW)]
        other = await submit(store, owner="you", priority=Priority.HIGH)
        changed = await store.move(c.id, 0)
        assert {job.id for job in changed} == {a.id, b.id, c.id}
        expected = [c.id, other.id, a.id, b.id]
        assert [job.id for job in await store.waiting()] == expected
        with pytest.raises(JobNotFound):
            await store.move("0" * 32, 0)
    async with opened(make_store) as store:
        assert [job.id for job in await store.waiting()] == expected
        lease = await claim(store)
        assert (lease.job.id, lease.job.priority) == (c.id, Priority.LOW)
        with pytest.raises(JobNotWaiting):
            await store.move(c.id, 0)
        await store.release(lease, "released")
        assert [job.id for job in await store.waiting()] == expected


async def test_event_is_published_once_in_sequence_before_the_store_write_returns(
    make_store: Callable[[], JobStore],
) -> None:
    told: list[tuple[State | None, JobEvent]] = []
    store = make_store()
    await store.open(lambda job, event: told.append((job.state, event)))
    try:
        jobs = await asyncio.gather(*(submit(store) for _ in range(20)))
        assert len(told) == 20
        lease = await claim(store)
        await asyncio.gather(store.record(lease, image(0)), *(store.cancel(job.id, "user") for job in jobs))
        await store.commit(lease, Succeeded())
        numbers = [event.number for _, event in told]
        assert numbers == sorted(numbers)
        stored = [event for job in jobs for event in await store.events_after(job.id, 0)]
        assert sorted(stored, key=lambda event: event.number) == [event for _, event in told]
        assert told[20][0] is State.RUNNING
    finally:
        await store.close()


async def test_store_gives_an_owner_the_events_after_any_event_or_the_unfinished_jobs(
    make_store: Callable[[], JobStore],
) -> None:
    async with opened(make_store) as store:
        mine = [await submit(store) for _ in range(2)]
        await submit(store, owner="you")
        await store.cancel(mine[0].id, "user")
        everything = (await store.missed_events("me", 0)).events
        assert [event.number for event in everything] == [1, 2, 4]
        for after in range(5):
            seen = await store.missed_events("me", after)
            assert (seen.number, seen.events) == (4, tuple(e for e in everything if e.number > after))
        page = await store.missed_events("me", 0, limit=2)
        assert (page.number, page.events) == (2, everything[:2])
        for unknown in (None, 5, -1):
            seen = await store.missed_events("me", unknown)
            assert (seen.number, seen.live, seen.events) == (4, (mine[1],), ())
        await store.delete([mine[0].id])
        assert (await store.missed_events("me", 3)).live == (mine[1],)
        assert (await store.missed_events("me", 4)).events == ()
    async with opened(make_store) as store:
        assert (await store.missed_events("me", 3)).live == (mine[1],)


async def test_store_keeps_small_texts_by_name(make_store: Callable[[], JobStore]) -> None:
    async with opened(make_store) as store:
        assert await store.read_state("costs") is None
        for value in ("{}", '{"a": 1}'):
            await store.save_state("costs", value)
    async with opened(make_store) as store:
        assert await store.read_state("costs") == '{"a": 1}'
