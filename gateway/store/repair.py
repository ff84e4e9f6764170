"""Repair of a stopped gateway's database: damaged records are listed or exported, for `mflux-gateway doctor`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from gateway.disk import sync, sync_path
from gateway.errors import StorageFault
from gateway.store import checks, damage
from gateway.store.backups import FAULTS
from gateway.store.base import DamagedRecord, StoreCorrupt
from gateway.store.clock import StoreClock
from gateway.store.connection import Connection
from gateway.store.database import Database
from gateway.store.schema import VERSION, connect_to_read, damaged, is_whole, unusable

FOLDER = "damaged"


def look(folder: Path) -> list[str]:
    """Damage in a data folder, one sentence each; changes nothing and works while a gateway runs. Blocks.

    Raises: StoreCorrupt if more than single records are damaged.
    """
    file = folder / "jobs.sqlite3"
    if not file.exists():
        return []
    try:
        with closing(connect_to_read(file)) as db:
            db.execute("BEGIN")  # one snapshot for all reads
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise StoreCorrupt(f"The job database has version {version}; this gateway reads {VERSION}.")
            if not is_whole(db):
                raise StoreCorrupt(damaged(file))
            return list(_sentences(db)) if version == VERSION else []
    except FAULTS as error:
        raise StoreCorrupt(unusable(file, error)) from error


def _sentences(db: Connection) -> Iterator[str]:
    for record in damage.listed(db):
        yield f"{record.name} was set aside: {record.reason}"
    report = damage.find(db, is_thorough=not checks.was_read(db))
    for number, reason in report.rows.items():
        yield f"row {number} will be set aside at the next start: {reason}"
    if report.has_rowless:
        yield "events without a row will be set aside at the next start"


async def repair(folder: Path) -> list[Path]:
    """Export every damaged record to `damaged/` in the data folder and remove it from the database; returns the files.

    Raises: StoreLocked, StoreCorrupt, OSError.
    """
    if not (folder / "jobs.sqlite3").exists():
        return []
    database = Database(folder, lambda db: None, lambda: None)
    clock = StoreClock(time.time, time.monotonic)
    try:
        await database.open()
        await database.write(lambda db: checks.at_start(db, clock))
        records = await database.read(
            lambda db: [(record, damage.raw(db, record.number)) for record in damage.listed(db)]
        )
        files = _export(folder / FOLDER, records) if records else []
        await database.write(lambda db: damage.take_out(db, [record.number for record, _ in records]))
        return files
    except StorageFault as fault:
        raise StoreCorrupt(fault.message) from fault
    except FAULTS as error:
        raise StoreCorrupt(unusable(database.file, error)) from error
    finally:
        await database.close()


def _export(folder: Path, records: Sequence[tuple[DamagedRecord, str]]) -> list[Path]:
    folder.mkdir(mode=0o700, exist_ok=True)
    files = []
    for record, raw in records:
        file = folder / f"{record.name.replace(' ', '-')}.{record.number}.json"
        content = {"job_id": record.job_id, "reason": record.reason, "found_at": record.at, **json.loads(raw)}
        with file.open("w", encoding="utf-8") as out:
            file.chmod(0o600)
            json.dump(content, out, indent=2)
            out.flush()
            sync(out.fileno())
        files.append(file)
    sync_path(folder)
    return files
