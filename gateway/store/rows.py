"""One job in and out of its rows: folded from events, the columns repeated for queries. Knows SQL, no transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pydantic import TypeAdapter

from engine.protocol import lane_of
from gateway.errors import JobNotFound
from gateway.job import Job, JobEvent, NewJob, Priority, State, StateFacts, plan_adapter, state_fact
from gateway.queue import Standing, Turns, Waiting
from gateway.request import Adjustment
from gateway.store.base import Lease

_adjustments: TypeAdapter[tuple[Adjustment, ...]] = TypeAdapter(tuple[Adjustment, ...])


def insert(db: sqlite3.Connection, new: NewJob) -> int:
    """The row of a job before its first event; returns its number."""
    cursor = db.execute(
        "INSERT INTO jobs (id, owner, protocol, attached, priority, lane, model, plan, adjustments,"
        " idempotency_key, fingerprint, note, state, attempt, images, created_at)"
        " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,'',0,0,0)",
        (
            new.id,
            new.owner,
            new.protocol,
            int(new.attached),
            int(new.priority),
            lane_of(new.plan),
            new.plan.model,
            new.plan.model_dump_json(),
            _adjustments.dump_json(new.adjustments).decode(),
            new.idempotency_key,
            new.fingerprint,
            new.note,
        ),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def stand(db: sqlite3.Connection, job: Job) -> None:
    """Where a job that was stored now comes in."""
    _set_standing(db, job.id, Standing(job.priority, job.created_at, job.number))


def move(db: sqlite3.Connection, standings: Mapping[str, Standing]) -> None:
    """Give jobs other places in the queue."""
    for job_id, standing in standings.items():
        _set_standing(db, job_id, standing)


def _set_standing(db: sqlite3.Connection, job_id: str, standing: Standing) -> None:
    db.execute(
        "UPDATE jobs SET standing_priority = ?, standing_since = ?, standing_number = ? WHERE id = ?",
        (int(standing.priority), standing.since, standing.number, job_id),
    )


WAITING_COLUMNS = "id, owner, lane, model, standing_priority, standing_since, standing_number"


def waiting(row: sqlite3.Row) -> Waiting:
    """A waiting job's place, of a row with `WAITING_COLUMNS`."""
    standing = Standing(Priority(row["standing_priority"]), row["standing_since"], row["standing_number"])
    return Waiting(row["id"], row["owner"], row["lane"], row["model"], standing)


def append(db: sqlite3.Connection, job: Job, fact: StateFacts, at: float) -> Job:
    """Store one more fact. Raises: IllegalTransition."""
    after = job.apply(fact, at)
    event = after.events[-1]
    cursor = db.execute(
        "INSERT INTO events (job_id, seq, at, fact) VALUES (?,?,?,?)",
        (job.id, event.seq, event.at, fact.model_dump_json()),
    )
    assert cursor.lastrowid is not None
    after = replace(after, events=(*job.events, replace(event, number=cursor.lastrowid)))
    is_held = after.state is State.RUNNING
    db.execute(
        "UPDATE jobs SET state = ?, attempt = ?, images = ?, created_at = ?, started_at = ?, finished_at = ?,"
        " worker = CASE WHEN ? THEN worker END, lease_until = CASE WHEN ? THEN lease_until END WHERE id = ?",
        (
            after.state,
            after.attempt,
            len(after.images),
            after.created_at,
            after.started_at,
            after.finished_at,
            is_held,
            is_held,
            job.id,
        ),
    )
    return after


def held(db: sqlite3.Connection, lease: Lease) -> Job | None:
    """The job, where this lease still holds it: the fence of every write."""
    row = db.execute(
        "SELECT * FROM jobs WHERE id = ? AND attempt = ? AND state = 'running'", (lease.job.id, lease.job.attempt)
    ).fetchone()
    return None if row is None else fold(db, row)


def get(db: sqlite3.Connection, job_id: str) -> Job:
    """Raises: JobNotFound."""
    if (job := find(db, job_id)) is None:
        raise JobNotFound
    return job


def find(db: sqlite3.Connection, job_id: str) -> Job | None:
    row = db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
    return None if row is None else fold(db, row)


def fold_all(db: sqlite3.Connection, sql: str, values: Sequence[object]) -> list[Job]:
    """The jobs of a query over whole rows of `jobs`."""
    return [fold(db, row) for row in db.execute(sql, values).fetchall()]


def fold(db: sqlite3.Connection, row: sqlite3.Row) -> Job:
    """The job of a row, folded from its events."""
    new = NewJob(
        id=row["id"],
        owner=row["owner"],
        protocol=row["protocol"],
        plan=plan_adapter.validate_json(row["plan"]),
        attached=bool(row["attached"]),
        priority=Priority(row["priority"]),
        adjustments=_adjustments.validate_json(row["adjustments"]),
        idempotency_key=row["idempotency_key"],
        fingerprint=row["fingerprint"],
        note=row["note"],
    )
    job = replace(Job.of(new, row["number"]), hidden=bool(row["hidden"]))
    stored = events(db, new.id, 0)
    for event in stored:
        job = job.apply(event.fact, event.at)
    return replace(job, events=tuple(stored))


def events(db: sqlite3.Connection, job_id: str, after: int) -> list[JobEvent]:
    """Those with a greater seq, in order."""
    found = db.execute("SELECT * FROM events WHERE job_id = ? AND seq > ? ORDER BY seq", (job_id, after)).fetchall()
    return [_event(row) for row in found]


def events_of(db: sqlite3.Connection, owner: str, after: int, limit: int) -> list[JobEvent]:
    """Of all jobs of this owner those with a greater number, in order."""
    found = db.execute(
        "SELECT events.* FROM events JOIN jobs ON jobs.id = events.job_id"
        " WHERE events.number > ? AND jobs.owner = ? ORDER BY events.number LIMIT ?",
        (after, owner, limit),
    ).fetchall()
    return [_event(row) for row in found]


def last_number(db: sqlite3.Connection) -> int:
    """Of the newest event that ever was, deleted ones included."""
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    return 0 if row is None else int(row[0])


def _event(row: sqlite3.Row) -> JobEvent:
    return JobEvent(row["job_id"], row["seq"], row["at"], state_fact.validate_json(row["fact"]), row["number"])


def lower(word: str) -> str:
    """The word as SQLite's lower() writes it: that knows ASCII only."""
    return "".join(c.lower() if c.isascii() else c for c in word)


# ---- small things kept by name ---------------------------------------------------------------------


def keep(db: sqlite3.Connection, name: str, value: str | None) -> None:
    """None forgets it."""
    if value is None:
        db.execute("DELETE FROM kept WHERE name = ?", (name,))
        return
    db.execute("INSERT INTO kept VALUES (?,?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", (name, value))


def kept(db: sqlite3.Connection, name: str) -> str | None:
    row = db.execute("SELECT value FROM kept WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


def of_turns(turns: Turns) -> str:
    """As `to_turns` reads them."""
    return json.dumps({"had": sorted(turns.had), "last": [(*group, at) for group, at in turns.last.items()]})


def to_turns(text: str) -> Turns:
    """Turns as they were kept."""
    value = json.loads(text)
    had = frozenset((int(level), str(owner)) for level, owner in value["had"])
    return Turns(had, {(int(level), str(owner)): float(at) for level, owner, at in value["last"]})
