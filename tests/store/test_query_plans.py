"""Lists, claims and retention read what they return, however long the queue and the history are (R-11)."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from engine.protocol import Succeeded
from gateway.jobs.job import Priority, State
from gateway.store.base import Bounds, JobFilter, WorkerInfo
from gateway.store.sqlite import SqliteStore
from tests.support import a_job, a_plan, run
from tests.support.store import claim, image

BOUNDS = Bounds(waiting=10_000)
WORKER = WorkerInfo(id="w")
Work = Callable[[SqliteStore], Awaitable[object]]
AMONG = frozenset(f"{n:032x}" for n in range(600))
FILTERS: dict[str, JobFilter] = {
    "none": {},
    "a state": {"states": [State.FAILED]},
    "live states": {"states": [State.QUEUED, State.RUNNING]},
    "a protocol": {"protocol": "sdapi"},
    "a protocol and states": {"protocol": "sdapi", "states": [State.QUEUED, State.SUCCEEDED]},
    "hidden": {"hidden": False},
    "tasks": {"protocol": "mflux-server", "states": [State.QUEUED, State.FAILED], "hidden": False},
    "images": {"has_images": True},
    "images of a protocol": {"has_images": True, "protocol": "sdapi"},
    "images of a model": {"has_images": True, "model": "none", "protocol": "sdapi"},
    "images among some": {"has_images": True, "among": AMONG},
    "images among few": {"has_images": True, "among": frozenset(list(AMONG)[:3])},
    "words": {"has_images": True, "words": ["circle"]},
}


async def filled(folder: Path, waiting: int, ended: int) -> SqliteStore:
    store = SqliteStore(folder)
    await store.open()
    store._database._write_db.execute("PRAGMA synchronous=OFF")
    for n in range(ended + waiting):
        new = a_job(owner=f"o{n % 7}", priority=Priority(n % 3), plan=a_plan(prompt=f"a red circle {n}"))
        job = (await store.submit(new, BOUNDS)).job
        if n < ended:
            lease = await claim(store)
            assert lease.job.id == job.id
            await store.record(lease, image(0))
            await store.commit(lease, Succeeded())
    await store.index_prompts()
    return store


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Folders of stores with twenty ended jobs, by the number of waiting ones."""

    async def fill(folder: Path, waiting: int) -> Path:
        await (await filled(folder, waiting, 20)).close()
        return folder

    return {waiting: run(fill(tmp_path_factory.mktemp("store"), waiting)) for waiting in (60, 300)}


@asynccontextmanager
async def copy_of(source: Path, folder: Path) -> AsyncIterator[SqliteStore]:
    shutil.copytree(source, folder)
    store = SqliteStore(folder)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@contextmanager
def statements(store: SqliteStore) -> Iterator[list[str]]:
    """The statements on the job database meanwhile, with their values."""
    said: list[str] = []
    connections = (store._database._write_db, store._database._read_db)
    for db in connections:
        db.set_trace_callback(said.append)
    try:
        yield said
    finally:
        for db in connections:
            db.set_trace_callback(None)


def scans(store: SqliteStore, said: list[str]) -> list[str]:
    """The steps of plans that read a whole table or index of jobs or events."""
    steps = [
        row["detail"]
        for statement in said
        if statement.startswith(("SELECT", "UPDATE", "DELETE"))
        for row in store._database._read_db.execute(f"EXPLAIN QUERY PLAN {statement}")
    ]
    return [step for step in steps if step.startswith(("SCAN jobs", "SCAN events"))]


@pytest.mark.parametrize("name", FILTERS)
async def test_a_list_searches_an_index_for_every_filter(stores: dict[int, Path], tmp_path: Path, name: str) -> None:
    async with copy_of(stores[60], tmp_path / "copy") as store:
        for before in (None, 40):
            with statements(store) as said:
                await store.list_jobs(owner="o1", limit=5, before=before, **FILTERS[name])
            assert scans(store, said) == []
            if name not in ("words", "images among few", "hidden"):
                (plan, *_) = [statement for statement in said if statement.startswith("SELECT number, id")]
                steps = store._database._read_db.execute(f"EXPLAIN QUERY PLAN {plan}").fetchall()
                searches = [step["detail"] for step in steps if step["detail"].startswith("SEARCH")]
                assert searches
                assert [search for search in searches if "COVERING INDEX" not in search] == []
                assert not any("TEMP B-TREE" in step["detail"] for step in steps)


LONG: dict[str, Work] = {
    "claim": lambda store: store.claim(WORKER),
    "claim past held jobs": lambda store: store.claim(
        WorkerInfo(id="w", held_jobs=frozenset(job.id for job in store.order("engine")[:30]))
    ),
    "claim of a worker without models": lambda store: store.claim(WorkerInfo(id="w", models=frozenset())),
    "submit": lambda store: store.submit(a_job(owner="o1"), BOUNDS),
    "cancel": lambda store: store.cancel(store.order("engine")[-1].id, "user"),
    "position": lambda store: store.position(store.order("engine")[-1].id),
    "a page of the queue": lambda store: store.waiting(limit=10, offset=20),
    "a page of an owner's queue": lambda store: store.waiting(owner="o1", limit=5),
    "plans": lambda store: store.plans([job.id for job in store.order("engine")[:10]]),
    "missed events": lambda store: store.missed_events("o1", 100, limit=5),
    "a snapshot": lambda store: store.missed_events("nobody", None),
    "reap": lambda store: store.reap(),
}


@pytest.mark.parametrize("what", LONG)
async def test_operation_on_a_long_queue_reads_a_bounded_part_of_it(
    stores: dict[int, Path], tmp_path: Path, what: str
) -> None:
    """The same number of statements with sixty and with three hundred jobs; none reads a whole table."""
    counts = []
    for waiting, folder in stores.items():
        async with copy_of(folder, tmp_path / str(waiting)) as store:
            with statements(store) as said:
                await LONG[what](store)
            assert scans(store, said) == []
            counts.append(len(said))
    assert counts[0] == counts[1]


async def test_a_move_writes_the_jobs_that_move(stores: dict[int, Path], tmp_path: Path) -> None:
    async with copy_of(stores[300], tmp_path / "copy") as store:
        own = [job for job in store.order("engine") if job.owner == "o1"]
        with statements(store) as said:
            moved = await store.move(own[5].id, 2)
        assert len(moved) == 4
        assert sum(statement.startswith("UPDATE jobs") for statement in said) == 4
        assert scans(store, said) == []


async def test_retention_finds_old_jobs_by_index(stores: dict[int, Path], tmp_path: Path) -> None:
    async with copy_of(stores[60], tmp_path / "copy") as store:
        with statements(store) as said:
            ended = await store.ended_before(0.0, keep_newest=15)
        assert [job.number for job in ended] == [1, 2, 3, 4, 5]
        assert all("USING COVERING INDEX jobs_ended" in step for step in scans(store, said))
        with statements(store) as said:
            await store.delete([job.id for job in ended])
            await store.compact()
        assert scans(store, said) == []


async def test_start_reads_no_row_of_the_history(tmp_path: Path) -> None:
    """The newest records are checked, and the indexes of live jobs are read; the number of statements is bounded."""
    counts = []
    for ended in (10, 60):
        folder = tmp_path / str(ended)
        await (await filled(folder, 5, ended)).close()
        store = SqliteStore(folder)
        original = store._database._open
        said: list[str] = []

        def opened(store: SqliteStore = store, original: Callable[[], None] = original, said: list[str] = said) -> None:
            original()
            store._database._write_db.set_trace_callback(said.append)
            store._database._read_db.set_trace_callback(said.append)

        store._database._open = opened  # type: ignore[method-assign]
        await store.open()
        counts.append(sum("job_id = (SELECT id" not in statement for statement in said))  # of the newest records
        of_recovery = [statement for statement in said if "finished_at IS NULL" in statement]
        assert of_recovery
        assert scans(store, of_recovery) == []
        await store.close()
    assert counts[0] == counts[1]


def test_database_uses_no_statement_of_a_newer_sqlite() -> None:
    """The plans above hold from the version on that Python 3.11 comes with."""
    assert sqlite3.sqlite_version_info >= (3, 38)
