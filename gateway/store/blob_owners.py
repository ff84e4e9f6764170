"""Who stored which blob, and how many bytes that makes. The files themselves are in `blobs`."""

from __future__ import annotations

import sqlite3
from collections.abc import Container

from gateway.errors import StorageFull
from gateway.store.base import InputBounds

RETRY_S = 3600


def note(
    db: sqlite3.Connection, name: str, size: int, owner: str, payer: str, now: float, bounds: InputBounds | None
) -> bool:
    """Note that the blob is the owner's, too; whether that is new. Raises: StorageFull."""
    mine = db.execute("SELECT 1 FROM blob_owners WHERE sha256 = ? AND owner = ?", (name, owner)).fetchone()
    if mine is not None:
        db.execute("UPDATE blob_owners SET at = ? WHERE sha256 = ? AND owner = ?", (now, name, owner))
        return False
    if bounds is not None:
        is_there = db.execute("SELECT 1 FROM blob_owners WHERE sha256 = ? LIMIT 1", (name,)).fetchone()
        if is_there is None and _total(db) + size > bounds.total_bytes:
            raise StorageFull("There is no room left for pictures that are sent.", retry_after_s=RETRY_S)
        if _of_payer(db, payer) + size > bounds.payer_bytes:
            raise StorageFull("The pictures you sent take all the room that is yours.", retry_after_s=RETRY_S)
    db.execute(
        "INSERT INTO blob_owners (sha256, owner, payer, bytes, at) VALUES (?, ?, ?, ?, ?)",
        (name, owner, payer, size, now),
    )
    return True


def _total(db: sqlite3.Connection) -> int:
    """Each blob once, however many own it."""
    each = "SELECT max(bytes) AS bytes FROM blob_owners GROUP BY sha256"
    return int(db.execute(f"SELECT coalesce(sum(bytes), 0) FROM ({each}) AS blobs").fetchone()[0])


def _of_payer(db: sqlite3.Connection, payer: str) -> int:
    each = "SELECT max(bytes) AS bytes FROM blob_owners WHERE payer = ? GROUP BY sha256"
    return int(db.execute(f"SELECT coalesce(sum(bytes), 0) FROM ({each}) AS blobs", (payer,)).fetchone()[0])


def owns(db: sqlite3.Connection, name: str, owner: str) -> bool:
    return db.execute("SELECT 1 FROM blob_owners WHERE sha256 = ? AND owner = ?", (name, owner)).fetchone() is not None


def forget(db: sqlite3.Connection, name: str, owner: str) -> None:
    """The blob is not the owner's: it could not be written."""
    db.execute("DELETE FROM blob_owners WHERE sha256 = ? AND owner = ?", (name, owner))


def forget_gone(db: sqlite3.Connection, there: Container[str], before: float) -> None:
    """Of the blobs that are not there; what was noted since `before` may be written just now."""
    names = db.execute("SELECT DISTINCT sha256 FROM blob_owners WHERE at < ?", (before,)).fetchall()
    gone = [(row["sha256"], before) for row in names if row["sha256"] not in there]
    db.executemany("DELETE FROM blob_owners WHERE sha256 = ? AND at < ?", gone)
