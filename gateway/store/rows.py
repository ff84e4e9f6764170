"""One job in and out of its rows: folded from events, the columns repeated for queries. Knows SQL, no transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from pydantic import TypeAdapter

from engine.protocol import lane_of
from gateway.errors import JobNotFound
from gateway.job import Job, JobEvent, NewJob, Priority, State, StateFacts, plan_adapter, state_fact
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


def append(db: sqlite3.Connection, job: Job, fact: StateFacts, at: float) -> Job:
    """Store one more fact. Raises: IllegalTransition."""
    after = job.apply(fact, at)
    event = after.events[-1]
    db.execute(
        "INSERT INTO events (job_id, seq, at, fact) VALUES (?,?,?,?)",
        (job.id, event.seq, event.at, fact.model_dump_json()),
    )
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
    row = db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if row is None:
        raise JobNotFound
    return fold(db, row)


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
    for event in events(db, new.id, 0):
        job = job.apply(event.fact, event.at)
    return job


def events(db: sqlite3.Connection, job_id: str, after: int) -> list[JobEvent]:
    """Those with a greater seq, in order."""
    found = db.execute("SELECT * FROM events WHERE job_id = ? AND seq > ? ORDER BY seq", (job_id, after)).fetchall()
    return [JobEvent(job_id, row["seq"], row["at"], state_fact.validate_json(row["fact"])) for row in found]
