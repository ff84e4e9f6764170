"""Checks of the store when it is opened, and its stored time. Called inside the caller's transaction."""

from __future__ import annotations

import logging
from itertools import islice

from gateway.store import blob_owners, checksum, damage, queries, rows
from gateway.store.base import DamagedRecord, StoreCorrupt
from gateway.store.clock import Clock, StoreClock
from gateway.store.connection import Connection, Row
from gateway.store.schema import CONTENTS

log = logging.getLogger("gateway.store")

STEADY, CALENDAR, READ_BY = "steady", "calendar", "contents"
"""Names of stored texts: steady time, the dates at steady times, and the shape of what the last gateway wrote."""

NEWEST = 300
"""Records that are checked at the start, in about 0.1 s; if there are more, retention checks the others."""
LAST = "ORDER BY number DESC LIMIT ?"
NUMBERS = 2**53
"""More rows than there will ever be."""


def at_start(db: Connection, clock: StoreClock) -> list[DamagedRecord]:
    """Restore the time and set damaged records aside; records written by another version are read once as a test.

    If nothing is damaged, nothing is written, so that a full disk prevents no start.
    Raises: StoreCorrupt if sound records cannot be read, sqlite3.Error.
    """
    _mend_counters(db)
    is_new = not was_read(db)
    _mend_kept(db, seals=is_new)
    blob_owners.mend(db)
    many = db.execute("SELECT count(*) FROM (SELECT 1 FROM jobs LIMIT ?)", (NEWEST + 1,)).fetchone()[0] > NEWEST
    report = damage.find_among(db, LAST, (NEWEST,)) if many and not is_new else damage.find(db, is_thorough=is_new)
    if report.foreign:
        raise StoreCorrupt(
            f"{len(report.foreign)} jobs in the database were written by another version of the gateway and cannot be "
            f"read by this one, {report.foreign[0]} among them. Start the version that wrote them."
        )
    _take_up_time(db, clock)
    if is_new:
        rows.store_text(db, READ_BY, CONTENTS)
    return damage.set_aside(db, report, clock.date(), clock.steady())


def was_read(db: Connection) -> bool:
    """Whether a gateway of this version has read and sealed every record. Raises: sqlite3.Error."""
    return rows.stored_text(db, READ_BY) == CONTENTS


def set_aside(db: Connection, clock: Clock, suspect: str | None) -> list[DamagedRecord]:
    """Set damaged records aside. `suspect` is a job that could not be read: if it is found, no others are looked for.

    Raises: sqlite3.Error.
    """
    report = damage.DamageReport()
    if suspect is not None and checksum.are_texts((suspect,)):
        report = damage.find_among(db, "WHERE id = ?", (suspect,), suspects=(suspect,))
    if not report.rows:
        report = damage.find(db, suspects=() if suspect is None else (suspect,))
    return damage.set_aside(db, report, clock.date(), clock.steady())


def set_page_aside(db: Connection, clock: Clock, after: int) -> list[DamagedRecord]:
    """Like `set_aside`, for the page of records after this number."""
    _, report = damage.find_page(db, after)
    return damage.set_aside(db, report, clock.date(), clock.steady())


def keep_time(db: Connection, clock: StoreClock) -> None:
    clock.note()
    if not clock.is_noted:
        rows.store_text(db, CALENDAR, clock.to_text())
    rows.store_text(db, STEADY, repr(clock.steady()))


def _take_up_time(db: Connection, clock: StoreClock) -> None:
    """Restore the steady time from the newest sound record."""
    each = "SELECT steady, jobs.* FROM events JOIN jobs ON jobs.id = events.job_id WHERE typeof(steady) = 'real'"
    sound = (row["steady"] for row in db.execute(f"{each} ORDER BY events.number DESC") if _is_sound(db, row))
    moments: list[float] = list(islice(sound, 1))
    for name, read in ((STEADY, lambda text: moments.append(float(text))), (CALENDAR, clock.read_text)):
        stored = rows.stored_text(db, name)
        if stored is not None:
            read(stored)
    if moments:
        clock.start(max(moments))


def _is_sound(db: Connection, row: Row) -> bool:
    """Whether a record is sound; one from before checksums were introduced counts."""
    return row["checksum"] is None or checksum.is_right(row, rows.stored_events(db, row["number"]))


def _mend_kept(db: Connection, *, seals: bool) -> None:
    """Remove stored texts that are damaged; with `seals`, those from before checksums are sealed."""
    for row in db.execute("SELECT * FROM kept").fetchall():
        name, value = row["name"], row["value"]
        if checksum.is_right_kept(row):
            continue
        if seals and row["checksum"] is None and checksum.are_texts((name, value)):
            rows.store_text(db, name, value)
            continue
        log.warning("the stored text %s is damaged and was removed", ascii(name))
        key = name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name
        db.execute("DELETE FROM kept WHERE CAST(name AS BLOB) = ?", (key,))
        if name == queries.FORGOTTEN:  # it is unknown which events were missed: readers start again
            queries.forget(db, db.last_number("events"))


def _mend_counters(db: Connection) -> None:
    """Repair the last number given to a row and to an event: a damaged counter might give out no more."""
    for table in ("jobs", "events", "damaged"):
        newest = f"SELECT coalesce(max(number), 0) FROM {table} WHERE number < ?"
        last = db.execute(newest, (NUMBERS,)).fetchone()[0]
        counters = db.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchall()
        if counters and not (
            len(counters) == 1 and isinstance(counters[0][0], int) and last <= counters[0][0] < NUMBERS
        ):
            db.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = ?", (last, table))
