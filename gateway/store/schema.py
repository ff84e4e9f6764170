"""Schema of the embedded database file: its tables, its pragmas, and the check that it must pass before use."""

from __future__ import annotations

import re
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from typing import Any

from gateway.store.backups import FAULTS, newest_of
from gateway.store.base import StoreCorrupt
from gateway.store.connection import Dialect

VERSION = 8
"""Database version, raised with the tables and with the JSON in them: no newer database is read (`CONTENTS`)."""
CONTENTS = "969bdd2bb8308d20"
"""Digest of the shape of plans, facts and adjustments. Each change of theirs needs at least a step of `UPGRADES`."""
BLOB_OWNERS = """
CREATE TABLE IF NOT EXISTS blob_owners (
    sha256 TEXT NOT NULL,
    owner TEXT NOT NULL,
    payer TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (sha256, owner)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS blob_payers ON blob_owners (payer);
"""
DAMAGED = """
CREATE TABLE damaged (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id TEXT NOT NULL,
    owner TEXT,
    reason TEXT NOT NULL,
    at REAL NOT NULL,
    steady REAL NOT NULL,
    record TEXT NOT NULL
);
"""
LISTS = """
CREATE INDEX jobs_owner ON jobs (owner, number DESC, id);
CREATE INDEX jobs_state ON jobs (owner, state, number DESC, id, hidden);
CREATE INDEX jobs_protocol ON jobs (owner, protocol, state, hidden, number DESC, id);
CREATE INDEX jobs_images ON jobs (owner, number DESC, id, protocol, images) WHERE images > 0;
CREATE INDEX jobs_model ON jobs (owner, model, number DESC, id, protocol, images) WHERE images > 0;
CREATE INDEX jobs_ended ON jobs (number, finished_at) WHERE finished_at IS NOT NULL;
"""
"""Indexes of which each holds all columns that a list reads (`gateway.store.lists`)."""
TABLES = (
    """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    protocol TEXT NOT NULL,
    attached INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    lane TEXT NOT NULL,
    model TEXT NOT NULL,
    plan TEXT NOT NULL,
    adjustments TEXT NOT NULL,
    idempotency_key TEXT,
    fingerprint TEXT NOT NULL,
    note TEXT NOT NULL DEFAULT '',
    hidden INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    images INTEGER NOT NULL,
    created_at REAL NOT NULL,
    started_at REAL,
    finished_at REAL,
    worker TEXT,
    lease_until REAL,
    standing_priority INTEGER NOT NULL DEFAULT 0,
    standing_since REAL NOT NULL DEFAULT 0,
    standing_number INTEGER NOT NULL DEFAULT 0,
    started_steady REAL,
    finished_steady REAL,
    checksum TEXT
);
CREATE UNIQUE INDEX jobs_idempotency ON jobs (owner, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX jobs_live ON jobs (state, owner) WHERE finished_at IS NULL;
CREATE INDEX jobs_finished ON jobs (finished_steady) WHERE finished_at IS NOT NULL;
CREATE INDEX jobs_counts ON jobs (state, protocol, images, started_steady, finished_steady);
"""
    + LISTS
    + """
CREATE TABLE events (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    at REAL NOT NULL,
    fact TEXT NOT NULL,
    steady REAL NOT NULL DEFAULT 0,
    UNIQUE (job_id, seq)
);
CREATE TABLE kept (name TEXT PRIMARY KEY, value TEXT NOT NULL, checksum TEXT) WITHOUT ROWID;
"""
    + DAMAGED
    + BLOB_OWNERS
)
UPGRADES = {
    1: "ALTER TABLE jobs ADD COLUMN note TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE jobs ADD COLUMN hidden INTEGER NOT NULL DEFAULT 0;",
    2: """
ALTER TABLE jobs ADD COLUMN standing_priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN standing_since REAL NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN standing_number INTEGER NOT NULL DEFAULT 0;
UPDATE jobs SET standing_priority = priority, standing_since = created_at, standing_number = number;
DROP INDEX jobs_queue;
DROP INDEX jobs_running;
CREATE INDEX jobs_live ON jobs (state, owner) WHERE finished_at IS NULL;
CREATE TABLE events_3 (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    at REAL NOT NULL,
    fact TEXT NOT NULL,
    UNIQUE (job_id, seq)
);
INSERT INTO events_3 (job_id, seq, at, fact) SELECT job_id, seq, at, fact FROM events
    ORDER BY max(at) OVER (PARTITION BY job_id ORDER BY seq), job_id, seq;
DROP TABLE events;
ALTER TABLE events_3 RENAME TO events;
CREATE TABLE kept (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
""",
    3: BLOB_OWNERS,
    4: """
ALTER TABLE jobs ADD COLUMN started_steady REAL;
ALTER TABLE jobs ADD COLUMN finished_steady REAL;
ALTER TABLE jobs ADD COLUMN checksum TEXT;
ALTER TABLE events ADD COLUMN steady REAL NOT NULL DEFAULT 0;
UPDATE jobs SET started_steady = started_at, finished_steady = finished_at;
UPDATE events SET steady = at;
DROP INDEX jobs_finished;
DROP INDEX jobs_owner;
CREATE INDEX jobs_owner ON jobs (owner, number DESC, id, state, protocol, hidden);
CREATE INDEX jobs_finished ON jobs (finished_steady) WHERE finished_at IS NOT NULL;
CREATE INDEX jobs_counts ON jobs (state, protocol, images, started_steady, finished_steady);
ALTER TABLE kept ADD COLUMN checksum TEXT;
"""
    + DAMAGED,
    5: "",  # `PromptRead` is a new fact, and non_finite_picture a new failure code
    6: "DROP INDEX jobs_owner;" + LISTS,
    7: "",  # plans have a `sampling`, and LoRAs a scale for text encoders
}
"""SQL that upgrades a database of this version to the next one."""


PAGE_BYTES = 4096
JOURNAL_BYTES = 16 * 2**20
"""Size to which the journal is cut after a large transaction."""
SHRINKS = "PRAGMA auto_vacuum=INCREMENTAL"
"""Lets unused pages be returned to the file system; takes effect with the first table or with VACUUM."""
WHOLE_BYTES = 64 * 2**20
"""About ten times what the default retention keeps."""
ROW_FAULT = re.compile(r"(NULL|NUMERIC|TEXT|BLOB|INT|REAL) value in ")
"""integrity_check's message about one cell, which damages one record only."""


PROMPT = "coalesce(plan->>'prompt', plan->>'drawn'->>'prompt')"
DIALECT = Dialect(PROMPT, has_word=f"instr(lower({PROMPT}), ?) > 0", unindexed="+", has_loose_types=True)


class SqliteConnection(sqlite3.Connection):
    """A `gateway.store.connection.Connection` of SQLite."""

    dialect = DIALECT

    def stream(self, sql: str, values: Sequence[Any]) -> sqlite3.Cursor:
        return self.execute(sql, values)

    def next_number(self, table: str) -> int:
        """The number that AUTOINCREMENT gives next."""
        query = f"SELECT coalesce(max(number), 0) FROM {table}"
        return max(int(self.execute(query).fetchone()[0]), self.last_number(table)) + 1

    def last_number(self, table: str) -> int:
        row = self.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
        return row[0] if row is not None and isinstance(row[0], int) else 0


def connect(file: Path) -> SqliteConnection:
    """A connection whose commits are on disk when they return."""
    is_new = not file.exists() or file.stat().st_size == 0
    db = sqlite3.connect(file, isolation_level=None, check_same_thread=False, factory=SqliteConnection)
    _prepare(db)
    if is_new:
        db.execute(SHRINKS)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute(f"PRAGMA journal_size_limit={JOURNAL_BYTES}")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("PRAGMA foreign_keys=1")
    if sys.platform == "darwin":  # fsync alone leaves the bytes in the drive's cache there
        db.execute("PRAGMA fullfsync=1")
        db.execute("PRAGMA checkpoint_fullfsync=1")
    return db


def connect_to_read(file: Path) -> SqliteConnection:
    """A read-only connection, which works while another process has the database open."""
    db = sqlite3.connect(
        f"{file.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, factory=SqliteConnection
    )
    _prepare(db)
    return db


def _prepare(db: sqlite3.Connection) -> None:
    db.row_factory = sqlite3.Row
    db.text_factory = _text
    db.execute("PRAGMA busy_timeout=5000")


def _text(data: bytes) -> str:
    """Text of any bytes: invalid UTF-8 damages its record, not the whole query."""
    return data.decode("utf-8", "surrogateescape")


def damaged(file: Path) -> str:
    """The message for an unusable database, with the backup to restore if there is one."""
    return f"The job database is damaged; move {file.name}* aside to start with an empty database{_way_back(file)}."


def _way_back(file: Path) -> str:
    newest = newest_of(file, VERSION)
    return "" if newest is None else f", or copy {newest.parent.name}/{newest.name} to its place to restore it"


def open_checked(file: Path) -> SqliteConnection:
    """Connect, check every page, create missing tables, upgrade older ones.

    Raises: StoreCorrupt; the file is left as it is.
    """
    size = file.stat().st_size if file.exists() else PAGE_BYTES
    if size < PAGE_BYTES and (size or newest_of(file, VERSION) is not None):
        raise StoreCorrupt(damaged(file))  # SQLite would treat it as a new database
    db: SqliteConnection | None = None
    try:
        db = connect(file)
        _bring_up_to_date(db, file)
    except BaseException as error:
        if db is not None:
            db.close()
        if isinstance(error, FAULTS):
            raise StoreCorrupt(unusable(file, error)) from error
        raise
    return db


def unusable(file: Path, error: Exception) -> str:
    """One sentence on why a database cannot be used."""
    name = getattr(error, "sqlite_errorname", "SQLITE_CORRUPT")
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_BUSY", "SQLITE_FULL")):
        return f"The job database cannot be used: {error}."
    return damaged(file)


def _bring_up_to_date(db: sqlite3.Connection, file: Path) -> None:
    """Check and upgrade the database. Raises: StoreCorrupt, sqlite3.Error."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise StoreCorrupt(
            f"The job database has version {version}; this gateway reads {VERSION}. Start the newer gateway that wrote "
            f"it, or move {file.name}* aside to start with an empty database{_way_back(file)}."
        )
    if not is_whole(db) and not _reindexed(db):
        raise StoreCorrupt(damaged(file))
    if version == 0 and not _names(db):
        db.executescript(f"BEGIN;{TABLES}PRAGMA user_version={VERSION};COMMIT;")
        return
    if version in UPGRADES:
        steps = "".join(UPGRADES[step] for step in range(version, VERSION))
        db.executescript(f"BEGIN;{steps}PRAGMA user_version={VERSION};COMMIT;")
        version = VERSION
        with suppress(sqlite3.Error):  # a disk without room for a copy: the file keeps its unused pages
            db.execute(SHRINKS)
            db.execute("VACUUM")
    if version != VERSION or not _expected() <= _names(db):
        raise StoreCorrupt(damaged(file))


def is_whole(db: sqlite3.Connection) -> bool:
    """Whether pages, trees and indexes are sound; the contents of cells are not checked. Raises: sqlite3.Error.

    In a large database indexes are not compared with their tables, which takes a second for a hundred thousand jobs.
    """
    pages, page_bytes = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    check = "integrity_check" if pages * page_bytes <= WHOLE_BYTES else "quick_check"
    return all(row[0] == "ok" or ROW_FAULT.match(row[0]) for row in db.execute(f"PRAGMA {check}"))


def _reindexed(db: sqlite3.Connection) -> bool:
    """Rebuild the indexes; True if only they were damaged, which loses no data. Otherwise nothing is changed."""
    db.execute("BEGIN IMMEDIATE")
    try:
        db.execute("REINDEX")
        if is_whole(db):
            db.execute("COMMIT")
            return True
    except sqlite3.Error:
        pass
    if db.in_transaction:
        db.execute("ROLLBACK")
    return False


def _names(db: sqlite3.Connection) -> set[str]:
    """Names of tables, columns and indexes. Raises: sqlite3.Error."""
    tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    columns = {
        f"{name}.{row[0]}" for name in tables for row in db.execute("SELECT name FROM pragma_table_info(?)", (name,))
    }
    indexes = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")}
    return columns | indexes


@cache
def _expected() -> set[str]:
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(TABLES)
        return _names(db)
