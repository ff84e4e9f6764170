"""Damaged records: found by their checksums and set aside one by one, so that everything else works on (R-06).

A record is a row of `jobs` with its events, or events whose row is missing. A record that is set aside is stored in
`damaged` as JSON, cell by cell as it was found. It is not listed and not claimed; `mflux-gateway doctor --repair`
exports it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.store import checksum, queries, rows
from gateway.store.base import DamagedRecord
from gateway.store.connection import Connection, Row
from gateway.store.packed import unpacked

PAGE = 40
"""Records checked in one transaction of the reading thread; other reads run between two pages."""
JOB_ID = re.compile(r"[0-9a-f]{32}")
TEXTS = ("id", "owner", "protocol", "lane", "model", "fingerprint", "note")
ALTERED = "it is not as it was written"
UNREADABLE = "it cannot be read by this version"
ROWLESS = "its row is gone"


@dataclass(slots=True)
class DamageReport:
    """Result of a search for damage: numbers of damaged rows with the reason, and whether there are rowless events."""

    rows: dict[int, str] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)
    """Jobs whose checksum is right and that still cannot be read: another version wrote them."""
    unsealed: list[str] = field(default_factory=list)
    """Sound jobs from before checksums were introduced."""
    has_rowless: bool = False
    is_whole: bool = True
    """All records were checked."""


def find(db: Connection, *, suspects: Collection[str] = (), is_thorough: bool = False) -> DamageReport:
    """Check every record against its checksum; also parse those in `suspects`, or all. Raises: sqlite3.Error."""
    report = DamageReport()
    events: dict[Any, str] = {}
    for row in db.execute("SELECT * FROM events ORDER BY number"):
        for event in unpacked([row]):
            events[event["job_id"]] = checksum.of_events(event, events.get(event["job_id"], checksum.NO_EVENTS))
    for row in db.execute("SELECT * FROM jobs ORDER BY number"):
        job_id, number = row["id"], row["number"]
        chain = events.pop(job_id, None)
        if is_thorough and row["checksum"] is None:
            if _is_readable(db, row, and_repeats=True):
                report.unsealed.append(job_id)
            else:
                report.rows[number] = UNREADABLE
        elif not checksum.is_right(row) or row["checksum"][:8] != chain:
            report.rows[number] = ALTERED
        elif (is_thorough or job_id in suspects) and not _is_readable(db, row):
            report.foreign.append(job_id)
            report.rows[number] = UNREADABLE
    report.has_rowless = bool(events)
    return report


def find_among(db: Connection, which: str, values: Sequence[Any], *, suspects: Collection[str] = ()) -> DamageReport:
    """Like `find`, for some records: `which` ends an SQL query for rows of jobs."""
    report = DamageReport(is_whole=False)
    for row in db.execute(f"SELECT * FROM jobs {which}", values).fetchall():
        if not checksum.is_right(row, rows.stored_events(db, row["number"])):
            report.rows[row["number"]] = ALTERED
        elif row["id"] in suspects and not _is_readable(db, row):
            report.rows[row["number"]] = UNREADABLE
    return report


def find_page(db: Connection, after: int) -> tuple[int | None, DamageReport]:
    """Damage in the next page of records, and that page's last number; after the end None and any rowless events."""
    numbers = db.execute("SELECT number FROM jobs WHERE number > ? ORDER BY number LIMIT ?", (after, PAGE)).fetchall()
    if not numbers:
        lost = "SELECT 1 FROM events WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.id = events.job_id) LIMIT 1"
        return None, DamageReport(has_rowless=db.execute(lost).fetchone() is not None)
    last = numbers[-1]["number"]
    return last, find_among(db, "WHERE number > ? AND number <= ?", (after, last))


def _is_readable(db: Connection, row: Row, *, and_repeats: bool = False) -> bool:
    """Whether a row can be parsed; with `and_repeats` also whether its columns agree with its events."""
    try:
        job = rows.folded(row, rows.stored_events(db, row["number"]))
    except rows.RecordDamaged:
        return False
    repeated = (job.state, job.attempt, len(job.images)) == (row["state"], row["attempt"], row["images"])
    return not and_repeats or (repeated and checksum.are_texts([row[name] for name in TEXTS]))


def set_aside(db: Connection, report: DamageReport, at: float, steady: float) -> list[DamagedRecord]:
    """Set the damaged records aside and seal those without a checksum. Raises: sqlite3.Error."""
    for job_id in report.unsealed:
        rows.seal(db, job_id)
    records = [_move_row(db, number, reason, at, steady) for number, reason in report.rows.items()]
    if report.has_rowless or (report.rows and report.is_whole):
        records += _move_rowless(db, at, steady)
    return records


def _move_row(db: Connection, number: int, reason: str, at: float, steady: float) -> DamagedRecord:
    mine = "job_id = (SELECT id FROM jobs WHERE number = ?)"
    row = db.execute("SELECT * FROM jobs WHERE number = ?", (number,)).fetchone()
    events = db.execute(f"SELECT * FROM events WHERE {mine} ORDER BY number", (number,)).fetchall()
    record = _keep(db, row, events, reason, at, steady)
    db.execute(f"DELETE FROM events WHERE {mine}", (number,))
    db.execute("DELETE FROM jobs WHERE number = ?", (number,))
    return record


def _move_rowless(db: Connection, at: float, steady: float) -> list[DamagedRecord]:
    lost = "NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.id = events.job_id)"
    by_job: dict[Any, list[Row]] = {}
    for event in db.execute(f"SELECT * FROM events WHERE {lost} ORDER BY number").fetchall():
        by_job.setdefault(event["job_id"], []).append(event)
    records = [_keep(db, None, events, ROWLESS, at, steady) for events in by_job.values()]
    db.execute(f"DELETE FROM events WHERE {lost}")
    return records


def _keep(
    db: Connection,
    row: Row | None,
    events: Sequence[Row],
    reason: str,
    at: float,
    steady: float,
) -> DamagedRecord:
    job_id = row["id"] if row is not None else events[0]["job_id"]
    job_id = job_id if isinstance(job_id, str) and JOB_ID.fullmatch(job_id) else ""
    owner = _plain(row["owner"]) if row is not None else None
    owner = owner if isinstance(owner, str) else None
    raw = {"row": None if row is None else _cells(row), "events": [_cells(event) for event in events]}
    number = db.next_number("damaged")
    db.execute(
        "INSERT INTO damaged (number, job_id, owner, reason, at, steady, record) VALUES (?,?,?,?,?,?,?)",
        (number, job_id, owner, reason, at, steady, json.dumps(raw)),
    )
    last = db.last_number("events")
    numbers = [event["number"] for event in events if event["number"] <= last]
    queries.forget(db, max([queries.forgotten(db), *numbers]))
    return DamagedRecord(number, job_id, owner, reason, at)


def _cells(row: Row) -> dict[str, Any]:
    return {name: _plain(row[name]) for name in row.keys()}  # noqa: SIM118  (a Row iterates over its values)


def _plain(cell: Any) -> Any:
    """A cell as a JSON value; bytes that are not text as {"hex": ...}."""
    if isinstance(cell, str):
        data = cell.encode("utf-8", "surrogateescape")
        try:
            return data.decode()
        except UnicodeDecodeError:
            return {"hex": data.hex()}
    return {"hex": cell.hex()} if isinstance(cell, bytes) else cell


# ---- what was set aside ------------------------------------------------------------------------------


def listed(db: Connection) -> list[DamagedRecord]:
    """The records that were set aside, oldest first."""
    rows_aside = db.execute("SELECT number, job_id, owner, reason, at FROM damaged ORDER BY number").fetchall()
    return [DamagedRecord(*row) for row in rows_aside]


def of(db: Connection, job_id: str) -> DamagedRecord | None:
    """The record of a job, if it was set aside."""
    row = db.execute(
        "SELECT number, job_id, owner, reason, at FROM damaged WHERE job_id = ? ORDER BY number", (job_id,)
    ).fetchone()
    return None if row is None else DamagedRecord(*row)


def newest_at(db: Connection) -> float | None:
    """The steady time at which the newest record was set aside."""
    at = db.execute("SELECT max(steady) FROM damaged").fetchone()[0]
    return None if at is None else float(at)


def take_out(db: Connection, numbers: Sequence[int]) -> None:
    db.executemany("DELETE FROM damaged WHERE number = ?", [(number,) for number in numbers])


def raw(db: Connection, number: int) -> str:
    """The record as JSON: `row` (None if it is missing) and `events`."""
    return str(db.execute("SELECT record FROM damaged WHERE number = ?", (number,)).fetchone()[0])
