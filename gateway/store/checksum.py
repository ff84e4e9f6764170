"""Checksums (CRC-32) of a job's row, of its events and of stored texts, by which changes are found.

A job's checksum has 16 hexadecimal digits: eight of its events, each added to the earlier ones, and eight of its row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias
from zlib import crc32

from gateway.store.connection import Row

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
"""All columns of a row except those of its worker. A new column must be sealed in all rows by its schema upgrade."""
EVENT_COLUMNS = ("number", "job_id", "seq", "at", "steady", "fact")
NO_EVENTS = "00000000"


Cells: TypeAlias = Mapping[str, Any] | Row
"""Cells of one row by column, as they are read: a whole number in a REAL column is a float."""


def of_job(row: Cells, before: str | None, added: Iterable[Cells] = ()) -> str:
    """The checksum of a row after a write; `before` is its old checksum, `added` the events that are new."""
    events = (before or NO_EVENTS)[:8]
    for event in added:
        events = of_events(event, events)
    return events + of_row(row)


def of_row(row: Cells) -> str:
    """The checksum of a row's columns."""
    return f"{crc32(_bytes([row[name] for name in COLUMNS])):08x}"


def of_events(event: Cells, before: str = NO_EVENTS) -> str:
    """The checksum of the events up to this one; `before` is that of the events up to the previous one."""
    return f"{crc32(_bytes([event[name] for name in EVENT_COLUMNS]), int(before, 16)):08x}"


def of_kept(name: str, value: str) -> str:
    """The checksum of a text stored under a name."""
    return f"{crc32(_bytes([name, value])):08x}"


def is_right_kept(row: Row) -> bool:
    """Whether a row of the table `kept` matches its checksum."""
    return bool(row["checksum"] == of_kept(row["name"], row["value"]))


def are_texts(cells: Sequence[object]) -> bool:
    """Whether all cells are texts of valid UTF-8."""
    try:
        return all(isinstance(cell, str) and cell.encode() is not None for cell in cells)
    except UnicodeEncodeError:
        return False


def _bytes(cells: Sequence[object]) -> bytes:
    """Cells as Python's ASCII literals, which are the same in every version: 1 differs from "1"."""
    return ascii(cells).encode()


def is_right(row: Row, events: Sequence[Cells] | None = None) -> bool:
    """Whether a row, and its events in order if given, match their checksum."""
    checksum = row["checksum"]
    if not isinstance(checksum, str) or checksum[8:] != of_row(row):
        return False
    if events is None:
        return True
    chain = NO_EVENTS
    for event in events:
        chain = of_events(event, chain)
    return checksum[:8] == chain
