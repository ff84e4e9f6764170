"""What the store looks at when it is opened, and the time it keeps. Inside a transaction of the caller."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from gateway.store import damage, rows
from gateway.store.base import DamagedRecord, StoreCorrupt
from gateway.store.clock import StoreClock
from gateway.store.schema import CONTENTS

STEADY, CALENDAR, READ_BY = "steady", "calendar", "contents"
"""Kept under these names: steady time, what dates were when, and the shape of what the last gateway wrote."""

NUMBERS = 2**53
"""More rows than there will ever be."""


def at_start(db: sqlite3.Connection, clock: StoreClock) -> list[DamagedRecord]:
    """Take up the time, and set aside what is damaged; what another version wrote is read once, to see that it can be.

    Raises: StoreCorrupt where sound records cannot be read, sqlite3.Error.
    """
    _take_up_time(db, clock)
    _mend_counters(db)
    found = damage.find(db, is_thorough=rows.kept(db, READ_BY) != CONTENTS)
    if found.foreign:
        raise StoreCorrupt(
            f"{len(found.foreign)} jobs in the database were written by another version of the gateway and cannot be "
            f"read by this one, {found.foreign[0]} among them. Start the version that wrote them."
        )
    rows.keep(db, READ_BY, CONTENTS)
    return damage.set_aside(db, found, clock.date(), clock.steady())


def set_aside(db: sqlite3.Connection, clock: StoreClock, suspects: Collection[str]) -> list[DamagedRecord]:
    """Move what is damaged out of the way; `suspects` could not be read. Raises: sqlite3.Error."""
    return damage.set_aside(db, damage.find(db, suspects=suspects), clock.date(), clock.steady())


def keep_time(db: sqlite3.Connection, clock: StoreClock) -> None:
    clock.note()
    if not clock.is_noted:
        rows.keep(db, CALENDAR, clock.to_text())
    rows.keep(db, STEADY, repr(clock.steady()))


def _take_up_time(db: sqlite3.Connection, clock: StoreClock) -> None:
    """From the newest moment that is on record."""
    newest = "typeof(steady) = 'real' ORDER BY number DESC LIMIT 1"
    event = db.execute(f"SELECT steady FROM events WHERE {newest}").fetchone()
    moments = [] if event is None else [float(event[0])]
    for name, read in ((STEADY, lambda text: moments.append(float(text))), (CALENDAR, clock.read_text)):
        kept = rows.kept(db, name)
        try:
            if kept is not None:
                read(kept)
        except rows.UNREADABLE:
            rows.keep(db, name, None)
    if moments:
        clock.start(max(moments))
    keep_time(db, clock)


def _mend_counters(db: sqlite3.Connection) -> None:
    """The last number given to a row and to an event: one that is damaged may give out no more."""
    for table in ("jobs", "events", "damaged"):
        last = db.execute(f"SELECT coalesce(max(number), 0) FROM {table}").fetchone()[0]
        found = db.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchall()
        if found and not (len(found) == 1 and isinstance(found[0][0], int) and last <= found[0][0] < NUMBERS):
            db.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = ?", (last, table))
