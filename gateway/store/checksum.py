"""Checksums: CRC-32 of a job's row and of its events, and of small things kept, which finds what was altered.

That of a job is 16 hexadecimal digits: eight of the events, each added to those before it, and eight of its columns.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias
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


Cells: TypeAlias = Mapping[str, Any] | sqlite3.Row
"""Of one row by column, as they are read: a whole number in a REAL column is a float."""


def of_job(row: Cells, before: str | None, added: Iterable[Cells] = ()) -> str:
    """Of a row as it will stand, whose checksum was `before`, with these events added to those it had."""
    events = (before or NO_EVENTS)[:8]
    for event in added:
        events = of_events(event, events)
    return events + of_row(row)


def of_row(row: Cells) -> str:
    """Of a row's columns."""
    return f"{crc32(_bytes([row[name] for name in COLUMNS])):08x}"


def of_events(event: Cells, before: str = NO_EVENTS) -> str:
    """Of the events up to this one; `before` is the same of those up to the last."""
    return f"{crc32(_bytes([event[name] for name in EVENT_COLUMNS]), int(before, 16)):08x}"


def of_kept(name: str, value: str) -> str:
    """Of a text kept under a name."""
    return f"{crc32(_bytes([name, value])):08x}"


def is_right_kept(row: sqlite3.Row) -> bool:
    """Whether a row of `kept` is as it was written."""
    return bool(row["checksum"] == of_kept(row["name"], row["value"]))


def are_texts(cells: Sequence[object]) -> bool:
    """Whether these are texts of sound UTF-8."""
    try:
        return all(isinstance(cell, str) and cell.encode() is not None for cell in cells)
    except UnicodeEncodeError:
        return False


def _bytes(cells: Sequence[object]) -> bytes:
    """Cells as Python writes them in ASCII, whatever its version: 1 is not "1"."""
    return ascii(cells).encode()


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
