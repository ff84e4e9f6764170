"""Database: PostgreSQL with one writing connection and several reading ones. Knows no job.

Every writing transaction of every process takes one lock first, so that numbers are in the order of the commits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import psycopg

from gateway.errors import StorageFault, StorageFull
from gateway.store.postgres.connection import PostgresConnection, Row, connected, literal, quoted
from gateway.store.postgres.readers import Readers
from gateway.store.postgres.schema import DIALECT, bring_up_to_date

T = TypeVar("T")

READERS = 4
RETRY_AFTER_S = 5
SILENT = "The job database does not answer."
BEGIN_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
NOW_AND_COUNTERS = "SELECT extract(epoch FROM clock_timestamp())::float8 AS now, name, seq FROM counters"
MARK = "SELECT job_id || ' ' || seq || ' ' || steady AS mark FROM events WHERE number = $1"
NOTIFY_AND_MARK = f"SELECT pg_notify($1, $2), ({MARK.replace('$1', '$3')}) AS mark"
DECIDED_S = 15.0
"""For so long it is tried to find out whether a transaction was committed whose connection broke at the commit."""
ASK_AGAIN_S = 0.2
GONE = (psycopg.OperationalError, psycopg.InterfaceError)


class PostgresDatabase:
    """Database in the first schema of the address's search path.

    `begun` is called in the writing thread at the begin of each transaction, with the database's Unix time in seconds;
    `written` after each one that is on disk.
    """

    def __init__(
        self,
        url: str,
        name: str,
        begun: Callable[[PostgresConnection, float], None],
        written: Callable[[], None],
    ) -> None:
        self._url, self.name = url, name
        self._begun, self._written = begun, written
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        self._connection: psycopg.Connection[Row] | None = None
        self._reading = Readers(lambda: connected(url, name))
        self._is_closed = False
        self.channel = ""
        """Name of the database's schema for channels and locks: it belongs to one queue."""

    async def open(self) -> None:
        """Connect, and create or upgrade the tables. Raises: StorageFault, StoreCorrupt."""
        await self._on(self._writer, self._open)

    def _open(self) -> None:
        try:
            connection = self._writing()
            oid = connection.execute("SELECT current_schema()::regnamespace::oid").fetchone()
            assert oid is not None
            self.channel = f"mflux_gateway_{oid[0]}"
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(hashtext($1))", (self.channel,))
                bring_up_to_date(PostgresConnection(connection, DIALECT, {}))
        except (psycopg.Error, OSError) as error:
            raise refusal_of(error) or fault_of(error) from error

    async def close(self) -> None:
        """Close; a second time does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        await self._on(self._writer, self._close)
        for pool in (self._writer, self._readers):
            pool.shutdown(wait=False)

    def _close(self) -> None:
        self._reading.close()
        if self._connection is not None:
            self._connection.close()

    def _writing(self) -> psycopg.Connection[Row]:
        """The writing connection; a new one where the former is broken. Raises: psycopg.Error."""
        if self._connection is None or self._connection.closed:
            self._connection = connected(self._url, self.name)
        return self._connection

    async def write(self, work: Callable[[PostgresConnection], T]) -> T:
        """Run `work` in one transaction. Raises: StorageFault, and what `work` raises; then nothing is written."""
        return await self._on(self._writer, lambda: self._transaction(work))

    def _transaction(self, work: Callable[[PostgresConnection], T]) -> T:
        try:
            connection, now, counters = self._begin()
            db = PostgresConnection(connection, DIALECT, counters)
            try:
                self._begun(db, now)
                result = work(db)
                mark = None
                if db.has_events:
                    db.write_counters()
                    noted = (self.channel, self.name, db.last_number("events"))
                    mark = connection.execute(NOTIFY_AND_MARK, noted).fetchone()
                self._commit(connection, db.last_number("events"), mark)
            except BaseException:
                with suppress(psycopg.Error):
                    connection.execute("ROLLBACK")
                raise
        except psycopg.Error as error:
            if isinstance(error, GONE) and self._connection is not None:
                self._connection.close()
            raise fault_of(error) from error
        self._written()
        return result

    def _commit(self, connection: psycopg.Connection[Row], number: int, mark: Row | None) -> None:
        """Commit. Where the connection breaks meanwhile, the newest event shows whether it was done.

        Raises: psycopg.Error.
        """
        try:
            connection.execute("COMMIT")
        except GONE:
            connection.close()
            if mark is None or not self._is_committed(number, mark):
                raise

    def _is_committed(self, number: int, mark: Row) -> bool:
        """Whether the newest event of a transaction is stored, once its former connection holds the lock no more.

        Raises: psycopg.Error where the database does not answer for `DECIDED_S`.
        """
        until = time.monotonic() + DECIDED_S
        while True:
            try:
                connection, _, _ = self._begin()
                found = connection.execute(MARK, (number,)).fetchone()
                connection.execute("ROLLBACK")
                return found is not None and found["mark"] == mark["mark"]
            except GONE:
                if self._connection is not None:
                    self._connection.close()
                if time.monotonic() > until:
                    raise
                time.sleep(ASK_AGAIN_S)

    def _begin(self) -> tuple[psycopg.Connection[Row], float, dict[str, int]]:
        """Begin a writing transaction, once more where the connection has broken since the last one."""
        is_new = self._connection is None or self._connection.closed
        connection = self._writing()
        try:
            lock = f"SELECT pg_advisory_xact_lock(hashtext({literal(self.channel)}))"
            counters = _last_rows(connection, f"BEGIN; {lock}; {NOW_AND_COUNTERS}")
        except GONE:
            connection.close()
            if is_new:
                raise
            return self._begin()
        return connection, counters[0]["now"], {row["name"]: row["seq"] for row in counters}

    async def catch_up(self) -> None:
        """Look for what other processes have written, in the order of all writes. Raises: StorageFault."""

        def look() -> None:
            try:
                connection = self._writing()
                try:
                    counters = _last_rows(connection, f"{BEGIN_READ}; {NOW_AND_COUNTERS}")
                    numbers = {row["name"]: row["seq"] for row in counters}
                    self._begun(PostgresConnection(connection, DIALECT, numbers), counters[0]["now"])
                finally:
                    with suppress(psycopg.Error):
                        connection.execute("ROLLBACK")
            except psycopg.Error as error:
                if isinstance(error, GONE) and self._connection is not None:
                    self._connection.close()
                raise fault_of(error) from error

        await self._on(self._writer, look)

    async def read(self, work: Callable[[PostgresConnection], T]) -> T:
        """Run `work` on one snapshot of the data. Raises: StorageFault."""

        def snapshot(connection: psycopg.Connection[Row]) -> T:
            connection.execute(BEGIN_READ)
            try:
                counters = connection.execute("SELECT name, seq FROM counters").fetchall()
                numbers = {row["name"]: row["seq"] for row in counters}
                return work(PostgresConnection(connection, DIALECT, numbers))
            finally:
                with suppress(psycopg.Error):
                    connection.execute("ROLLBACK")

        return await self._read(snapshot)

    async def run(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """Run one statement outside the order of writes, and return its rows. Raises: StorageFault."""

        def statement(connection: psycopg.Connection[Row]) -> list[Any]:
            cursor = PostgresConnection(connection, DIALECT, {}).execute(sql, values)
            return cursor.fetchall() if cursor.description is not None else []  # type: ignore[attr-defined]

        return await self._read(statement)

    async def _read(self, work: Callable[[psycopg.Connection[Row]], T]) -> T:
        def read() -> T:
            try:
                return self._reading.run(work)
            except psycopg.Error as error:
                raise fault_of(error) from error

        return await self._on(self._readers, read)

    def listening(self) -> psycopg.Connection[Row]:
        """A connection that hears of the writes and messages of other processes. Blocks. Raises: psycopg.Error."""
        connection = connected(self._url, self.name)
        for channel in (self.channel, f"{self.channel}_messages"):
            connection.execute(f"LISTEN {quoted(channel)}".encode())
        return connection

    async def _on(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work)


def _last_rows(connection: psycopg.Connection[Row], sql: str) -> list[Row]:
    """The rows of the last of several statements, which go to the server at once.

    No pipeline: after one, PostgreSQL 15 does not end a transaction in which nothing happens.
    """
    cursor = connection.execute(sql.encode())
    while cursor.nextset():
        pass
    return cursor.fetchall()


REFUSALS = (
    ("authentication failed", "The job database refuses the user or the password of store.url."),
    ("no password supplied", "The job database asks for a password: add it to store.url, or set PGPASSWORD."),
    ("permission denied", "The user of store.url may not create or use the tables of the job database."),
    ("no schema has been selected", "The database of store.url has no schema in its search path."),
    (
        "does not support ssl",
        "The server of the job database speaks no TLS; sslmode=disable in store.url does without.",
    ),
    ("certificate", "The certificate of the job database is not the one that store.url asks for."),
    ("does not exist", "The database or the user of store.url does not exist."),
)
"""Parts of PostgreSQL's messages that a retry would not change, and what is said of them."""


def refusal_of(error: Exception) -> StorageFault | None:
    """Why the server does not take this process, for its operator; None where it may do so later."""
    text = str(error).lower()
    return next((StorageFault(sentence) for part, sentence in REFUSALS if part in text), None)


def fault_of(error: Exception) -> StorageFault:
    """The storage fault behind an error of the database. Raises: the error itself where a statement is at fault."""
    if isinstance(error, psycopg.errors.DiskFull):
        return StorageFull("There is no room left on the disk of the job database.")
    if isinstance(error, (*GONE, OSError, psycopg.errors.ReadOnlySqlTransaction)):
        return StorageFault(SILENT, retry_after_s=RETRY_AFTER_S)
    raise error
