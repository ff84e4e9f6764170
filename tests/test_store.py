"""The conformance suite of every JobStore. A second implementation joins by one line in `STORES`."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine.protocol import (
    Cancelled,
    CancelRequested,
    Failed,
    ImageDone,
    Ocr,
    PageRead,
    Paste,
    Queued,
    Requeued,
    Started,
    Succeeded,
    TextLine,
)
from gateway.errors import IdempotencyConflict, JobNotFound, JobNotWaiting, OwnerQueueFull, QueueFull, StorageFull
from gateway.job import Job, JobEvent, Priority, State
from gateway.store.base import Bounds, JobStore, Lease, StoreCorrupt, StoreLocked, WorkerInfo
from gateway.store.sqlite import SqliteStore
from tests.support import a_job, a_plan, run

STORES: dict[str, Callable[[Path, Callable[[], float]], JobStore]] = {"sqlite": SqliteStore}
WORKER = WorkerInfo(id="w")
NO_BOUNDS = Bounds(waiting=100_000)
Test = Callable[[JobStore], Awaitable[None]]


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@pytest.fixture(params=STORES)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., JobStore]:
    clock = Clock()
    return lambda: STORES[request.param](tmp_path / "data", clock)


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


def test_a_job_comes_back_as_it_was_submitted(make: Callable[[], JobStore]) -> None:
    async def story() -> None:
        async with opened(make) as store:
            job = await submit(store, plan=a_plan(prompt="ein roter Kreis ☀"), priority=Priority.HIGH)
            assert await store.get(job.id) == job
            assert (job.state, job.seq, job.events[0].fact) == (State.QUEUED, 1, Queued())
            with pytest.raises(JobNotFound):
                await store.get("0" * 32)

    run(story())


def test_the_order_is_class_first_then_submission(make: Callable[[], JobStore]) -> None:
    async def story() -> None:
        async with opened(make) as store:
            classes = [Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.NORMAL, Priority.HIGH]
            jobs = [await submit(store, priority=p) for p in classes]
            expected = [jobs[i].id for i in (2, 4, 1, 3, 0)]
            assert [job.id for job in await store.waiting()] == expected
            assert [await store.position(job_id) for job_id in expected] == [0, 1, 2, 3, 4]
            assert [(await claim(store)).job.id for _ in jobs] == expected
            assert await store.claim(WORKER) is None

    run(story())


def test_position_counts_the_running_job(make: Callable[[], JobStore]) -> None:
    async def story() -> None:
        async with opened(make) as store:
            first, second = await submit(store), await submit(store)
            lease = await claim(store)
            assert (await store.position(first.id), await store.position(second.id)) == (0, 1)
            await store.commit(lease, Succeeded())
            assert (await store.position(first.id), await store.position(second.id)) == (None, 0)

    run(story())


def test_a_worker_gets_only_models_it_can_run(make: Callable[[], JobStore]) -> None:
    async def story() -> None:
        async with opened(make) as store:
            await submit(store, plan=a_plan(model="big"))
            small = await submit(store, plan=a_plan(model="small"))
            assert await store.claim(WorkerInfo(id="w", models=frozenset({"other"}))) is None
            assert await store.claim(WorkerInfo(id="w", lane="network")) is None
            lease = await store.claim(WorkerInfo(id="w", models=frozenset({"small", "other"})))
            assert lease is not None
            assert lease.job.id == small.id

    run(story())


def test_each_lane_claims_its_own_jobs_and_counts_its_own_queue(make: Callable[[], JobStore]) -> None:
    async def story() -> None:
        async with opened(make) as store:
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

    run(story())


def test_pages_are_kept_over_a_release_and_a_restart(make: Callable[[], JobStore]) -> None:
    line = TextLine(box=((0, 0), (9.5, 0), (9.5, 8), (0, 8)), text="Größe ☀", score=0.9)
    page = PageRead(page=0, width_px=64, height_px=64, lines=(line,), seconds=0.1)

    async def story() -> None:
        worker = WorkerInfo(id="c", lane="cpu")
        async with opened(make) as store:
            job = await submit(store, plan=Ocr(document="a" * 64, pages=(3, 1), dpi=150))
            lease = await store.claim(worker)
            assert lease is not None
            await store.record(lease, page)
            assert await store.release(lease, "engine_crash") is not None
            assert await store.claim(worker) is not None
        async with opened(make) as store:
            again = await store.get(job.id)
            assert (again.plan, again.pages, again.text) == (job.plan, (page,), line.text)
            assert (again.state, again.crashes) == (State.QUEUED, 1)

    run(story())


def test_facts_get_seq_without_gaps_and_are_replayed_after_any_of_them(make: Callable[[], JobStore]) -> None:
    async def story() -> None:
        async with opened(make) as store:
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

    run(story())


def test_a_stale_lease_can_write_nothing(make: Callable[[], JobStore]) -> None:
    async def story() -> None:
        async with opened(make) as store:
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

    run(story())


def test_a_commit_tried_twice_is_already_mine(make: Callable[[], JobStore]) -> None:
    async def story() -> None:
        async with opened(make) as store:
            await submit(store)
            lease = await claim(store)
            assert (await store.commit(lease, Succeeded()))[0] == "committed"
            verdict, job = await store.commit(lease, Succeeded())
            assert (verdict, job.seq) == ("already_mine", 3)
            failed = Failed(code="engine_crash", message="x")
            assert (await store.commit(lease, failed))[0] == "fenced"

    run(story())


def test_a_released_job_waits_where_it_waited(make: Callable[[], JobStore]) -> None:
    async def story() -> None:
        async with opened(make) as store:
            first, _ = await submit(store), await submit(store)
            lease = await claim(store)
            released = await store.release(lease, "released")
            assert released is not None
            assert released.crashes == 0
            assert (await claim(store)).job.id == first.id

    run(story())


def test_cancel_ends_a_queued_job_asks_a_running_one_and_leaves_an_ended_one(make: Callable[[], JobStore]) -> None:
    async def story() -> None:
        async with opened(make) as store:
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

    run(story())


def test_an_idempotency_key_finds_its_job_and_refuses_another_body(make: Callable[[], JobStore]) -> None:
    async def story() -> None:
        async with opened(make) as store:
            new = a_job(idempotency_key="k", fingerprint="a")
            first = await store.submit(new, NO_BOUNDS)
            again = await store.submit(a_job(idempotency_key="k", fingerprint="a"), NO_BOUNDS)
            assert (first.created, again.created, again.job.id) == (True, False, new.id)
            with pytest.raises(IdempotencyConflict):
                await store.submit(a_job(idempotency_key="k", fingerprint="b"), NO_BOUNDS)
            other = await store.submit(a_job(idempotency_key="k", fingerprint="b", owner="you"), NO_BOUNDS)
            assert other.created

    run(story())


def test_an_idempotency_key_is_forgotten_after_a_day(tmp_path: Path) -> None:
    async def story() -> None:
        clock = Clock()
        async with opened(lambda: SqliteStore(tmp_path, clock)) as store:
            await store.submit(a_job(idempotency_key="k", fingerprint="a"), NO_BOUNDS)
            clock.now += 24 * 3600 + 1
            assert (await store.submit(a_job(idempotency_key="k", fingerprint="b"), NO_BOUNDS)).created

    run(story())


def test_a_hundred_submits_at_once_with_one_key_make_one_job(make: Callable[[], JobStore]) -> None:
    async def story() -> None:
        async with opened(make) as store:
            tries = [store.submit(a_job(idempotency_key="k"), NO_BOUNDS) for _ in range(100)]
            done = await asyncio.gather(*tries)
            assert len({s.job.id for s in done}) == 1
            assert sum(s.created for s in done) == 1

    run(story())


def test_the_queue_is_bounded_in_all_and_for_one_owner(make: Callable[[], JobStore]) -> None:
    async def story() -> None:
        async with opened(make) as store:
            bounds = Bounds(waiting=3, waiting_per_owner=2)
            for owner in ("me", "me"):
                await store.submit(a_job(owner=owner), bounds)
            with pytest.raises(OwnerQueueFull):
                await store.submit(a_job(owner="me"), bounds)
            await store.submit(a_job(owner="you"), bounds)
            with pytest.raises(QueueFull):
                await store.submit(a_job(owner="third"), bounds)

    run(story())


def test_reopening_recovers_what_each_kind_of_job_deserves(make: Callable[[], JobStore]) -> None:
    """Decided: attached jobs without a key are gone with their client, all others wait, running ones first."""

    async def story() -> None:
        async with opened(make) as store:
            running = await submit(store, plan=a_plan(seeds=(1, 2)))
            lease = await claim(store)
            await store.record(lease, image(0))
            queued = await submit(store)
            attached = await submit(store, attached=True)
            kept = await submit(store, attached=True, idempotency_key="k")
        async with opened(make) as store:
            assert [job.id for job in await store.waiting()] == [running.id, queued.id, kept.id]
            again = await store.get(running.id)
            assert again.events[-1].fact == Requeued(reason="gateway_restart")
            assert (again.first_undrawn, again.crashes) == (1, 0)
            assert (await store.get(attached.id)).events[-1].fact == Cancelled(reason="client_gone")
            assert (await claim(store)).job.attempt == 2

    run(story())


def test_a_running_job_that_was_asked_to_stop_is_cancelled_on_reopening(make: Callable[[], JobStore]) -> None:
    async def story() -> None:
        async with opened(make) as store:
            job = await submit(store)
            await claim(store)
            await store.cancel(job.id, "user")
        async with opened(make) as store:
            assert (await store.get(job.id)).state is State.CANCELLED

    run(story())


def test_an_expired_lease_is_reaped_and_a_renewed_one_is_not(tmp_path: Path) -> None:
    async def story() -> None:
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

    run(story())


def test_lists_are_filtered_and_paged_newest_first(make: Callable[[], JobStore]) -> None:
    async def story() -> None:
        async with opened(make) as store:
            mine = [await submit(store) for _ in range(5)]
            await submit(store, owner="you", protocol="sdapi")
            page = await store.list_jobs(owner="me", limit=2)
            assert [job.id for job in page] == [mine[4].id, mine[3].id]
            rest = await store.list_jobs(owner="me", before=page[-1].number)
            assert [job.id for job in rest] == [job.id for job in mine[2::-1]]
            assert len(await store.list_jobs(protocol="sdapi")) == 1
            assert await store.list_jobs(states=[State.RUNNING]) == []
            await store.cancel(mine[0].id, "user")
            assert [j.id for j in await store.list_jobs(states=[State.CANCELLED, State.FAILED])] == [mine[0].id]

    run(story())


def test_a_note_is_kept_and_a_hidden_job_is_only_left_out_of_lists_that_ask_for_it(
    make: Callable[[], JobStore],
) -> None:
    async def story() -> None:
        async with opened(make) as store:
            shown, hidden = await submit(store, note='{"format": "PNG"}'), await submit(store)
            await store.hide([hidden.id])
        async with opened(make) as store:
            assert (await store.get(shown.id)).note == '{"format": "PNG"}'
            assert (await store.get(hidden.id)).hidden
            assert [job.id for job in await store.list_jobs(hidden=False)] == [shown.id]
            assert [job.id for job in await store.list_jobs(hidden=True)] == [hidden.id]
            assert [job.id for job in await store.list_jobs()] == [hidden.id, shown.id]
            assert [(await claim(store)).job.id for _ in range(2)] == [shown.id, hidden.id]

    run(story())


def test_only_ended_jobs_can_be_deleted_and_old_ones_are_found(make: Callable[[], JobStore]) -> None:
    async def story() -> None:
        async with opened(make) as store:
            ended, live = await submit(store), await submit(store)
            await store.cancel(ended.id, "user")
            assert [j.id for j in await store.ended_before(9e9, keep_newest=10)] == [ended.id]
            assert await store.ended_before(0.0, keep_newest=10) == []
            assert [j.id for j in await store.ended_before(0.0, keep_newest=0)] == [ended.id]
            await store.delete([ended.id, live.id])
            assert await store.events_after(ended.id, 0) == []
            assert (await store.get(live.id)).state is State.QUEUED
            with pytest.raises(JobNotFound):
                await store.get(ended.id)

    run(story())


def test_blobs_are_named_by_their_bytes_and_kept_while_a_job_names_them(make: Callable[[], JobStore]) -> None:
    async def story() -> None:
        async with opened(make) as store:
            used, unused = await store.put_blob(b"used"), await store.put_blob(b"unused")
            assert await store.put_blob(b"used") == used
            await submit(store, plan=a_plan(init_image=used))
            names = [await store.put_blob(bytes([i])) for i in range(7)]
            box = {"left_px": 0, "top_px": 0, "width_px": 16, "height_px": 16}
            paste = Paste(picture=names[1], further_pictures=(names[5],), mask=names[2], **box)
            further = {"further_init_images": (names[6],), "references": tuple(names[3:5])}
            plan = a_plan(init_image=used, mask=names[0], paste=paste, **further)
            await submit(store, plan=plan)
            assert plan.inputs == {used, *names}
            document = await store.put_blob(b"document")
            await submit(store, plan=Ocr(document=document))
            assert await store.drop_unused_blobs(grace_s=-1) == 1
            for name in (*plan.inputs, document):
                await store.blob(name)
            for name in (unused, "../jobs.sqlite3", "0" * 63):
                with pytest.raises(KeyError):
                    await store.blob(name)

    run(story())


def test_statistics_count_states_and_pictures(make: Callable[[], JobStore]) -> None:
    async def story() -> None:
        async with opened(make) as store:
            await submit(store)
            lease = await claim(store)
            await store.record(lease, image(0))
            await store.commit(lease, Succeeded())
            await submit(store)
            stats = await store.stats()
            assert stats.by_state == {State.QUEUED: 1, State.SUCCEEDED: 1}
            assert stats.images == 1
            assert stats.drawing_seconds > 0

    run(story())


def test_claim_position_and_waiting_agree_about_owners_classes_and_age(tmp_path: Path) -> None:
    async def story() -> None:
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

    run(story())


def test_whose_turn_it_is_outlives_a_restart(make: Callable[[], JobStore]) -> None:
    async def story() -> None:
        async with opened(make) as store:
            first, *_ = [await submit(store, owner=owner) for owner in "aaab"]
            assert (await claim(store)).job.id == first.id
            await store.cancel(first.id, "user")
            line = [job.owner for job in await store.waiting()]
            assert line == ["b", "a", "a"]
        async with opened(make) as store:
            assert [job.owner for job in await store.waiting()] == line

    run(story())


def test_a_paused_lane_gives_nothing_until_it_goes_on_and_other_lanes_do(make: Callable[[], JobStore]) -> None:
    async def story() -> None:
        async with opened(make) as store:
            await submit(store)
            await submit(store, plan=Ocr(document="a" * 64))
            await store.pause("engine", True)
            assert store.is_paused("engine")
            assert await store.claim(WORKER) is None
            assert await store.claim(WorkerInfo(id="c", lane="cpu")) is not None
        async with opened(make) as store:
            assert await store.claim(WORKER) is None
            await store.pause("engine", False)
            assert not store.is_paused("engine")
            await claim(store)

    run(story())


def test_a_moved_job_takes_its_place_among_its_owners_and_keeps_it_over_a_restart(make: Callable[[], JobStore]) -> None:
    async def story() -> None:
        async with opened(make) as store:
            a, b, c = [await submit(store, priority=p) for p in (Priority.HIGH, Priority.NORMAL, Priority.LOW)]
            other = await submit(store, owner="you", priority=Priority.HIGH)
            changed = await store.move(c.id, 0)
            assert {job.id for job in changed} == {a.id, b.id, c.id}
            expected = [c.id, other.id, a.id, b.id]
            assert [job.id for job in await store.waiting()] == expected
            with pytest.raises(JobNotFound):
                await store.move("0" * 32, 0)
        async with opened(make) as store:
            assert [job.id for job in await store.waiting()] == expected
            lease = await claim(store)
            assert (lease.job.id, lease.job.priority) == (c.id, Priority.LOW)
            with pytest.raises(JobNotWaiting):
                await store.move(c.id, 0)
            await store.release(lease, "released")
            assert [job.id for job in await store.waiting()] == expected

    run(story())


def test_every_event_is_told_once_in_the_order_of_its_number_before_the_write_returns(
    make: Callable[[], JobStore],
) -> None:
    async def story() -> None:
        told: list[tuple[State | None, JobEvent]] = []
        store = make()
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

    run(story())


def test_an_owner_sees_what_happened_after_any_event_or_else_what_lives(make: Callable[[], JobStore]) -> None:
    async def story() -> None:
        async with opened(make) as store:
            mine = [await submit(store) for _ in range(2)]
            await submit(store, owner="you")
            await store.cancel(mine[0].id, "user")
            everything = (await store.seen("me", 0)).events
            assert [event.number for event in everything] == [1, 2, 4]
            for after in range(5):
                seen = await store.seen("me", after)
                assert (seen.number, seen.events) == (4, tuple(e for e in everything if e.number > after))
            page = await store.seen("me", 0, limit=2)
            assert (page.number, page.events) == (2, everything[:2])
            for unknown in (None, 5, -1):
                seen = await store.seen("me", unknown)
                assert (seen.number, seen.live, seen.events) == (4, (mine[1],), ())
            await store.delete([mine[0].id])
            assert (await store.seen("me", 3)).live == (mine[1],)
            assert (await store.seen("me", 4)).events == ()
        async with opened(make) as store:
            assert (await store.seen("me", 3)).live == (mine[1],)

    run(story())


def test_small_texts_are_kept_by_name(make: Callable[[], JobStore]) -> None:
    async def story() -> None:
        async with opened(make) as store:
            assert await store.kept("costs") is None
            for value in ("{}", '{"a": 1}'):
                await store.keep("costs", value)
        async with opened(make) as store:
            assert await store.kept("costs") == '{"a": 1}'

    run(story())


async def fill(store: JobStore) -> None:
    for _ in range(200):
        await submit(store, plan=a_plan(prompt="x" * 4000))


# ---- what only the embedded store promises -------------------------------------------------------


def test_a_second_gateway_cannot_take_the_same_folder(tmp_path: Path) -> None:
    async def story() -> None:
        async with opened(lambda: SqliteStore(tmp_path)):
            second = SqliteStore(tmp_path)
            with pytest.raises(StoreLocked):
                await second.open()
            await second.close()
        async with opened(lambda: SqliteStore(tmp_path)):
            pass

    run(story())


def test_commits_reach_the_disk(tmp_path: Path) -> None:
    """R-04: the pragmas, since a kill cannot show it."""

    async def story() -> None:
        async with opened(lambda: SqliteStore(tmp_path)) as store:
            assert isinstance(store, SqliteStore)

            def pragmas() -> tuple[object, object]:
                db = store._database._write_db
                return db.execute("PRAGMA journal_mode").fetchone()[0], db.execute("PRAGMA synchronous").fetchone()[0]

            assert pragmas() == ("wal", 2)

    run(story())


OLDER = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, protocol TEXT NOT NULL,
    attached INTEGER NOT NULL, priority INTEGER NOT NULL, lane TEXT NOT NULL, model TEXT NOT NULL, plan TEXT NOT NULL,
    adjustments TEXT NOT NULL, idempotency_key TEXT, fingerprint TEXT NOT NULL, {extra} state TEXT NOT NULL,
    attempt INTEGER NOT NULL, images INTEGER NOT NULL, created_at REAL NOT NULL, started_at REAL, finished_at REAL,
    worker TEXT, lease_until REAL
);
CREATE UNIQUE INDEX jobs_idempotency ON jobs (owner, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX jobs_queue ON jobs (lane, priority DESC, number) WHERE state = 'queued';
CREATE INDEX jobs_running ON jobs (lane) WHERE state = 'running';
CREATE INDEX jobs_owner ON jobs (owner, number DESC);
CREATE INDEX jobs_finished ON jobs (finished_at) WHERE finished_at IS NOT NULL;
CREATE TABLE events (
    job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE, seq INTEGER NOT NULL, at REAL NOT NULL,
    fact TEXT NOT NULL, PRIMARY KEY (job_id, seq)
) WITHOUT ROWID;
"""
EXTRA = {1: "", 2: "note TEXT NOT NULL DEFAULT '', hidden INTEGER NOT NULL DEFAULT 0,"}
COLUMNS = "number, id, owner, protocol, attached, priority, lane, model, plan, adjustments, fingerprint"


@pytest.mark.parametrize("version", EXTRA)
def test_a_database_of_an_older_version_is_brought_up_to_date(tmp_path: Path, version: int) -> None:
    async def story() -> None:
        async with opened(lambda: SqliteStore(tmp_path)) as store:
            jobs = [await submit(store, priority=p) for p in (Priority.NORMAL, Priority.HIGH)]
            await store.cancel((await submit(store)).id, "user")
        db = sqlite3.connect(tmp_path / "jobs.sqlite3", isolation_level=None)
        rows = db.execute(f"SELECT {COLUMNS}, state, created_at, finished_at FROM jobs").fetchall()
        events = db.execute("SELECT job_id, seq, at, fact FROM events").fetchall()
        db.executescript("DROP TABLE events; DROP TABLE jobs; DROP TABLE kept;")
        db.executescript(OLDER.format(extra=EXTRA[version]))
        new = f"INSERT INTO jobs ({COLUMNS}, attempt, images, state, created_at, finished_at)"
        db.executemany(f"{new} VALUES (?,?,?,?,?,?,?,?,?,?,?,0,0,?,?,?)", rows)
        db.executemany("INSERT INTO events VALUES (?,?,?,?)", reversed(events))
        db.execute(f"PRAGMA user_version={version}")
        db.close()
        async with opened(lambda: SqliteStore(tmp_path)) as store:
            assert [await store.get(job.id) for job in jobs] == jobs
            assert [event.number for event in (await store.seen("me", 0)).events] == [1, 2, 3, 4]
            assert [(await claim(store)).job.id for _ in jobs] == [jobs[1].id, jobs[0].id]

    run(story())


def test_a_damaged_database_is_refused_loudly_and_left_alone(tmp_path: Path) -> None:
    async def story() -> None:
        async with opened(lambda: SqliteStore(tmp_path)) as store:
            for _ in range(50):
                await submit(store)
        file = tmp_path / "jobs.sqlite3"
        data = bytearray(file.read_bytes())
        data[4096 * 3 : 4096 * 3 + 64] = b"\xff" * 64
        file.write_bytes(data)
        store = SqliteStore(tmp_path)
        with pytest.raises(StoreCorrupt):
            await store.open()
        await store.close()
        assert file.read_bytes() == bytes(data)

    run(story())


def test_a_full_disk_refuses_the_submit_and_loses_nothing(tmp_path: Path) -> None:
    """R-05: SQLITE_FULL by max_page_count; cancel and list still work, and so does a submit once there is room."""

    async def story() -> None:
        async with opened(lambda: SqliteStore(tmp_path)) as store:
            assert isinstance(store, SqliteStore)
            job = await submit(store)
            pages = store._database._write_db.execute("PRAGMA page_count").fetchone()[0]
            store._database._write_db.execute(f"PRAGMA max_page_count={pages}")
            with pytest.raises(StorageFull):
                await fill(store)
            assert (await store.cancel(job.id, "user")).state is State.CANCELLED
            store._database._write_db.execute("PRAGMA max_page_count=100000")
            assert (await submit(store)).state is State.QUEUED

    run(story())


def test_a_claim_costs_as_many_statements_with_a_thousand_waiting_jobs_as_with_one(tmp_path: Path) -> None:
    """R-11; benchmarks/queue.py has the milliseconds."""

    async def story() -> None:
        async with opened(lambda: SqliteStore(tmp_path)) as store:
            assert isinstance(store, SqliteStore)
            counts = []
            for waiting in (1, 1000):
                store._database._write_db.execute("PRAGMA synchronous=OFF")
                for n in range(waiting):
                    await submit(store, owner=str(n % 7))
                statements: list[str] = []
                store._database._write_db.set_trace_callback(statements.append)
                last = [job.id for job in store.order("engine")][-1]
                await claim(store)
                await store.position(last)
                store._database._write_db.set_trace_callback(None)
                counts.append(len(statements))
            assert counts[0] == counts[1]

    run(story())
