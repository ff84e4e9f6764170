"""Backups of the job database (R-06). Each one is complete or absent; the newest few are kept.

The number in its name orders a backup, the steady time inside tells its age, so that a clock that jumps changes
neither.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from gateway.disk import sync_path
from gateway.private_files import private_file

FOLDER = "backups"
KEPT = 2
INCOMPLETE = ".incomplete"
NAME = re.compile(r"jobs-(?:(\d{6,}+)-)?\d{8}T[\d.]++Z\.sqlite3")
"""File name of a backup. The number is missing in backups of earlier versions."""
FAULTS = (sqlite3.Error, UnicodeDecodeError)
"""Errors of a damaged database: SQLite's message may quote bytes that are not text."""
STATE = """SELECT (SELECT seq FROM sqlite_sequence WHERE name = 'events'),
(SELECT value FROM kept WHERE name = 'forgotten events'), (SELECT count(*) FROM jobs),
(SELECT max(number) FROM damaged)"""
"""The same as long as nothing has happened. Learned forecasts alone are not worth a backup."""


def back_up(file: Path, steady: float, every_s: float) -> bool:
    """Back up the database, which may be in use; returns whether a backup was due and the database had changed.

    `steady` is the store's steady time, which the database has recorded. Blocks. Raises: OSError, sqlite3.Error.
    """
    folder = file.parent / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    newest = next(reversed(_all(file)), None)
    before = None if newest is None else _look(newest)
    if before is not None and (0 <= steady - before[1] < every_s or before[0] == _state(file)):
        return False
    for leftover in folder.glob(f"*{INCOMPLETE}"):
        leftover.unlink()
    number = 1 + (0 if newest is None else _order(newest)[0])
    place = folder / f"jobs-{number:06}-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}Z.sqlite3"
    unfinished = place.with_name(place.name + INCOMPLETE)
    private_file(unfinished)  # SQLite treats an empty file like a missing one
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True)) as db:  # "rw" does not create a missing file
        db.execute("VACUUM INTO ?", (str(unfinished),))
    sync_path(unfinished)
    unfinished.rename(place)
    sync_path(folder)
    for older in _all(file)[:-KEPT]:
        older.unlink()
    return True


def newest_of(file: Path, version: int) -> Path | None:
    """The newest complete backup of a database that is of this version or an earlier one."""
    return next((copy for copy in reversed(_all(file)) if _is_whole(copy, version)), None)


def _all(file: Path) -> list[Path]:
    """All backups, oldest first."""
    return sorted((copy for copy in (file.parent / FOLDER).glob("jobs-*") if NAME.fullmatch(copy.name)), key=_order)


def _order(copy: Path) -> tuple[int, str]:
    match = NAME.fullmatch(copy.name)
    return int(match[1] or 0) if match else 0, copy.name


def _look(copy: Path) -> tuple[object, float] | None:
    """A backup's state and its steady time; None if it is unusable or of an earlier version."""
    try:
        with closing(_opened(copy)) as db:
            return tuple(db.execute(STATE).fetchone()), float(
                db.execute("SELECT value FROM kept WHERE name = 'steady'").fetchone()[0]
            )
    except (*FAULTS, TypeError, ValueError):
        return None


def _state(file: Path) -> object:
    with closing(sqlite3.connect(file)) as db:
        return tuple(db.execute(STATE).fetchone())


def _is_whole(copy: Path, version: int) -> bool:
    try:
        with closing(_opened(copy)) as db:
            is_read = 0 < db.execute("PRAGMA user_version").fetchone()[0] <= version
            return bool(is_read and db.execute("PRAGMA quick_check").fetchone()[0] == "ok")
    except FAULTS:
        return False


def _opened(copy: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{copy.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
