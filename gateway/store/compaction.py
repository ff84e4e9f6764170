"""Compaction of the log of events: the events of a job that ended long ago become one row, which says the same.

Streams do not replay packed events: `queries.forgotten` is never before them. Called inside the caller's transaction.
"""

from __future__ import annotations

from itertools import takewhile

from gateway.store import checksum, queries, rows
from gateway.store.connection import Connection, Row
from gateway.store.packed import packed

REPLAYED_S = 24 * 3600.0
"""Steady seconds for which a stream can replay an event."""
REPLAYED_MOST = 20_000
"""The number of newest events that a stream can replay."""
PAGE = 200
"""Events looked at in one transaction."""
UNUSED_LEAST, UNUSED_SHARE = 2048, 0.2
"""Unused pages of the file that are left for new rows: in number, and as a share of all."""
PAGES_AT_ONCE = 256
COMPACTED = "compacted events"
"""Name of a stored text: the number up to which the events of ended jobs are packed."""


def pack_page(db: Connection, steady: float) -> bool:
    """Pack the next page of events; whether there may be more. Raises: sqlite3.Error."""
    before = int(rows.stored_text(db, COMPACTED) or 0)
    newest = "SELECT number, job_id, steady FROM events WHERE number > ? ORDER BY number LIMIT ?"
    oldest_replayed = db.last_number("events") - REPLAYED_MOST
    page = db.execute(newest, (before, PAGE)).fetchall()

    def is_old(event: Row) -> bool:
        at = event["steady"]  # of another type where it is damaged
        return bool(event["number"] <= oldest_replayed) or (isinstance(at, float) and at < steady - REPLAYED_S)

    old = list(takewhile(is_old, page))
    if not old:
        return False
    last = old[-1]["number"]
    for job_id in dict.fromkeys(event["job_id"] for event in old):
        _pack(db, job_id, last)
    rows.store_text(db, COMPACTED, str(last))
    queries.forget(db, max(queries.forgotten(db), last))
    return bool(len(page) == PAGE)


def shrink(db: Connection) -> bool:
    """Return some unused pages to the file system, where there are many; whether there may be more."""
    unused, pages = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_count"))
    if unused < UNUSED_LEAST or unused < pages * UNUSED_SHARE:
        return False
    db.execute(f"PRAGMA incremental_vacuum({PAGES_AT_ONCE})").fetchall()
    return bool(db.execute("PRAGMA freelist_count").fetchone()[0] < unused)


def _pack(db: Connection, job_id: str, last: int) -> None:
    """Pack the events of a job that ended with an event up to `last`, where its record is sound."""
    row = db.execute("SELECT * FROM jobs WHERE id = ? AND finished_at IS NOT NULL", (job_id,)).fetchone()
    events = db.execute("SELECT * FROM events WHERE job_id = ? ORDER BY seq", (job_id,)).fetchall()
    if row is None or len(events) < 2 or events[-1]["number"] > last or not checksum.is_right(row, events):
        return
    if (cells := packed(events)) is not None:
        db.execute("DELETE FROM events WHERE job_id = ?", (job_id,))
        rows.insert_event(db, cells)
