"""Rows of one job: written from and folded from its events; some columns repeat them for queries. No transactions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from types import MappingProxyType

from pydantic import TypeAdapter

from engine.protocol import UNCACHED
from gateway.jobs.facts import Queued
from gateway.jobs.job import (
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
from gateway.jobs.order import RoundRobinState, Standing, Waiting
from gateway.jobs.plans import lane_of
from gateway.jobs.resolve import Adjustment
from gateway.store import checksum
from gateway.store.base import Lease, WaitingPlan
from gateway.store.connection import Connection, Row
from gateway.store.packed import SEQ, unpacked

_adjustments: TypeAdapter[tuple[Adjustment, ...]] = TypeAdapter(tuple[Adjustment, ...], config=UNCACHED)

UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError, IllegalTransition)
"""Errors that reading damaged cells may raise."""


class RecordDamaged(Exception):
    """The record of `job_id` does not match its checksum, or cannot be read."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"the record of job {job_id} is damaged")


def insert(
    db: Connection, new: NewJob, at: float, steady: float, further: Mapping[str, object] = MappingProxyType({})
) -> Job:
    """Store a job with its first event, Queued; `further` are columns that only its database has."""
    number = db.next_number("jobs")
    job = Job.of(new, number).apply(Queued(), float(at), float(steady))
    standing = Standing(job.priority, job.created_steady, number)
    row = {
        "number": number,
        "id": new.id,
        "owner": new.owner,
        "protocol": new.protocol,
        "attached": int(new.attached),
        "priority": int(new.priority),
        "lane": lane_of(new.plan),
        "model": new.plan.model,
        "plan": new.plan.model_dump_json(),
        "adjustments": _adjustments.dump_json(new.adjustments).decode(),
        "idempotency_key": new.idempotency_key,
        "fingerprint": new.fingerprint,
        "note": new.note,
        "hidden": 0,
        **_folded_columns(job),
        **_place(standing),
        **further,
    }
    job, event = _numbered(job, db.next_number("events"))
    row["checksum"] = checksum.of_job(row, None, [event])
    _insert(db, "jobs", row)
    _insert(db, "events", event)
    return job


def marks(count: int) -> str:
    """So many marks for values in a list of SQL; a list of none has no row."""
    return ",".join("?" * count) or "NULL"


def insert_event(db: Connection, event: checksum.Cells) -> None:
    """Store an event row as it is."""
    _insert(db, "events", dict(event))


def _insert(db: Connection, table: str, row: Mapping[str, object]) -> None:
    marks = ",".join("?" * len(row))
    db.execute(f"INSERT INTO {table} ({','.join(row)}) VALUES ({marks})", tuple(row.values()))


def _folded_columns(job: Job) -> dict[str, object]:
    """Columns that repeat a job's events."""
    return {
        "state": str(job.state),
        "attempt": job.attempt,
        "images": len(job.images),
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "started_steady": job.started_steady,
        "finished_steady": job.finished_steady,
    }


def _numbered(job: Job, number: int) -> tuple[Job, dict[str, object]]:
    """The job with the number of its last event, and that event's row."""
    event = replace(job.events[-1], number=number)
    row = {
        "number": number,
        "job_id": job.id,
        "seq": event.seq,
        "at": event.at,
        "fact": event.fact.model_dump_json(),
        "steady": event.steady,
    }
    return replace(job, events=(*job.events[:-1], event)), row


def _place(standing: Standing) -> dict[str, object]:
    return {
        "standing_priority": int(standing.priority),
        "standing_since": float(standing.since),
        "standing_number": standing.number,
    }


def move(db: Connection, standings: Mapping[str, Standing]) -> None:
    """Change the positions of jobs in the queue, of thousands where one moves past them. Raises: RecordDamaged."""
    ids = list(standings)
    update = "UPDATE jobs SET standing_priority = ?, standing_since = ?, standing_number = ?, checksum = ? WHERE id = ?"
    for at in range(0, len(ids), EVENTS_AT_ONCE):
        some = ids[at : at + EVENTS_AT_ONCE]
        changes = []
        for row in db.execute(f"SELECT * FROM jobs WHERE id IN ({marks(len(some))})", some).fetchall():
            if not checksum.is_right(row):
                raise RecordDamaged(row["id"])
            place = _place(standings[row["id"]])
            sealed = checksum.of_job({**dict(row), **place}, row["checksum"])
            changes.append((*place.values(), sealed, row["id"]))
        db.executemany(update, changes)


def hide(db: Connection, job_id: str) -> None:
    """Hide a job, if it exists. Raises: RecordDamaged."""
    _change(db, job_id, {"hidden": 1})


def forget_key(db: Connection, job_id: str) -> None:
    """Free a job's Idempotency-Key for other jobs. Raises: RecordDamaged."""
    _change(db, job_id, {"idempotency_key": None})


def _change(
    db: Connection, job_id: str, columns: Mapping[str, object], added: Sequence[Mapping[str, object]] = ()
) -> None:
    """Change columns of a sound row, except those of its worker, and seal it again. Raises: RecordDamaged."""
    row = db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if row is None:
        return
    if not checksum.is_right(row):
        raise RecordDamaged(job_id)
    sealed = checksum.of_job({**dict(row), **columns}, row["checksum"], added)
    what = ",".join(f"{name} = ?" for name in (*columns, "checksum"))
    db.execute(f"UPDATE jobs SET {what} WHERE id = ?", (*columns.values(), sealed, job_id))


SHORT_CHARS = 64
EVENTS_AT_ONCE = 500
"""Jobs whose events one statement reads."""
WAITING_COLUMNS = "id, owner, lane, model, standing_priority, standing_since, standing_number"


def waiting(row: Row) -> Waiting:
    """A waiting job's place in the queue, from a row with `WAITING_COLUMNS`."""
    standing = Standing(Priority(row["standing_priority"]), row["standing_since"], row["standing_number"])
    return Waiting(row["id"], row["owner"], row["lane"], row["model"], standing)


def waiting_among(db: Connection, job_ids: Sequence[str]) -> list[Waiting]:
    """The places of these jobs in the queue."""
    found = []
    for at in range(0, len(job_ids), EVENTS_AT_ONCE):
        some = job_ids[at : at + EVENTS_AT_ONCE]
        which = f"SELECT {WAITING_COLUMNS} FROM jobs WHERE id IN ({marks(len(some))})"
        found += [waiting(row) for row in db.execute(which, some).fetchall()]
    return found


def append(db: Connection, job: Job, fact: StateFacts, at: float, steady: float) -> Job:
    """Store one more fact, dated no earlier than the last one. Raises: IllegalTransition, RecordDamaged."""
    at, steady = max(at, job.events[-1].at), max(steady, job.events[-1].steady)
    after = job.apply(fact, float(at), float(steady))
    after, event = _numbered(after, db.next_number("events"))
    _insert(db, "events", event)
    columns = _folded_columns(after)
    if after.state is not State.RUNNING:
        columns |= {"worker": None, "lease_until": None}
    _change(db, job.id, columns, [event])
    return after


def seal(db: Connection, job_id: str) -> None:
    """Give a record its first checksum."""
    row = db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
    sealed = checksum.of_job(row, None, stored_events(db, row["number"]))
    db.execute("UPDATE jobs SET checksum = ? WHERE id = ?", (sealed, job_id))


def leased_job(db: Connection, lease: Lease) -> Job | None:
    """The job if this lease still holds it: the fence of every write."""
    row = db.execute(
        "SELECT * FROM jobs WHERE id = ? AND attempt = ? AND state = 'running'", (lease.job.id, lease.job.attempt)
    ).fetchone()
    return None if row is None else fold(db, row)


def find(db: Connection, job_id: str) -> Job | None:
    row = db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
    return None if row is None else fold(db, row)


def is_gone(db: Connection, job_id: str) -> bool:
    """Whether a job has no row."""
    return db.execute("SELECT 1 FROM jobs WHERE id = ?", (job_id,)).fetchone() is None


def fold_all(db: Connection, sql: str, values: Sequence[object]) -> list[Job]:
    """The jobs that a query over whole rows of `jobs` selects. Raises: RecordDamaged."""
    selected = db.execute(sql, values).fetchall()
    stored: dict[object, list[checksum.Cells]] = {}
    for at in range(0, len(selected), EVENTS_AT_ONCE):
        ids = [row["id"] for row in selected[at : at + EVENTS_AT_ONCE]]
        mine = f"job_id IN ({marks(len(ids))})"
        for event in db.execute(f"SELECT * FROM events WHERE {mine} ORDER BY job_id, seq", ids):
            stored.setdefault(event["job_id"], []).append(event)
    return [_sound(row, unpacked(stored.get(row["id"], []))) for row in selected]


def by_number(db: Connection, numbers: Sequence[int], order: str = "ASC") -> list[Job]:
    """The jobs with these numbers, in order of submission, or DESC. Raises: RecordDamaged."""
    jobs: list[Job] = []
    for at in range(0, len(numbers), EVENTS_AT_ONCE):
        some = numbers[at : at + EVENTS_AT_ONCE]
        which = f"number IN ({marks(len(some))})"
        jobs += fold_all(db, f"SELECT * FROM jobs WHERE {which} ORDER BY number {order}", some)
    return jobs


def by_id(db: Connection, job_ids: Sequence[str]) -> list[Job]:
    """Those of these jobs that exist, in the order of their ids. Raises: RecordDamaged."""
    jobs: dict[str, Job] = {}
    for at in range(0, len(job_ids), EVENTS_AT_ONCE):
        some = job_ids[at : at + EVENTS_AT_ONCE]
        which = f"id IN ({marks(len(some))})"
        jobs |= {job.id: job for job in fold_all(db, f"SELECT * FROM jobs WHERE {which}", some)}
    return [jobs[job_id] for job_id in job_ids if job_id in jobs]


def readable(db: Connection, job_ids: Sequence[str]) -> list[Job]:
    """Like `by_id`, without the jobs whose record is damaged."""
    try:
        return by_id(db, job_ids)
    except RecordDamaged:
        jobs = []
        for job_id in job_ids:
            with suppress(RecordDamaged):
                jobs += by_id(db, [job_id])
        return jobs


def plans(db: Connection, job_ids: Sequence[str]) -> list[WaitingPlan]:
    """The plans of those of these jobs that wait; only what was begun is folded. Raises: RecordDamaged."""
    which = f"id IN ({marks(len(job_ids))}) AND state = 'queued'"
    stored = db.execute(f"SELECT id, plan, attempt FROM jobs WHERE {which}", job_ids).fetchall()
    begun = {job.id: job for job in by_id(db, [row["id"] for row in stored if row["attempt"]])}
    waiting = []
    for row in stored:
        if (job := begun.get(row["id"])) is not None:
            waiting.append(WaitingPlan(job.id, job.plan, max(job.first_undrawn, len(job.pages))))
            continue
        try:
            waiting.append(WaitingPlan(row["id"], plan_adapter.validate_json(row["plan"]), 0))
        except UNREADABLE:
            raise RecordDamaged(row["id"]) from None
    return waiting


def fold(db: Connection, row: Row) -> Job:
    """The job of a row, folded from its events. Raises: RecordDamaged."""
    return _sound(row, stored_events(db, row["number"]))


def _sound(row: Row, stored: Sequence[checksum.Cells]) -> Job:
    if not checksum.is_right(row, stored):
        raise RecordDamaged(row["id"])
    return folded(row, stored)


def folded(row: Row, stored: Sequence[checksum.Cells]) -> Job:
    """The job of a row and its events, whatever their checksum. Raises: RecordDamaged."""
    try:
        new = NewJob(
            id=row["id"],
            owner=row["owner"],
            protocol=row["protocol"],
            plan=plan_adapter.validate_json(row["plan"]),
            attached=bool(row["attached"]),
            priority=Priority(row["priority"]),
            adjustments=() if row["adjustments"] == "[]" else _adjustments.validate_json(row["adjustments"]),
            idempotency_key=row["idempotency_key"],
            fingerprint=row["fingerprint"],
            note=row["note"],
        )
        waiting(row)
        job = replace(Job.of(new, row["number"]), hidden=bool(row["hidden"]))
        events = [
            JobEvent(new.id, event["seq"], event["at"], _fact(event), event["number"], event["steady"])
            for event in stored
        ]
        job = job.after(events)
        if [event.seq for event in events] != list(range(1, len(events) + 1)) or job.state is None:
            raise ValueError
    except UNREADABLE:
        raise RecordDamaged(row["id"]) from None
    return job


def stored_events(db: Connection, number: int) -> list[checksum.Cells]:
    """The events of the job with this number, in order, unchecked."""
    mine = "job_id = (SELECT id FROM jobs WHERE number = ?)"
    return unpacked(db.execute(f"SELECT * FROM events WHERE {mine} ORDER BY seq", (number,)))


def events(db: Connection, job_id: str, after: int) -> list[JobEvent]:
    """A job's events with a greater seq, in order. Raises: RecordDamaged."""
    newer = "SELECT * FROM events WHERE job_id = ? AND (seq > ? OR seq = ?) ORDER BY seq"
    return [_event(row) for row in unpacked(db.execute(newer, (job_id, after, SEQ))) if row["seq"] > after]


def events_of(db: Connection, owner: str, after: int, limit: int) -> list[JobEvent]:
    """Events of all jobs of this owner with a greater number, in order."""
    newer = db.execute(
        "SELECT events.* FROM events JOIN jobs ON jobs.id = events.job_id"
        " WHERE events.number > ? AND jobs.owner = ? ORDER BY events.number LIMIT ?",
        (after, owner, limit),
    ).fetchall()
    return [_event(row) for row in newer]


def _fact(event: checksum.Cells) -> StateFacts:
    """The fact of an event row. Raises: ValueError, TypeError if the event cannot be read."""
    if not (isinstance(event["at"], float) and isinstance(event["steady"], float) and isinstance(event["seq"], int)):
        raise TypeError
    return _short(event["fact"]) if len(event["fact"]) <= SHORT_CHARS else state_fact.validate_json(event["fact"])


@lru_cache(maxsize=256)
def _short(text: str) -> StateFacts:
    """A short fact, cached because most jobs have equal ones."""
    return state_fact.validate_json(text)


def _event(row: checksum.Cells) -> JobEvent:
    try:
        fact = _fact(row)
    except UNREADABLE:
        raise RecordDamaged(row["job_id"]) from None
    return JobEvent(row["job_id"], row["seq"], row["at"], fact, row["number"], row["steady"])


def lower(word: str) -> str:
    """The word as SQLite's lower() writes it, which changes ASCII only."""
    return "".join(c.lower() if c.isascii() else c for c in word)


# ---- texts stored by name --------------------------------------------------------------------------


def store_text(db: Connection, name: str, value: str | None) -> None:
    """Store a text under a name; None removes it."""
    if value is None:
        db.execute("DELETE FROM kept WHERE name = ?", (name,))
        return
    db.execute(
        "INSERT INTO kept VALUES (?,?,?) ON CONFLICT (name) DO UPDATE SET value = excluded.value,"
        " checksum = excluded.checksum",
        (name, value, checksum.of_kept(name, value)),
    )


def stored_text(db: Connection, name: str) -> str | None:
    """The text stored under a name; None also if it does not match its checksum."""
    row = db.execute("SELECT * FROM kept WHERE name = ?", (name,)).fetchone()
    return None if row is None or not checksum.is_right_kept(row) else str(row["value"])


def stored_texts(db: Connection, names: Sequence[str]) -> dict[str, str]:
    """The texts stored under these names, without those that do not match their checksums."""
    found = db.execute(f"SELECT * FROM kept WHERE name IN ({marks(len(names))})", names).fetchall()
    return {row["name"]: str(row["value"]) for row in found if checksum.is_right_kept(row)}


def of_turns(turns: RoundRobinState) -> str:
    """Round-robin state as text, for `to_turns`."""
    return json.dumps({"had": sorted(turns.had), "last": [(*group, at) for group, at in turns.last.items()]})


def to_turns(text: str) -> RoundRobinState:
    """Round-robin state from a stored text. Raises: ValueError, TypeError, KeyError, AttributeError."""
    value = json.loads(text)
    had = frozenset((int(level), str(owner)) for level, owner in value["had"])
    return RoundRobinState(had, {(int(level), str(owner)): float(at) for level, owner, at in value["last"]})
