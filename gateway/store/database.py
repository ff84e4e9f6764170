"""One SQLite file in a folder that this process holds alone: a writing thread, a reading thread. Knows no job.

A write is on disk when it returns: WAL with synchronous=FULL.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from gateway.errors import StorageFull
from gateway.store import backups
from gateway.store.base import StoreLocked
from gateway.store.schema import connect, open_checked

T = TypeVar("T")


class Database:
    """`written` is called in the writing thread after each transaction that is on disk."""

    def __init__(self, folder: Path, written: Callable[[], None]) -> None:
        self._folder = folder
        self._written = written
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="store-reader")
        self._write_db: sqlite3.Connection
        self._read_db: sqlite3.Connection
        self._lock_fd: int | None = None

    async def open(self) -> None:
        """Raises: StoreLocked, StoreCorrupt."""
        await self._on(self._writer, self._open)

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock()
        self._write_db = open_checked(self.file)
        self._read_db = connect(self.file)
        self._read_db.execute("PRAGMA query_only=1")

    def _lock(self) -> None:
        """Hold the folder as long as this process lives. Raises: StoreLocked."""
        fd = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise StoreLocked("Another gateway is using this data folder.") from None
        self._lock_fd = fd

    async def close(self) -> None:
        await self._on(self._writer, self._close)
        self._writer.shutdown()
        self._reader.shutdown()

    def _close(self) -> None:
        for name in ("_read_db", "_write_db"):
            if (db := getattr(self, name, None)) is not None:
                db.close()
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """One transaction. Raises: StorageFull, and what `work` raises, with nothing written."""

        def transaction() -> T:
            db = self._write_db
            try:
                db.execute("BEGIN IMMEDIATE")
                result = work(db)
                db.execute("COMMIT")
            except BaseException as error:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error) and error.sqlite_errorname in ("SQLITE_FULL", "SQLITE_IOERR_WRITE"):
                    raise StorageFull from error
                raise
            self._written()
            return result

        return await self._on(self._writer, transaction)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """All that `work` reads is of one moment."""

        def snapshot() -> T:
            self._read_db.execute("BEGIN")
            try:
                return work(self._read_db)
            finally:
                self._read_db.execute("COMMIT")

        return await self._on(self._reader, snapshot)

    @property
    def is_open(self) -> bool:
        return hasattr(self, "_read_db")

    @property
    def file(self) -> Path:
        return self._folder / "jobs.sqlite3"

    async def back_up(self, steady: float, every_s: float) -> bool:
        """As `gateway.store.backups.back_up`; writes and reads go on meanwhile."""
        return await asyncio.to_thread(backups.back_up, self.file, steady, every_s)

    async def _on(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work)
