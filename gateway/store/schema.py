"""The embedded database file: its tables, its pragmas, and the check it must pass before it is used."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

from gateway.store.backups import newest_of
from gateway.store.base import StoreCorrupt

VERSION = 4
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
    standing_number INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX jobs_idempotency ON jobs (owner, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX jobs_live ON jobs (state, owner) WHERE finished_at IS NULL;
CREATE INDEX jobs_owner ON jobs (owner, number DESC);
CREATE INDEX jobs_finished ON jobs (finished_at) WHERE finished_at IS NOT NULL;
CREATE TABLE events (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    at REAL NOT NULL,
    fact TEXT NOT NULL,
    UNIQUE (job_id, seq)
);
CREATE TABLE kept (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
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
}
"""What makes a database of this version one of the next."""


def connect(file: Path) -> sqlite3.Connection:
    """A connection whose commits are on disk when they return."""
    db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    db.row_factory = sqlite3.Row
    db.execute("PRAGMA busy_timeout=5000")
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("PRAGMA foreign_keys=1")
    if sys.platform == "darwin":  # fsync alone does not reach the platter there
        db.execute("PRAGMA fullfsync=1")
        db.execute("PRAGMA checkpoint_fullfsync=1")
    return db


def _damaged(file: Path) -> str:
    newest = newest_of(file)
    again = "" if newest is None else f", or copy {newest.parent.name}/{newest.name} to its place to go on from there"
    return f"The job database is damaged; move {file.name}* aside to start anew{again}."


def open_checked(file: Path) -> sqlite3.Connection:
    """Connect, check every page, make the tables where there are none, bring older ones up to date.

    Raises: StoreCorrupt; the file is left as it is.
    """
    db: sqlite3.Connection | None = None
    try:
        db = connect(file)
        check = db.execute("PRAGMA quick_check").fetchone()[0]
        version = db.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.DatabaseError:
        check, version = "unreadable", VERSION
    if db is None or check != "ok":
        if db is not None:
            db.close()
        raise StoreCorrupt(_damaged(file))
    if version == 0:
        db.executescript(f"BEGIN;{TABLES}PRAGMA user_version={VERSION};COMMIT;")
        return db
    while version in UPGRADES:
        db.executescript(f"BEGIN;{UPGRADES[version]}PRAGMA user_version={version + 1};COMMIT;")
        version += 1
    if version != VERSION:
        db.close()
        raise StoreCorrupt(f"The job database has version {version}; this gateway reads {VERSION}.")
    return db
