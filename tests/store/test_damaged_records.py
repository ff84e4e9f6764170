"""R-06: one damaged record stays one damaged record, and a damaged file names the copy to go back to."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from engine.protocol import Failed, Succeeded
from gateway.errors import JobDamaged, JobNotFound
from gateway.jobs.job import Job, plan_adapter, state_fact
from gateway.store import schema
from gateway.store.base import DamagedRecord, InputBounds, StoreCorrupt
from gateway.store.rows import _adjustments
from gateway.store.sqlite import SqliteStore
from tests.support import a_plan
from tests.support.damage import strain
from tests.support.live import live
from tests.support.native import client_of, ended
from tests.support.native import submit as submit_to
from tests.support.store import WORKER, claim, image, opened, submit

SEED = 20
ALTERED: dict[str, tuple[str, object]] = {
    "not JSON": ("UPDATE jobs SET plan = ? WHERE id = ?", "{"),
    "another version's plan": ("UPDATE jobs SET plan = ? WHERE id = ?", '{"kind":"hologram","model":"x"}'),
    "another version's fact": ("UPDATE events SET fact = ? WHERE seq = 1 AND job_id = ?", '{"kind":"dreamt"}'),
    "bytes that are no text": ("UPDATE jobs SET owner = CAST(? AS TEXT) WHERE id = ?", b"\xff\xfe"),
    "a state that is none": ("UPDATE jobs SET state = ? WHERE id = ?", "zzz"),
    "another state": ("UPDATE jobs SET state = ? WHERE id = ?", "running"),
    "a wrong type": ("UPDATE jobs SET priority = ? WHERE id = ?", "high"),
    "one letter of a prompt": ("UPDATE jobs SET plan = replace(plan, ?, 'b') WHERE id = ?", "a"),
    "a gap": ("DELETE FROM events WHERE seq = 1 + length(?) AND job_id = ?", ""),
    "no row": ("DELETE FROM jobs WHERE '' = ? AND id = ?", ""),
}


def alter(folder: Path, how: str, job_id: str) -> None:
    sql, value = CELLS[how]
    with closing(sqlite3.connect(folder / "jobs.sqlite3", isolation_level=None)) as db:
        assert db.execute(sql, (value, job_id)).rowcount >= 1


@pytest.mark.parametrize("while_open", [False, True])
@pytest.mark.parametrize("state", ["queued", "ended"])
@pytest.mark.parametrize("how", ALTERED)
async def test_record_that_cannot_be_read_is_set_aside_and_all_others_continue(
    tmp_path: Path, how: str, state: str, while_open: bool, caplog: pytest.LogCaptureFixture
) -> None:
    if while_open and how == "no row":
        pytest.skip("a job that nobody asks for is found at the next start")
    told: list[DamagedRecord] = []
    store = SqliteStore(tmp_path)
    await store.open(None, told.append)
    kept = await store.put_blob(b"named by the damaged one")
    bad = await submit(store, plan=a_plan(init_image=kept))
    if state == "ended":
        lease = await claim(store)
        await store.record(lease, image(0))
        await store.commit(lease, Succeeded())
    good = [await submit(store) for _ in range(3)]
    if not while_open:
        await store.close()
    alter(tmp_path, how, bad.id)
    if not while_open:
        store = SqliteStore(tmp_path)
        with caplog.at_level(logging.ERROR):
            await store.open(None, told.append)
        assert [record.job for record in caplog.records if hasattr(record, "job")] == [bad.id]
    with pytest.raises(JobDamaged):
        await store.get(bad.id, "me")
    assert len(told) == while_open
    assert [record.job_id for record in await store.damaged()] == [bad.id]
    assert [job.id for job in await store.list_jobs(words=["circle"])] == [job.id for job in reversed(good)]
    assert (
        [job.id for job in await store.waiting()]
        == [job.id for job in good]
        == [job.id for job in store.order("engine")]
    )
    assert sum((await store.stats()).by_state.values()) == 3
    assert (await claim(store)).job.id == good[0].id
    assert await store.drop_unused_blobs(-1.0) == 0
    assert await store.blob(kept)
    await store.ended_before(9e9, keep_newest=0)
    await store.delete([bad.id])
    await store.missed_events("me", 0)
    await store.hide([bad.id, good[1].id])
    if how not in ("bytes that are no text", "no row"):
        with pytest.raises(JobNotFound):
            await store.get(bad.id, "you")
    assert await store.back_up(0.0)
    await store.close()


FIRST: dict[str, Callable[[SqliteStore, Job, list[Job]], Awaitable[object]]] = {
    "get": lambda store, bad, good: store.get(bad.id),
    "list": lambda store, bad, good: store.list_jobs(),
    "search": lambda store, bad, good: store.list_jobs(words=["circle"]),
    "waiting": lambda store, bad, good: store.waiting(),
    "claim": lambda store, bad, good: store.claim(WORKER),
    "cancel": lambda store, bad, good: store.cancel(bad.id, "user"),
    "move": lambda store, bad, good: store.move(good[1].id, 0),
    "hide": lambda store, bad, good: store.hide([bad.id, good[0].id]),
    "refuse": lambda store, bad, good: store.refuse([bad.id], Failed(code="internal_error", message="x")),
    "delete": lambda store, bad, good: store.delete([bad.id]),
    "retention": lambda store, bad, good: store.ended_before(9e12, keep_newest=0),
    "unused inputs": lambda store, bad, good: store.drop_unused_blobs(-1.0),
    "copy": lambda store, bad, good: store.back_up(0.0),
    "statistics": lambda store, bad, good: store.stats(),
    "who begins to listen": lambda store, bad, good: store.missed_events("me", None),
    "who listens on": lambda store, bad, good: store.missed_events("me", 0),
    "events": lambda store, bad, good: store.events_after(bad.id, 0),
    "the same key": lambda store, bad, good: submit(store, idempotency_key="k"),
}
"""What meets the damaged record first."""
CELLS = {
    **ALTERED,
    "another id": ("UPDATE jobs SET id = ? || substr(id, 2) WHERE id = ?", "g"),
    "a date that is none": ("UPDATE events SET at = ? WHERE job_id = ?", "now"),
    "no checksum": ("UPDATE jobs SET checksum = ? WHERE id = ?", None),
}


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("how", CELLS)
async def test_damaged_record_found_by_any_operation_leaves_all_others_working(
    tmp_path: Path, how: str, first: str
) -> None:
    store = SqliteStore(tmp_path)
    await store.open()
    store._database._write_db.execute("PRAGMA synchronous=OFF")
    bad = await submit(store, idempotency_key="k")
    good = [await submit(store) for _ in range(3)]
    alter(tmp_path, how, bad.id)
    with suppress(JobDamaged, JobNotFound):
        await FIRST[first](store, bad, good)
    assert {job.id for job in good} <= {job.id for job in await store.list_jobs()}
    claimed = {lease.job.id for _ in range(6) if (lease := await store.claim(WORKER)) is not None}
    assert claimed >= {job.id for job in good} or first == "claim"
    assert store.order("engine") == ()
    with pytest.raises((JobDamaged, JobNotFound)):
        await store.get(bad.id)
    assert [record.job_id for record in await store.damaged() if record.job_id] == [bad.id]
    await store.close()


async def test_records_not_checked_in_time_at_start_are_checked_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing that they say counts before."""
    monkeypatch.setattr("gateway.store.checks.NEWEST", 3)
    monkeypatch.setattr("gateway.store.damage.PAGE", 2)
    async with opened(lambda: SqliteStore(tmp_path)) as store:
        jobs = [await submit(store) for _ in range(12)]
    alter(tmp_path, "another state", jobs[0].id)
    alter(tmp_path, "a wrong type", jobs[1].id)
    alter(tmp_path, "no row", jobs[4].id)
    alter(tmp_path, "a gap", jobs[11].id)
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite3", isolation_level=None)) as db:
        db.execute("UPDATE events SET steady = 9e12 WHERE job_id = ?", (jobs[6].id,))
    async with opened(lambda: SqliteStore(tmp_path)) as store:
        assert store.steady() < 9e11
        await store.look_over()
        bad = {jobs[n].id for n in (0, 1, 4, 6, 11)}
        assert {record.job_id for record in await store.damaged()} == bad
        good = [job.id for job in jobs if job.id not in bad]
        assert [job.id for job in store.order("engine")] == good
        await store.look_over()
        assert len(await store.damaged()) == 5


async def test_store_small_values_are_discarded_if_damaged(tmp_path: Path) -> None:
    """A moment far ahead would end all history, and a huge number every page of events."""
    async with opened(lambda: SqliteStore(tmp_path)) as store:
        job = await submit(store)
        await store.cancel(job.id, "user")
        await store.pause("network", True)
        await store.save_state("peaks", "[1]")
        mine = await store.put_blob(b"mine", "me")
        await submit(store, plan=a_plan(init_image=mine))
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite3", isolation_level=None)) as db:
        for name, value in (("steady", "9e12"), ("kept peaks", "[2]"), ("forgotten events", "9" * 30)):
            db.execute("INSERT OR IGNORE INTO kept VALUES (?, '', '00000000')", (name,))
            db.execute("UPDATE kept SET value = ? WHERE name = ?", (value, name))
        db.execute("UPDATE sqlite_sequence SET seq = ?", (2**63 - 1,))
        db.execute("INSERT INTO blob_owners VALUES (?, 'you', 'you', ?, 0.0)", ("f" * 64, 2**62))
        db.execute("UPDATE blob_owners SET bytes = ? WHERE owner = 'me'", (2**39,))
    async with opened(lambda: SqliteStore(tmp_path)) as store:
        assert await store.ended_before(store.steady() - 60, keep_newest=1) == []
        assert await store.read_state("peaks") is None
        assert store.is_paused("network")
        assert (await store.missed_events("me", 0)).live is not None, "nobody can say what was missed"
        last = (await store.missed_events("me", None)).number
        await submit(store)
        assert len((await store.missed_events("me", last)).events) == 1
        assert isinstance(store, SqliteStore)
        store._clock._elapsed = lambda: time.monotonic() + 2 * 3600.0
        await store.drop_unused_blobs(3600.0)
        assert await store.put_blob(b"mine too", "me", bounds=InputBounds.of(1000))
        assert await store.blob(mine, "me") == b"mine"


async def test_store_start_writes_nothing_to_an_undamaged_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a full disk keeps nobody from starting."""
    said: list[str] = []

    def traced(file: Path) -> sqlite3.Connection:
        db = schema.open_checked(file)
        db.set_trace_callback(said.append)
        return db

    async with opened(lambda: SqliteStore(tmp_path)) as store:
        await submit(store)
        await store.put_blob(b"mine", "me")
    monkeypatch.setattr("gateway.store.database.open_checked", traced)
    store = SqliteStore(tmp_path)
    await store.open()
    assert not [statement for statement in said if statement.startswith(("INSERT", "UPDATE", "DELETE"))]
    assert [statement for statement in said if statement.startswith("SELECT")]
    await store.close()


async def test_database_error_message_with_undecodable_bytes_is_a_refusal_too(tmp_path: Path) -> None:
    async with opened(lambda: SqliteStore(tmp_path)) as store:
        await submit(store)
        assert await store.back_up(0.0)
    file = tmp_path / "jobs.sqlite3"
    file.write_bytes(file.read_bytes().replace(b"WHERE finished_at", b"W\xc8ERE finished_at"))
    (copy,) = (tmp_path / "backups").iterdir()
    store = SqliteStore(tmp_path)
    with pytest.raises(StoreCorrupt, match=copy.name):
        await store.open()
    await store.close()


async def test_backup_of_a_newer_schema_version_is_not_suggested(tmp_path: Path) -> None:
    async with opened(lambda: SqliteStore(tmp_path)) as store:
        for _ in range(2):
            await submit(store)
            assert await store.back_up(0.0)
    older, newer = sorted((tmp_path / "backups").iterdir())
    for file in (tmp_path / "jobs.sqlite3", newer):
        with closing(sqlite3.connect(file)) as db:
            db.execute(f"PRAGMA user_version={schema.VERSION + 1}")
    store = SqliteStore(tmp_path)
    with pytest.raises(StoreCorrupt, match=older.name):
        await store.open()
    await store.close()


async def test_job_with_a_record_damaged_while_running_ends_and_the_next_job_runs(tmp_path: Path) -> None:
    async with opened(lambda: SqliteStore(tmp_path)) as store:
        bad, good = await submit(store), await submit(store)
        lease = await claim(store)
        alter(tmp_path, "not JSON", bad.id)
        assert await store.record(lease, image(0)) is None
        assert await store.heartbeat(lease) == "lost"
        assert (await store.commit(lease, Succeeded()))[0] == "fenced"
        assert store.running("engine") == 0
        assert (await claim(store)).job.id == good.id


def test_database_with_random_damage_opens_or_is_refused_naming_the_backup(tmp_path: Path) -> None:
    """A slice of `python -m benchmarks.soak damage`."""
    ends = strain(tmp_path, 40, SEED)
    assert sum(ends.values()) == 40


@pytest.mark.parametrize("version", [schema.VERSION + 1, 99])
async def test_database_of_a_newer_version_is_refused_by_number_and_left_unchanged(
    tmp_path: Path, version: int
) -> None:
    async with opened(lambda: SqliteStore(tmp_path)) as store:
        await submit(store)
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite3")) as db:
        db.execute(f"PRAGMA user_version={version}")
    store = SqliteStore(tmp_path)
    with pytest.raises(StoreCorrupt, match=f"version {version}.*reads {schema.VERSION}"):
        await store.open()
    await store.close()


async def test_store_start_is_refused_for_intact_records_this_version_cannot_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another version wrote is not damaged: nothing is set aside."""
    async with opened(lambda: SqliteStore(tmp_path)) as store:
        await submit(store)
    monkeypatch.setattr("gateway.store.checks.CONTENTS", "another")
    monkeypatch.setattr("gateway.store.rows.plan_adapter", state_fact)
    store = SqliteStore(tmp_path)
    with pytest.raises(StoreCorrupt, match="another version"):
        await store.open()
    await store.close()
    monkeypatch.undo()
    async with opened(lambda: SqliteStore(tmp_path)) as store:
        assert await store.damaged() == []
        assert len(store.order("engine")) == 1


def test_schema_version_covers_the_json_contents_of_the_database() -> None:
    """A change of plans, facts or adjustments needs a step in UPGRADES, and this digest in CONTENTS."""
    schemas = [bare(adapter.json_schema()) for adapter in (plan_adapter, state_fact, _adjustments)]
    digest = hashlib.sha256(json.dumps(schemas, sort_keys=True).encode()).hexdigest()[:16]
    assert digest == schema.CONTENTS


def bare(node: Any) -> Any:
    """A JSON schema without its prose."""
    if isinstance(node, dict):
        prose = ("description", "title")
        return {name: bare(value) for name, value in node.items() if name not in prose or isinstance(value, dict)}
    return [bare(value) for value in node] if isinstance(node, list) else node


async def test_database_with_only_damaged_indexes_has_them_rebuilt(tmp_path: Path) -> None:
    async with opened(lambda: SqliteStore(tmp_path)) as store:
        jobs = [await submit(store) for _ in range(3)]
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite3", isolation_level=None)) as db:
        db.execute("PRAGMA writable_schema=1")
        db.execute("UPDATE sqlite_master SET sql = replace(sql, 'DESC', '') WHERE name = 'jobs_owner'")
    async with opened(lambda: SqliteStore(tmp_path)) as store:
        assert [job.id for job in await store.list_jobs(owner="me")] == [job.id for job in reversed(jobs)]


GETS: dict[str, Callable[[str], str]] = {
    "native": lambda job_id: f"/api/v1/jobs/{job_id}",
    "stream": lambda job_id: f"/api/v1/jobs/{job_id}/stream",
    "picture": lambda job_id: f"/api/v1/images/{job_id}-0",
    "mflux-server": lambda job_id: f"/api/status?task_id={job_id}",
}


def test_damaged_record_does_not_stop_the_gateway_and_doctor_exports_it(tmp_path: Path) -> None:
    with live(tmp_path) as gateway, client_of(gateway.url, "me") as client:
        bad, good = (ended(client, submit_to(client)["job_id"])["id"] for _ in range(2))
    alter(tmp_path / "data", "not JSON", bad)
    from gateway.cli.app import app

    said = ["doctor", "--config", str(tmp_path / "config.yaml")]
    with live(tmp_path) as gateway, client_of(gateway.url, "me") as client:
        assert client.get("/system").json()["damaged_records"] == {"count": 1, "ids": [bad]}
        for way, path in GETS.items():
            answer = client.get(f"{gateway.url}{path(bad)}")
            assert answer.status_code == 410, way
            assert "damaged" in answer.text, way
        assert [job["id"] for job in client.get("/jobs").json()["jobs"]] == [good]
        assert [picture["job_id"] for picture in client.get("/images").json()["images"]] == [good]
        asked = (("DELETE", f"/images/{bad}-0"), ("DELETE", f"/jobs/{bad}"), ("POST", f"/jobs/{bad}/retry"))
        assert {client.request(method, path).status_code for method, path in asked} == {410}
        assert client.delete(f"/images/{good}-0").status_code == 200
        assert client.get("/stats").json()["by_status"]["completed"] == 1
        with client_of(gateway.url, "you") as other:
            assert other.get(f"/jobs/{bad}").status_code == 404
        assert ended(client, submit_to(client)["job_id"])["status"] == "completed"
        told = [line for line in gateway.logged().splitlines() if "set aside" in line]
        assert [json.loads(line)["job"] for line in told] == [bad]
        named = CliRunner().invoke(app, said, env={"COLUMNS": "300"}).stdout
        assert f"{bad} was set aside" in named
        assert "a gateway is using the data folder" in CliRunner().invoke(app, [*said, "--repair"]).stdout
    assert "exported" in CliRunner().invoke(app, [*said, "--repair"]).stdout
    (file,) = (tmp_path / "data" / "damaged").iterdir()
    exported = json.loads(file.read_text())
    assert (exported["job_id"], exported["row"]["plan"], len(exported["events"])) == (bad, "{", 4)
    assert file.stat().st_mode & 0o777 == 0o600
    with live(tmp_path) as gateway, client_of(gateway.url, "me") as client:
        assert client.get("/system").json()["damaged_records"]["count"] == 0
        assert client.get(f"/jobs/{bad}").status_code == 404


async def test_retention_task_that_fails_does_not_prevent_the_other_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway.service.retention import Retention
    from gateway.service.service import ServiceOptions

    done: list[str] = []

    class Failing:
        """A store and its pictures, of which everything fails."""

        def __getattr__(self, name: str) -> Any:
            async def fails(*_: Any, **__: Any) -> None:
                done.append(name)
                raise RuntimeError(name)

            return (lambda: 0.0) if name == "steady" else fails

    retention = Retention(Failing(), Failing(), ServiceOptions(backup_every_s=1.0))  # type: ignore[arg-type]
    await retention.once()
    jobs, files = ["check", "index_prompts", "look_over", "ended_before", "compact"], ["drop_unused_blobs", "damaged"]
    assert done == [*jobs, *files, "back_up"]
