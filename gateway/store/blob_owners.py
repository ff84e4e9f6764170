"""Blob owners: who stored which blob, and how many bytes that makes. The files themselves are in `blobs`."""

from __future__ import annotations

from collections.abc import Container, Mapping

from gateway.errors import StorageFull
from gateway.store.base import InputBounds
from gateway.store.connection import Connection

RETRY_S = 3600
BYTES_MOST = 2**40
"""More bytes than any blob has."""


def note(db: Connection, name: str, size: int, owner: str, payer: str, now: float, bounds: InputBounds | None) -> bool:
    """Record that the owner has the blob, too; returns whether that is new. Raises: StorageFull."""
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


def mend(db: Connection) -> None:
    """Remove damaged rows: a client that needs such a blob by name sends it again."""
    if not db.dialect.has_loose_types:
        return
    texts = " OR ".join(f"typeof({name}) != 'text'" for name in ("sha256", "owner", "payer"))
    wrong = (
        f"FROM blob_owners WHERE {texts} OR length(sha256) != 64 OR sha256 GLOB '*[^0-9a-f]*'"
        " OR typeof(bytes) != 'integer' OR bytes NOT BETWEEN 0 AND ? OR typeof(at) != 'real'"
    )
    if db.execute(f"SELECT 1 {wrong} LIMIT 1", (BYTES_MOST,)).fetchone() is not None:
        db.execute(f"DELETE {wrong}", (BYTES_MOST,))


def _total(db: Connection) -> int:
    """Bytes of all blobs, each counted once, however many owners it has."""
    each = "SELECT max(bytes) AS bytes FROM blob_owners GROUP BY sha256"
    return int(db.execute(f"SELECT coalesce(sum(bytes), 0) FROM ({each}) AS blobs").fetchone()[0])


def _of_payer(db: Connection, payer: str) -> int:
    each = "SELECT max(bytes) AS bytes FROM blob_owners WHERE payer = ? GROUP BY sha256"
    return int(db.execute(f"SELECT coalesce(sum(bytes), 0) FROM ({each}) AS blobs", (payer,)).fetchone()[0])


def counts_otherwise(db: Connection, name: str, size: int) -> bool:
    """Whether a row has another size: the same pixels were sent as a file of another size before."""
    query = "SELECT 1 FROM blob_owners WHERE sha256 = ? AND bytes != ? LIMIT 1"
    return db.execute(query, (name, size)).fetchone() is not None


def count(db: Connection, name: str, size: int) -> None:
    """Record the stored size of a blob in bytes."""
    db.execute("UPDATE blob_owners SET bytes = ? WHERE sha256 = ?", (size, name))


def owns(db: Connection, name: str, owner: str) -> bool:
    return db.execute("SELECT 1 FROM blob_owners WHERE sha256 = ? AND owner = ?", (name, owner)).fetchone() is not None


def forget(db: Connection, name: str, owner: str) -> None:
    """Remove the owner from a blob that could not be written."""
    db.execute("DELETE FROM blob_owners WHERE sha256 = ? AND owner = ?", (name, owner))


def forget_gone(db: Connection, names_on_disk: Container[str], before: float) -> None:
    """Remove the rows of missing blobs; rows added since `before` stay, because their files may be being written."""
    names = db.execute("SELECT DISTINCT sha256 FROM blob_owners WHERE at < ?", (before,)).fetchall()
    gone = [(row["sha256"], before) for row in names if row["sha256"] not in names_on_disk]
    db.executemany("DELETE FROM blob_owners WHERE sha256 = ? AND at < ?", gone)


def recount(db: Connection, sizes: Mapping[str, int], before: float) -> None:
    """Record the actual sizes in bytes; rows added since `before` stay, because their files may be changing."""
    noted_sizes = db.execute("SELECT DISTINCT sha256, bytes FROM blob_owners WHERE at < ?", (before,)).fetchall()
    wrong = {row["sha256"] for row in noted_sizes if row["bytes"] != sizes.get(row["sha256"], row["bytes"])}
    for name in wrong:
        count(db, name, sizes[name])
