"""Schema of the job database in PostgreSQL: its tables and their upgrades, by the same versions as SQLite's."""

from __future__ import annotations

from gateway.store.base import StoreCorrupt
from gateway.store.connection import Dialect
from gateway.store.postgres.connection import PostgresConnection
from gateway.store.schema import CONTENTS, VERSION

DIALECT = Dialect(prompt="prompt", has_word="strpos(prompt, ?) > 0", unindexed="", has_loose_types=False)
COUNTERS = ("jobs", "events", "damaged", "moves", "lanes")
"""Numbers that only increase: of the newest job, event and damaged record, of moves, and of pauses and their ends."""
TABLES = """
CREATE TABLE jobs (
    number BIGINT PRIMARY KEY,
    id TEXT COLLATE "C" NOT NULL UNIQUE,
    owner TEXT COLLATE "C" NOT NULL,
    protocol TEXT NOT NULL,
    attached INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    lane TEXT NOT NULL,
    model TEXT COLLATE "C" NOT NULL,
    plan TEXT NOT NULL,
    adjustments TEXT NOT NULL,
    idempotency_key TEXT COLLATE "C",
    fingerprint TEXT NOT NULL,
    note TEXT NOT NULL DEFAULT '',
    hidden INTEGER NOT NULL DEFAULT 0,
    state TEXT COLLATE "C" NOT NULL,
    attempt INTEGER NOT NULL,
    images INTEGER NOT NULL,
    created_at DOUBLE PRECISION NOT NULL,
    started_at DOUBLE PRECISION,
    finished_at DOUBLE PRECISION,
    worker TEXT,
    lease_until DOUBLE PRECISION,
    standing_priority INTEGER NOT NULL DEFAULT 0,
    standing_since DOUBLE PRECISION NOT NULL DEFAULT 0,
    standing_number BIGINT NOT NULL DEFAULT 0,
    started_steady DOUBLE PRECISION,
    finished_steady DOUBLE PRECISION,
    checksum TEXT,
    gateway TEXT,
    prompt TEXT NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX jobs_idempotency ON jobs (owner, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX jobs_live ON jobs (state, owner) WHERE finished_at IS NULL;
CREATE INDEX jobs_finished ON jobs (finished_steady) WHERE finished_at IS NOT NULL;
CREATE INDEX jobs_ended ON jobs (number) WHERE finished_at IS NOT NULL;
CREATE INDEX jobs_owner ON jobs (owner, number DESC);
CREATE INDEX jobs_state ON jobs (owner, state, number DESC);
CREATE INDEX jobs_protocol ON jobs (owner, protocol, state, hidden, number DESC);
CREATE INDEX jobs_images ON jobs (owner, number DESC) WHERE images > 0;
CREATE INDEX jobs_model ON jobs (owner, model, number DESC) WHERE images > 0;
CREATE TABLE events (
    number BIGINT PRIMARY KEY,
    job_id TEXT COLLATE "C" NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    at DOUBLE PRECISION NOT NULL,
    fact TEXT NOT NULL,
    steady DOUBLE PRECISION NOT NULL DEFAULT 0,
    UNIQUE (job_id, seq)
);
CREATE TABLE kept (name TEXT COLLATE "C" PRIMARY KEY, value TEXT NOT NULL, checksum TEXT);
CREATE TABLE damaged (
    number BIGINT PRIMARY KEY,
    job_id TEXT NOT NULL,
    owner TEXT,
    reason TEXT NOT NULL,
    at DOUBLE PRECISION NOT NULL,
    steady DOUBLE PRECISION NOT NULL,
    record TEXT NOT NULL
);
CREATE TABLE blob_owners (
    sha256 TEXT COLLATE "C" NOT NULL,
    owner TEXT COLLATE "C" NOT NULL,
    payer TEXT COLLATE "C" NOT NULL,
    bytes BIGINT NOT NULL,
    at DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (sha256, owner)
);
CREATE INDEX blob_payers ON blob_owners (payer);
CREATE TABLE counters (name TEXT PRIMARY KEY, seq BIGINT NOT NULL DEFAULT 0);
CREATE TABLE nodes (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    report TEXT NOT NULL,
    seen DOUBLE PRECISION NOT NULL
);
CREATE TABLE schema_version (version INTEGER NOT NULL, contents TEXT NOT NULL);
"""
UPGRADES: dict[int, str] = {7: ""}
"""SQL that upgrades a database of this version to the next one. The first version in PostgreSQL is 7."""
NODE_GONE_S = 60.0
"""Seconds without a report after which a process no longer counts as a user of the database."""


def bring_up_to_date(db: PostgresConnection) -> None:
    """Create the tables, or upgrade them where no other process uses the database. Raises: StoreCorrupt."""
    if db.execute("SELECT to_regclass('schema_version')").fetchone()[0] is None:
        for statement in filter(str.strip, TABLES.split(";")):
            db.execute(statement)
        db.executemany("INSERT INTO counters (name) VALUES (?)", [(name,) for name in COUNTERS])
        db.execute("INSERT INTO schema_version VALUES (?, ?)", (VERSION, CONTENTS))
        return
    version, contents = db.execute("SELECT version, contents FROM schema_version").fetchone()
    if (version, contents) == (VERSION, CONTENTS):
        return
    if version > VERSION or (version == VERSION and contents != CONTENTS):
        raise StoreCorrupt(
            f"The job database has version {version}; this program reads {VERSION}. Start the version that wrote it."
        )
    if users := _users(db):
        raise StoreCorrupt(
            f"The job database has version {version}, and {', '.join(users)} still use it: stop them, then start this "
            f"program, which upgrades it to version {VERSION}."
        )
    for step in range(version, VERSION):
        for statement in filter(str.strip, UPGRADES[step].split(";")):
            db.execute(statement)
    db.execute("UPDATE schema_version SET version = ?, contents = ?", (VERSION, CONTENTS))


def _users(db: PostgresConnection) -> list[str]:
    """Names of the processes that reported lately."""
    recent = "SELECT DISTINCT name FROM nodes WHERE seen > extract(epoch FROM clock_timestamp()) - ? ORDER BY name"
    return [row[0] for row in db.execute(recent, (NODE_GONE_S,)).fetchall()]
