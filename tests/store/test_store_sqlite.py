"""What only the embedded store promises: its file, its lock, its disk."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from engine.protocol import Succeeded
from gateway.errors import StorageFault, StorageFull
from gateway.jobs.job import Priority, State
from gateway.store.base import JobStore, StoreCorrupt, StoreLocked
from gateway.store.schema import UPGRADES, VERSION
from gateway.store.sqlite import SqliteStore
from tests.support import a_plan
from tests.support.store import claim, opened, submit


async def fill(store: JobStore) -> None:
    for _ in range(200):
        await submit(store, plan=a_plan(prompt="x" * 4000))


async def test_a_second_gateway_cannot_take_the_same_folder(tmp_path: Path) -> None:
    async with opened(lambda: SqliteStore(tmp_path)):
        second = SqliteStore(tmp_path)
        with pytest.raises(StoreLocked):
            await second.open()
        await second.close()
    async with opened(lambda: SqliteStore(tmp_path)):
        pass


async def test_database_commits_are_synced_to_disk(tmp_path: Path) -> None:
    """R-04: the pragmas, since a kill cannot show it."""
    async with opened(lambda: SqliteStore(tmp_path)) as store:
        assert isinstance(store, SqliteStore)

        def pragmas() -> tuple[object, object]:
            db = store._database._write_db
            return db.execute("PRAGMA journal_mode").fetchone()[0], db.execute("PRAGMA synchronous").fetchone()[0]

        assert pragmas() == ("wal", 2)


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
OF_NOTES = "note TEXT NOT NULL DEFAULT '', hidden INTEGER NOT NULL DEFAULT 0,"
OF_TURNS = """
ALTER TABLE jobs ADD COLUMN standing_priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN standing_since REAL NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN standing_number INTEGER NOT NULL DEFAULT 0;
DROP INDEX jobs_queue; DROP INDEX jobs_running; DROP TABLE events;
CREATE INDEX jobs_live ON jobs (state, owner) WHERE finished_at IS NULL;
CREATE TABLE events (
    number INTEGER PRIMARY KEY AUTOINCREMENT, job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    seq INTEGER NOT NULL, at REAL NOT NULL, fact TEXT NOT NULL, UNIQUE (job_id, seq)
);
CREATE TABLE kept (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO kept VALUES ('paused network', 'true');
"""
OF_BLOBS = """
CREATE TABLE blob_owners (
    sha256 TEXT NOT NULL, owner TEXT NOT NULL, payer TEXT NOT NULL, bytes INTEGER NOT NULL, at REAL NOT NULL,
    PRIMARY KEY (sha256, owner)
) WITHOUT ROWID;
CREATE INDEX blob_payers ON blob_owners (payer);
INSERT INTO blob_owners VALUES ('{sha256}', 'me', 'me', 5, 1000.0);
"""
OF_CLOCKS = """
ALTER TABLE jobs ADD COLUMN started_steady REAL;
ALTER TABLE jobs ADD COLUMN finished_steady REAL;
ALTER TABLE jobs ADD COLUMN checksum TEXT;
ALTER TABLE events ADD COLUMN steady REAL NOT NULL DEFAULT 0;
DROP INDEX jobs_finished; DROP INDEX jobs_owner;
CREATE INDEX jobs_owner ON jobs (owner, number DESC, id, state, protocol, hidden);
CREATE INDEX jobs_finished ON jobs (finished_steady) WHERE finished_at IS NOT NULL;
CREATE INDEX jobs_counts ON jobs (state, protocol, images, started_steady, finished_steady);
ALTER TABLE kept ADD COLUMN checksum TEXT;
CREATE TABLE damaged (
    number INTEGER PRIMARY KEY AUTOINCREMENT, job_id TEXT NOT NULL, owner TEXT, reason TEXT NOT NULL, at REAL NOT NULL,
    steady REAL NOT NULL, record TEXT NOT NULL
);
"""
OF_LISTS = """
DROP INDEX jobs_owner;
CREATE INDEX jobs_owner ON jobs (owner, number DESC, id);
CREATE INDEX jobs_state ON jobs (owner, state, number DESC, id, hidden);
CREATE INDEX jobs_protocol ON jobs (owner, protocol, state, hidden, number DESC, id);
CREATE INDEX jobs_images ON jobs (owner, number DESC, id, protocol, images) WHERE images > 0;
CREATE INDEX jobs_model ON jobs (owner, model, number DESC, id, protocol, images) WHERE images > 0;
CREATE INDEX jobs_ended ON jobs (number, finished_at) WHERE finished_at IS NOT NULL;
"""
AGES = {
    1: OLDER.format(extra=""),
    2: OLDER.format(extra=OF_NOTES),
    3: OLDER.format(extra=OF_NOTES) + OF_TURNS,
    4: OLDER.format(extra=OF_NOTES) + OF_TURNS + OF_BLOBS,
    5: OLDER.format(extra=OF_NOTES) + OF_TURNS + OF_BLOBS + OF_CLOCKS,
    6: OLDER.format(extra=OF_NOTES) + OF_TURNS + OF_BLOBS + OF_CLOCKS,
    7: OLDER.format(extra=OF_NOTES) + OF_TURNS + OF_BLOBS + OF_CLOCKS + OF_LISTS,
}
"""The tables as each version left them."""
COLUMNS = "number, id, owner, protocol, attached, priority, lane, model, plan, adjustments, fingerprint"
STANDS = "UPDATE jobs SET standing_priority = priority, standing_since = created_at, standing_number = number"


def test_database_upgrade_exists_from_each_version() -> None:
    assert [*AGES] == [*UPGRADES] == [*range(1, VERSION)]


@pytest.mark.parametrize("version", AGES)
async def test_a_database_of_an_older_version_is_brought_up_to_date(tmp_path: Path, version: int) -> None:
    async with opened(lambda: SqliteStore(tmp_path)) as store:
        jobs = [await submit(store, priority=p) for p in (Priority.NORMAL, Priority.HIGH)]
        ended = await store.cancel((await submit(store)).id, "user")
        blob = await store.put_blob(b"bytes", "me")
    db = sqlite3.connect(tmp_path / "jobs.sqlite3", isolation_level=None)
    structure = "SELECT type, name, tbl_name FROM sqlite_master ORDER BY 1, 2"
    fresh = db.execute(structure).fetchall()
    rows = db.execute(f"SELECT {COLUMNS}, state, created_at, finished_at FROM jobs").fetchall()
    events = db.execute("SELECT job_id, seq, at, fact FROM events ORDER BY number").fetchall()
    tables = ("events", "jobs", "kept", "damaged", "blob_owners")
    db.executescript(";".join(f"DROP TABLE {name}" for name in tables))
    db.executescript(AGES[version].format(sha256=blob))
    new = f"INSERT INTO jobs ({COLUMNS}, attempt, images, state, created_at, finished_at)"
    db.executemany(f"{new} VALUES (?,?,?,?,?,?,?,?,?,?,?,0,0,?,?,?)", rows)
    db.executemany("INSERT INTO events (job_id, seq, at, fact) VALUES (?,?,?,?)", events)
    if version > 2:
        db.execute(STANDS)
    if version > 4:
        db.execute("UPDATE jobs SET finished_steady = finished_at")
        db.execute("UPDATE events SET steady = at")
    db.execute(f"PRAGMA user_version={version}")
    db.close()
    for _ in range(2):
        async with opened(lambda: SqliteStore(tmp_path)) as store:
            assert await store.damaged() == []
            assert [await store.get(job.id) for job in (*jobs, ended)] == [*jobs, ended]
            assert [event.number for event in (await store.missed_events("me", 0)).events] == [1, 2, 3, 4]
            assert [job.id for job in store.order("engine")] == [jobs[1].id, jobs[0].id]
            assert store.is_paused("network") is (version > 2)
            assert await store.drop_unused_blobs(3600.0) == 0
            if version > 3:
                assert await store.blob(blob, "me") == b"bytes"
    db = sqlite3.connect(tmp_path / "jobs.sqlite3", isolation_level=None)
    assert db.execute("PRAGMA user_version").fetchone() == (VERSION,)
    assert db.execute(structure).fetchall() == fresh
    db.close()


async def test_an_upgrade_that_fails_leaves_the_database_as_it_was(tmp_path: Path) -> None:
    """The number of an earlier version over tables of this one."""
    async with opened(lambda: SqliteStore(tmp_path)) as store:
        await submit(store)
        assert await store.back_up(0.0)
    file = tmp_path / "jobs.sqlite3"
    with closing(sqlite3.connect(file)) as db:
        db.execute(f"PRAGMA user_version={VERSION - 2}")
    before = file.read_bytes()
    (copy,) = (tmp_path / "backups").iterdir()
    store = SqliteStore(tmp_path)
    with pytest.raises(StoreCorrupt, match=copy.name):
        await store.open()
    await store.close()
    assert file.read_bytes() == before


async def test_database_damaged_is_refused_with_an_error_and_left_unchanged(tmp_path: Path) -> None:
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


async def test_backups_are_made_after_changes_and_a_damaged_database_names_the_newest(tmp_path: Path) -> None:
    """R-06: two are kept, each a whole store to go on from."""
    file, folder = tmp_path / "jobs.sqlite3", tmp_path / "backups"
    async with opened(lambda: SqliteStore(tmp_path)) as store:
        assert await store.back_up(3600.0)
        for _ in range(2):
            job = await submit(store)
            assert not await store.back_up(3600.0), "it is not time yet"
            assert await store.back_up(0.0)
            assert not await store.back_up(0.0), "nothing has changed since"
    copies = sorted(folder.iterdir())
    assert len(copies) == 2
    assert all(copy.suffix == ".sqlite3" for copy in copies)
    file.write_bytes(b"\xff" * 8192)
    damaged = SqliteStore(tmp_path)
    with pytest.raises(StoreCorrupt, match=copies[1].name):
        await damaged.open()
    await damaged.close()
    for part in tmp_path.glob("jobs.sqlite3*"):
        part.unlink()
    shutil.copyfile(copies[1], file)
    async with opened(lambda: SqliteStore(tmp_path)) as store:
        assert await store.get(job.id) == job
        assert len(store.order("engine")) == 2


async def test_a_full_disk_refuses_the_submit_and_loses_nothing(tmp_path: Path) -> None:
    """R-05: SQLITE_FULL by max_page_count; cancel and list still work, and so does a submit once there is room."""
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


async def test_a_claim_costs_as_many_statements_with_a_thousand_waiting_jobs_as_with_one(tmp_path: Path) -> None:
    """R-11; benchmarks/queue.py has the milliseconds."""
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


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
async def test_store_clock_jump_loses_no_running_job_and_gives_no_negative_time(tmp_path: Path, jump_s: float) -> None:
    """R-07: the embedded store has no leases to expire."""
    now = [1_000_000.0]
    async with opened(lambda: SqliteStore(tmp_path, lambda: now[0])) as store:
        running, waiting = await submit(store), await submit(store)
        lease = await claim(store)
        now[0] += jump_s
        assert await store.reap() == []
        assert await store.heartbeat(lease) == "ok"
        assert await store.position(waiting.id) == 1
        verdict, ended = await store.commit(lease, Succeeded())
        assert (verdict, ended.id) == ("committed", running.id)
        assert ended.seconds is not None
        assert ended.seconds >= 0
        assert (await store.stats()).drawing_seconds >= 0
        assert (await claim(store)).job.id == waiting.id


async def test_event_of_a_submit_that_failed_is_not_sent_by_a_later_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    store = SqliteStore(tmp_path)
    await store.open(lambda job, event: sent.append(event.fact.kind))
    try:
        with monkeypatch.context() as broken:
            broken.setattr(store._database, "_check_files", raises(StorageFault))
            with pytest.raises(StorageFault):
                await submit(store)
        await store.check()
        await store.look_over()
        assert (sent, store.depth("engine")) == ([], 0)
    finally:
        await store.close()


def raises(error: type[Exception]) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call
