"""Checksums of a job's record: CRC-32 of its row and of its events, which finds what a disk or a hand has altered.

A checksum is 16 hexadecimal digits: eight of the events, each added to those before it, and eight of the row's columns.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from zlib import crc32

COLUMNS = (
    "number",
    "id",
    "owner",
    "protocol",
    "attached",
    "priority",
    "lane",
    "model",
    "plan",
    "adjustments",
    "idempotency_key",
    "fingerprint",
    "note",
    "hidden",
    "state",
    "attempt",
    "images",
    "created_at",
    "started_at",
    "finished_at",
    "started_steady",
    "finished_steady",
    "standing_priority",
    "standing_since",
    "standing_number",
)
"""All of a row but who works on it. To cover a column that comes later, its step of the schema has to seal all rows."""
EVENT_COLUMNS = ("number", "job_id", "seq", "at", "steady", "fact")
NO_EVENTS = "00000000"


def of_row(row: sqlite3.Row) -> str:
    """Of a row's columns."""
    return f"{crc32(_bytes([row[name] for name in COLUMNS])):08x}"


def of_events(event: sqlite3.Row, before: str = NO_EVENTS) -> str:
    """Of the events up to this one; `before` is the same of those up to the last."""
    return f"{crc32(_bytes([event[name] for name in EVENT_COLUMNS]), int(before, 16)):08x}"


def _bytes(cells: Sequence[object]) -> bytes:
    """`ascii` writes the same in every version of Python, and tells 1 from "1"."""
    return ascii(tuple(cells)).encode()


def seal(db: sqlite3.Connection, job_id: str, event: sqlite3.Row | None = None) -> None:
    """Make a row's checksum right after a change; `event` was added by it."""
    row = db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
    events = (row["checksum"] or NO_EVENTS)[:8]
    if event is not None:
        events = of_events(event, events)
    db.execute("UPDATE jobs SET checksum = ? WHERE id = ?", (events + of_row(row), job_id))


def is_right(row: sqlite3.Row, events: Sequence[sqlite3.Row] | None = None) -> bool:
    """Whether a row, and its events in order where they are given, are as they were written."""
    checksum = row["checksum"]
    if not isinstance(checksum, str) or checksum[8:] != of_row(row):
        return False
    if events is None:
        return True
    found = NO_EVENTS
    for event in events:
        found = of_events(event, found)
    return checksum[:8] == found
