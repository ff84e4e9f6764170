"""One job in and out of its rows: folded from events, the columns repeated for queries. Knows SQL, no transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pydantic import TypeAdapter

from engine.protocol import Queued, lane_of
from gateway.job import (
    IllegalTransition,
    Job,
    JobEvent,
    NewJob,
    Priority,
    State,
    StateFacts,
    plan_adapter,
    state_fact,
)
from gateway.queue import Standing, Turns, Waiting
from gateway.request import Adjustment
from gateway.store import checksum
from gateway.store.base import Lease

_adjustments: TypeAdapter[tuple[Adjustment, ...]] = TypeAdapter(tuple[Adjustment, ...])

UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError, IllegalTransition)
"""What reading cells that were not written by us may end in."""


class RecordDamaged(Exception):
    """The record of `job_id` is not as it was written, or cannot be read."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"the record of job {job_id} is damaged")


def insert(db: sqlite3.Connection, new: NewJob) -> int:
    """The row of a job before its first event, which seals it; returns its number."""
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


def move(db: sqlite3.Connection, standings: Mapping[str, Standing]) -> None:
    """Give jobs other places in the queue."""
    for job_id, standing in standings.items():
        _change(db, job_id, STANDS, _place(standing))


STANDS = "standing_priority = ?, standing_since = ?, standing_number = ?"


def _place(standing: Standing) -> tuple[object, ...]:
    return int(standing.priority), standing.since, standing.number


def hide(db: sqlite3.Connection, job_id: str) -> None:
    """One that is not on record is no matter. Raises: RecordDamaged."""
    _change(db, job_id, "hidden = ?", (1,))


def forget_key(db: sqlite3.Connection, job_id: str) -> None:
    """Its Idempotency-Key may be used again. Raises: RecordDamaged."""
    _change(db, job_id, "idempotency_key = ?", (None,))


def _change(db: sqlite3.Connection, job_id: str, what: str, values: Sequence[object]) -> None:
    """A change of a row that no event tells of: only of one that is sound, and sealed again. Raises: RecordDamaged."""
    row = db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if row is None:
        return
    if not checksum.is_right(row):
        raise RecordDamaged(job_id)
    _update(db, job_id, what, values)


def _update(
    db: sqlite3.Connection, job_id: str, what: str, values: Sequence[object], added: Sequence[sqlite3.Row] = ()
) -> None:
    db.execute(f"UPDATE jobs SET {what} WHERE id = ?", (*values, job_id))
    checksum.seal(db, db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone(), added)


WAITING_COLUMNS = "id, owner, lane, model, standing_priority, standing_since, standing_number"


def waiting(row: sqlite3.Row) -> Waiting:
    """A waiting job's place, of a row with `WAITING_COLUMNS`."""
    standing = Standing(Priority(row["standing_priority"]), row["standing_since"], row["standing_number"])
    return Waiting(row["id"], row["owner"], row["lane"], row["model"], standing)


def append(db: sqlite3.Connection, job: Job, fact: StateFacts, at: float, steady: float) -> Job:
    """Store one more fact, not before the last one, of a job that was read in this transaction.

    Raises: IllegalTransition.
    """
    if job.events:
        at, steady = max(at, job.events[-1].at), max(steady, job.events[-1].steady)
    after = job.apply(fact, float(at), float(steady))
    event = after.events[-1]
    cursor = db.execute(
        "INSERT INTO events (job_id, seq, at, fact, steady) VALUES (?,?,?,?,?)",
        (job.id, event.seq, event.at, fact.model_dump_json(), event.steady),
    )
    stored = db.execute("SELECT * FROM events WHERE number = ?", (cursor.lastrowid,)).fetchone()
    after = replace(after, events=(*job.events, replace(event, number=stored["number"])))
    is_held, is_new = after.state is State.RUNNING, isinstance(fact, Queued)
    _update(
        db,
        job.id,
        "state = ?, attempt = ?, images = ?, created_at = ?, started_at = ?, finished_at = ?,"
        " started_steady = ?, finished_steady = ?,"
        " worker = CASE WHEN ? THEN worker END, lease_until = CASE WHEN ? THEN lease_until END"
        f"{f', {STANDS}' if is_new else ''}",
        (
            after.state,
            after.attempt,
            len(after.images),
            after.created_at,
            after.started_at,
            after.finished_at,
            after.started_steady,
            after.finished_steady,
            is_held,
            is_held,
            *(_place(Standing(after.priority, after.created_steady, after.number)) if is_new else ()),
        ),
        [stored],
    )
    return after


def seal_all(db: sqlite3.Connection, job_id: str) -> None:
    """Give a record its first checksum."""
    row = db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
    checksum.seal(db, row, stored_events(db, row["number"]))


def held(db: sqlite3.Connection, lease: Lease) -> Job | None:
    """The job, where this lease still holds it: the fence of every write."""
    row = db.execute(
        "SELECT * FROM jobs WHERE id = ? AND attempt = ? AND state = 'running'", (lease.job.id, lease.job.attempt)
    ).fetchone()
    return None if row is None else fold(db, row)


def find(db: sqlite3.Connection, job_id: str) -> Job | None:
    row = db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
    return None if row is None else fold(db, row)


def is_gone(db: sqlite3.Connection, job_id: str) -> bool:
    """Whether there is no row of a job."""
    return db.execute("SELECT 1 FROM jobs WHERE id = ?", (job_id,)).fetchone() is None


def fold_all(db: sqlite3.Connection, sql: str, values: Sequence[object]) -> list[Job]:
    """The jobs of a query over whole rows of `jobs`."""
    return [fold(db, row) for row in db.execute(sql, values).fetchall()]


def fold(db: sqlite3.Connection, row: sqlite3.Row) -> Job:
    """The job of a row, folded from its events. Raises: RecordDamaged."""
    stored = stored_events(db, row["number"])
    if not checksum.is_right(row, stored):
        raise RecordDamaged(row["id"])
    return folded(row, stored)


def folded(row: sqlite3.Row, stored: Sequence[sqlite3.Row]) -> Job:
    """The same of cells that were read, whatever their checksum. Raises: RecordDamaged."""
    try:
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
        waiting(row)
        job = replace(Job.of(new, row["number"]), hidden=bool(row["hidden"]))
        for event in stored:
            job = job.apply(_fact(event), event["at"], event["steady"])
        if [event["seq"] for event in stored] != list(range(1, job.seq + 1)) or job.state is None:
            raise ValueError
    except UNREADABLE:
        raise RecordDamaged(row["id"]) from None
    numbered = zip(job.events, stored, strict=True)
    return replace(job, events=tuple(replace(event, number=row["number"]) for event, row in numbered))


def stored_events(db: sqlite3.Connection, number: int) -> list[sqlite3.Row]:
    """The events of the job with this number, in order, as they lie there."""
    mine = "job_id = (SELECT id FROM jobs WHERE number = ?)"
    return db.execute(f"SELECT * FROM events WHERE {mine} ORDER BY seq", (number,)).fetchall()


def events(db: sqlite3.Connection, job_id: str, after: int) -> list[JobEvent]:
    """Those with a greater seq, in order. Raises: RecordDamaged."""
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
    return row[0] if row is not None and isinstance(row[0], int) else 0


def _fact(event: sqlite3.Row) -> StateFacts:
    """Raises: ValueError, TypeError where the event cannot be read."""
    if not (isinstance(event["at"], float) and isinstance(event["steady"], float) and isinstance(event["seq"], int)):
        raise TypeError
    return state_fact.validate_json(event["fact"])


def _event(row: sqlite3.Row) -> JobEvent:
    try:
        fact = _fact(row)
    except UNREADABLE:
        raise RecordDamaged(row["job_id"]) from None
    return JobEvent(row["job_id"], row["seq"], row["at"], fact, row["number"], row["steady"])


def lower(word: str) -> str:
    """The word as SQLite's lower() writes it: that knows ASCII only."""
    return "".join(c.lower() if c.isascii() else c for c in word)


# ---- small things kept by name ---------------------------------------------------------------------


def keep(db: sqlite3.Connection, name: str, value: str | None) -> None:
    """None forgets it."""
    if value is None:
        db.execute("DELETE FROM kept WHERE name = ?", (name,))
        return
    db.execute(
        "INSERT INTO kept VALUES (?,?,?) ON CONFLICT (name) DO UPDATE SET value = excluded.value,"
        " checksum = excluded.checksum",
        (name, value, checksum.of_kept(name, value)),
    )


def kept(db: sqlite3.Connection, name: str) -> str | None:
    """None also for what is not as it was kept."""
    row = db.execute("SELECT * FROM kept WHERE name = ?", (name,)).fetchone()
    return None if row is None or not checksum.is_right_kept(row) else str(row["value"])


def of_turns(turns: Turns) -> str:
    """As `to_turns` reads them."""
    return json.dumps({"had": sorted(turns.had), "last": [(*group, at) for group, at in turns.last.items()]})


def to_turns(text: str) -> Turns:
    """Turns as they were kept. Raises: ValueError, TypeError, KeyError, AttributeError."""
    value = json.loads(text)
    had = frozenset((int(level), str(owner)) for level, owner in value["had"])
    return Turns(had, {(int(level), str(owner)): float(at) for level, owner, at in value["last"]})
