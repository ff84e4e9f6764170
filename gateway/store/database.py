"""Database: an SQLite file in a folder locked by this process, with a writing and a reading thread. Knows no job.

A write is on disk when it returns: WAL with synchronous=FULL. If a file is removed or replaced while the database is
open, writes fail: SQLite would otherwise write to files without a name, and a restart would lose everything.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from gateway.errors import StorageFault, StorageFull
from gateway.private_files import private_file, private_files, private_folder
from gateway.store import backups
from gateway.store.folder_lock import FolderLock
from gateway.store.schema import SqliteConnection, connect, open_checked

T = TypeVar("T")

NAME = "jobs.sqlite3"
OF_THE_DISK = ("SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PERM")
DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
REPLACED = "The job database was removed or replaced while it was in use; put it back, or restart the gateway."


class Database:
    """Database threads and file.

    In the writing thread `begun` is called at the begin of each transaction, and `written` after each one that is on
    disk.
    """

    def __init__(self, folder: Path, begun: Callable[[SqliteConnection], None], written: Callable[[], None]) -> None:
        self._folder = folder
        self._begun = begun
        self._written = written
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="store-reader")
        self._write_db: SqliteConnection
        self._read_db: SqliteConnection
        self._lock: FolderLock | None = None
        self._files: dict[Path, tuple[int, int]] = {}
        """Device and inode of the database and its journal when they were opened."""

    async def open(self) -> None:
        """Open the file. Raises: StoreLocked, StoreCorrupt; PermissionError if the folder cannot be made private."""
        await self._on(self._writer, self._open)

    def _open(self) -> None:
        private_folder(self._folder, "store.data_dir")
        self._lock = FolderLock(self._folder)
        self._close_to_others()
        self._write_db = open_checked(self.file)
        self._read_db = connect(self.file)
        self._read_db.execute("PRAGMA query_only=1")
        self._files = {file: _identity(file) for file in (self._folder / NAME, self._folder / f"{NAME}-wal")}

    def _close_to_others(self) -> None:
        """Make all files private, also files restored from a backup. SQLite's journals take the database's mode."""
        private_files(self._folder)
        if (copies := self._folder / backups.FOLDER).exists():
            private_folder(copies, "The folder")
            private_files(copies)
        private_file(self._folder / NAME)

    async def close(self) -> None:
        await self._on(self._reader, lambda: None)  # wait for the current read
        await self._on(self._writer, self._close)
        for pool in (self._writer, self._reader):
            pool.shutdown(wait=False)  # both threads are idle; the event loop must not wait for a thread

    def _close(self) -> None:
        for name in ("_read_db", "_write_db"):
            if (db := getattr(self, name, None)) is not None:
                db.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    async def write(self, work: Callable[[SqliteConnection], T]) -> T:
        """Run `work` in one transaction. Raises: StorageFault, and what `work` raises; then nothing is written."""

        def transaction() -> T:
            db = self._write_db
            try:
                db.execute("BEGIN IMMEDIATE")
                self._begun(db)
                result = work(db)
                self._check_files()
                db.execute("COMMIT")
            except BaseException as error:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error) and (fault := self._fault_of(error)) is not None:
                    raise fault from error
                raise
            self._written()
            return result

        return await self._on(self._writer, transaction)

    async def read(self, work: Callable[[SqliteConnection], T]) -> T:
        """Run `work` on one snapshot of the data. Raises: StorageFault."""

        def snapshot() -> T:
            try:
                self._read_db.execute("BEGIN")
                try:
                    return work(self._read_db)
                finally:
                    self._read_db.execute("COMMIT")
            except sqlite3.Error as error:
                if (fault := self._fault_of(error)) is not None:
                    raise fault from error
                raise

        return await self._on(self._reader, snapshot)

    def _check_files(self) -> None:
        """One stat a file, microseconds a commit. Raises: StorageFault if a name is gone or leads to another file."""
        for file, identity in self._files.items():
            try:
                now = _identity(file)
            except FileNotFoundError:
                raise StorageFault(REPLACED) from None
            except OSError as error:
                raise StorageFault("The folder of the job database does not answer.") from error
            if now != identity:
                raise StorageFault(REPLACED)

    def _fault_of(self, error: sqlite3.Error) -> StorageFault | None:
        """The storage fault behind an SQLite error; None if the statement is at fault. Blocks."""
        name = getattr(error, "sqlite_errorname", None) or ""
        if name in ("SQLITE_FULL", "SQLITE_IOERR_WRITE") or (name.startswith(OF_THE_DISK) and self._is_full()):
            return StorageFull("There is no room left on the disk of the job database.")
        if name.startswith(DAMAGED):
            return StorageFault("The job database is damaged.")
        return StorageFault("The job database cannot be used.") if name.startswith(OF_THE_DISK) else None

    def _is_full(self) -> bool:
        """Whether no bytes or no inodes are free; a file system that does not count inodes reports 0 of 0."""
        try:
            status = os.statvfs(self._folder)
        except OSError:
            return False
        return bool((status.f_blocks and not status.f_bavail) or (status.f_files and not status.f_favail))

    async def back_up(self, steady: float, every_s: float) -> bool:
        """Like `gateway.store.backups.back_up`; reads and writes go on meanwhile. Raises: StorageFault, OSError."""

        def copied() -> bool:
            self._check_files()  # otherwise a new, empty database would replace the good backups
            return backups.back_up(self.file, steady, every_s)

        return await asyncio.to_thread(copied)

    @property
    def is_open(self) -> bool:
        return hasattr(self, "_read_db")

    @property
    def file(self) -> Path:
        return self._folder / NAME

    async def _on(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work)


def _identity(file: Path) -> tuple[int, int]:
    """Device and inode of a file. Raises: OSError."""
    status = os.stat(file)
    return status.st_dev, status.st_ino
