"""The log of events compacts: what ended long ago is one row a job, says the same, and is replayed no more."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from engine.protocol import Succeeded
from gateway.jobs.job import Job, State
from gateway.store import compaction
from gateway.store.base import JobStore
from gateway.store.sqlite import SqliteStore
from tests.support import a_plan
from tests.support.store import Clock, claim, image, opened, submit

DAY_S = 86_400.0


async def drawn(store: JobStore) -> Job:
    """A job that was drawn: five events."""
    job = await submit(store, plan=a_plan(prompt="zwölf Boxkämpfer\njagen Viktor", seeds=(1, 2)))
    lease = await claim(store)
    for n in range(2):
        await store.record(lease, image(n))
    await store.commit(lease, Succeeded())
    return await store.get(job.id)


def count(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "jobs.sqlite3")) as db:
        return int(db.execute("SELECT count(*) FROM events").fetchone()[0])


async def test_compaction_leaves_one_row_of_an_old_ended_job_and_every_job_as_it_was(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(lambda: SqliteStore(tmp_path, clock)) as store:
        old = [await drawn(store) for _ in range(3)]
        waiting = await submit(store)
        clock.now += 2 * DAY_S
        new = await drawn_first(store, waiting)
        await store.compact()
        assert count(tmp_path) == len(old) + new.seq
        assert await store.list_jobs() == [new, *reversed(old)]
        assert (await store.list_jobs())[-1].events == old[0].events
        assert await store.events_after(old[0].id, 3) == list(old[0].events[3:])
        await store.look_over()
        assert await store.damaged() == []
    async with opened(lambda: SqliteStore(tmp_path, clock)) as store:
        assert await store.get(old[1].id) == old[1]
        assert await store.damaged() == []
        await store.delete([job.id for job in old])
        assert count(tmp_path) == new.seq


async def drawn_first(store: JobStore, job: Job) -> Job:
    lease = await claim(store)
    assert lease.job.id == job.id
    await store.commit(lease, Succeeded())
    return await store.get(job.id)


async def test_a_stream_replays_events_of_the_last_day_and_begins_anew_before_them(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(lambda: SqliteStore(tmp_path, clock)) as store:
        old, live = await drawn(store), await submit(store)
        clock.now += 2 * DAY_S
        await store.compact()
        newer = await submit(store)
        last = live.events[-1].number
        assert (await store.missed_events("me", last)).events == newer.events
        for unknown in (0, old.events[-1].number, last - 1):
            seen = await store.missed_events("me", unknown)
            assert (seen.events, seen.live) == ((), (live, newer))
    async with opened(lambda: SqliteStore(tmp_path, clock)) as store:
        assert (await store.missed_events("me", last - 1)).live == (live, newer)
        assert (await store.missed_events("me", last)).events == newer.events


async def test_compaction_of_a_young_log_changes_nothing(make_store: Callable[[], JobStore]) -> None:
    async with opened(make_store) as store:
        job = await drawn(store)
        await store.compact()
        assert (await store.missed_events("me", 0)).events == job.events


async def test_a_log_of_many_events_compacts_before_a_day_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "REPLAYED_MOST", 6)
    async with opened(lambda: SqliteStore(tmp_path)) as store:
        jobs = [await drawn(store) for _ in range(4)]
        await store.compact()
        assert count(tmp_path) == 2 + 2 * jobs[0].seq, "of the third job the last event is among the newest"
        assert [job.events for job in await store.list_jobs()] == [job.events for job in reversed(jobs)]
        number = jobs[-1].events[-1].number
        assert (await store.missed_events("me", number - 6)).events[-1].number == number
        assert (await store.missed_events("me", number - 7)).live == ()


async def test_a_packed_row_that_is_damaged_is_set_aside_alone(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(lambda: SqliteStore(tmp_path, clock)) as store:
        jobs = [await drawn(store) for _ in range(3)]
        clock.now += 2 * DAY_S
        await store.compact()
    damages = ("'x'", "replace(fact, 'seed\":0', 'seed\":7')", "X'ff00'", "NULL || fact", "7")
    for damage in (*damages[:3], damages[4]):
        copy = tmp_path / f"copy {damages.index(damage)}"
        copy.mkdir()
        (copy / "jobs.sqlite3").write_bytes((tmp_path / "jobs.sqlite3").read_bytes())
        with closing(sqlite3.connect(copy / "jobs.sqlite3")) as db, db:
            db.execute(f"UPDATE events SET fact = {damage} WHERE job_id = ?", (jobs[1].id,))
        async with opened(lambda copy=copy: SqliteStore(copy, clock)) as store:  # type: ignore[misc]
            assert [record.job_id for record in await store.damaged()] == [jobs[1].id]
            assert [job.id for job in await store.list_jobs()] == [jobs[2].id, jobs[0].id]


async def test_database_file_shrinks_after_most_jobs_were_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "UNUSED_LEAST", 16)
    monkeypatch.setattr(compaction, "PAGES_AT_ONCE", 16)
    file = tmp_path / "jobs.sqlite3"
    async with opened(lambda: SqliteStore(tmp_path)) as store:
        ids = [(await submit(store, plan=a_plan(prompt="x" * 20_000))).id for _ in range(40)]
        for job_id in ids:
            await store.cancel(job_id, "user")
    before = file.stat().st_size
    async with opened(lambda: SqliteStore(tmp_path)) as store:
        await store.delete(ids[:-1])
        await store.compact()
        assert (await store.get(ids[-1])).state is State.CANCELLED
    assert file.stat().st_size < before / 4
