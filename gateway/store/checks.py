"""What the store looks at when it is opened, and the time it keeps. Inside a transaction of the caller."""

from __future__ import annotations

import logging
import sqlite3
from itertools import islice

from gateway.store import blob_owners, checksum, damage, queries, rows
from gateway.store.base import DamagedRecord, StoreCorrupt
from gateway.store.clock import StoreClock
from gateway.store.schema import CONTENTS

log = logging.getLogger("gateway.store")

STEADY, CALENDAR, READ_BY = "steady", "calendar", "contents"
"""Kept under these names: steady time, what dates were when, and the shape of what the last gateway wrote."""

NEWEST = 300
"""Records that are looked at by the start, some 0.1 s; where there are more, the others are a duty of retention's."""
LAST = "ORDER BY number DESC LIMIT ?"
NUMBERS = 2**53
"""More rows than there will ever be."""


def at_start(db: sqlite3.Connection, clock: StoreClock) -> list[DamagedRecord]:
    """Take up the time, and set aside what is damaged; what another version wrote is read once, to see that it can be.

    Where all is well nothing is written: a full disk keeps nobody from starting.
    Raises: StoreCorrupt where sound records cannot be read, sqlite3.Error.
    """
    _mend_counters(db)
    is_new = not was_read(db)
    _mend_kept(db, seals=is_new)
    blob_owners.mend(db)
    many = db.execute("SELECT count(*) FROM (SELECT 1 FROM jobs LIMIT ?)", (NEWEST + 1,)).fetchone()[0] > NEWEST
    found = damage.find_among(db, LAST, (NEWEST,)) if many and not is_new else damage.find(db, is_thorough=is_new)
    if found.foreign:
        raise StoreCorrupt(
            f"{len(found.foreign)} jobs in the database were written by another version of the gateway and cannot be "
            f"read by this one, {found.foreign[0]} among them. Start the version that wrote them."
        )
    _take_up_time(db, clock)
    if is_new:
        rows.keep(db, READ_BY, CONTENTS)
    return damage.set_aside(db, found, clock.date(), clock.steady())


def was_read(db: sqlite3.Connection) -> bool:
    """Whether a gateway of this version has read and sealed all that is on record. Raises: sqlite3.Error."""
    return rows.kept(db, READ_BY) == CONTENTS


def set_aside(db: sqlite3.Connection, clock: StoreClock, suspect: str | None) -> list[DamagedRecord]:
    """Move what is damaged out of the way. `suspect` could not be read: where it is known, others are left to be met.

    Raises: sqlite3.Error.
    """
    found = damage.Found()
    if suspect is not None and checksum.are_texts((suspect,)):
        found = damage.find_among(db, "WHERE id = ?", (suspect,), suspects=(suspect,))
    if not found.rows:
        found = damage.find(db, suspects=() if suspect is None else (suspect,))
    return damage.set_aside(db, found, clock.date(), clock.steady())


def set_page_aside(db: sqlite3.Connection, clock: StoreClock, after: int) -> list[DamagedRecord]:
    """As `set_aside`, of the page of records after this number."""
    _, found = damage.find_page(db, after)
    return damage.set_aside(db, found, clock.date(), clock.steady())


def keep_time(db: sqlite3.Connection, clock: StoreClock) -> None:
    clock.note()
    if not clock.is_noted:
        rows.keep(db, CALENDAR, clock.to_text())
    rows.keep(db, STEADY, repr(clock.steady()))


def _take_up_time(db: sqlite3.Connection, clock: StoreClock) -> None:
    """From the newest moment that is on record and sound."""
    each = "SELECT steady, jobs.* FROM events JOIN jobs ON jobs.id = events.job_id WHERE typeof(steady) = 'real'"
    sound = (row["steady"] for row in db.execute(f"{each} ORDER BY events.number DESC") if _is_sound(db, row))
    moments: list[float] = list(islice(sound, 1))
    for name, read in ((STEADY, lambda text: moments.append(float(text))), (CALENDAR, clock.read_text)):
        kept = rows.kept(db, name)
        if kept is not None:
            read(kept)
    if moments:
        clock.start(max(moments))


def _is_sound(db: sqlite3.Connection, row: sqlite3.Row) -> bool:
    """Also one of a time before checksums."""
    return row["checksum"] is None or checksum.is_right(row, rows.stored_events(db, row["number"]))


def _mend_kept(db: sqlite3.Connection, *, seals: bool) -> None:
    """Forget small things that are not as they were kept; with `seals`, those of a time before checksums are sealed."""
    for row in db.execute("SELECT * FROM kept").fetchall():
        name, value = row["name"], row["value"]
        if checksum.is_right_kept(row):
            continue
        if seals and row["checksum"] is None and checksum.are_texts((name, value)):
            rows.keep(db, name, value)
            continue
        log.warning("what was kept as %s is damaged and forgotten", ascii(name))
        key = name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name
        db.execute("DELETE FROM kept WHERE CAST(name AS BLOB) = ?", (key,))
        if name == queries.FORGOTTEN:  # nobody can say what was missed: readers begin anew
            queries.forget(db, rows.last_number(db))


def _mend_counters(db: sqlite3.Connection) -> None:
    """The last number given to a row and to an event: one that is damaged may give out no more."""
    for table in ("jobs", "events", "damaged"):
        newest = f"SELECT coalesce(max(number), 0) FROM {table} WHERE number < ?"
        last = db.execute(newest, (NUMBERS,)).fetchone()[0]
        found = db.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchall()
        if found and not (len(found) == 1 and isinstance(found[0][0], int) and last <= found[0][0] < NUMBERS):
            db.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = ?", (last, table))
