"""Copies of the job database to go back to (R-06). Each is whole or not there; the newest few stay."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from gateway.disk import sync_path
from gateway.private import private_file

FOLDER = "backups"
KEPT = 2
INCOMPLETE = ".incomplete"


def back_up(file: Path, every_s: float) -> bool:
    """Copy the database, which may be in use; whether it was time to, and there was news. Blocks. Raises: OSError."""
    folder = file.parent / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    newest = newest_of(file)
    made_at = 0.0 if newest is None else newest.stat().st_mtime
    if time.time() - made_at < every_s or made_at > _changed_at(file):
        return False
    for leftover in folder.glob(f"*{INCOMPLETE}"):
        leftover.unlink()
    place = folder / f"jobs-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}Z.sqlite3"
    unfinished = place.with_name(place.name + INCOMPLETE)
    private_file(unfinished)  # an empty file is taken as if there were none
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True)) as db:  # never makes an empty one
        db.execute("VACUUM INTO ?", (str(unfinished),))
    sync_path(unfinished)
    unfinished.rename(place)
    sync_path(folder)
    for older in _all(file)[:-KEPT]:
        older.unlink()
    return True


def newest_of(file: Path) -> Path | None:
    """The newest copy of a database."""
    return next(reversed(_all(file)), None)


def _all(file: Path) -> list[Path]:
    """Oldest first."""
    return sorted((file.parent / FOLDER).glob("jobs-*.sqlite3"))


def _changed_at(file: Path) -> float:
    """What was committed lies in the journal until it is taken over."""
    journal = file.with_name(file.name + "-wal")
    return max(part.stat().st_mtime for part in (file, journal) if part.exists())
