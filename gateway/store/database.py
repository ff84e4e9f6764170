"""One SQLite file in a folder that this process holds alone: a writing thread, a reading thread. Knows no job.

A write is on disk when it returns: WAL with synchronous=FULL. What was removed or replaced under an open database is
written no more: SQLite would go on in files that no name leads to, and a restart would lose all of it.
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

from gateway.errors import StorageFault, StorageFull
from gateway.private_files import private_file, private_files, private_folder
from gateway.store import backups
from gateway.store.base import StoreLocked
from gateway.store.schema import connect, open_checked

T = TypeVar("T")

NAME = "jobs.sqlite3"
OF_THE_DISK = ("SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PERM")
DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
REPLACED = "The job database was removed or replaced while it was in use; put it back, or restart the gateway."


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
        self._files: dict[Path, tuple[int, int]] = {}
        """Device and inode of the database and its journal, as they were opened."""

    async def open(self) -> None:
        """Raises: StoreLocked, StoreCorrupt; PermissionError where the folder cannot be this user's alone."""
        await self._on(self._writer, self._open)

    def _open(self) -> None:
        private_folder(self._folder, "store.data_dir")
        self._lock()
        self._close_to_others()
        self._write_db = open_checked(self.file)
        self._read_db = connect(self.file)
        self._read_db.execute("PRAGMA query_only=1")
        self._files = {file: _identity(file) for file in (self._folder / NAME, self._folder / f"{NAME}-wal")}

    def _close_to_others(self) -> None:
        """Also what was put back from a copy. SQLite gives its journals the mode of the database."""
        private_files(self._folder)
        if (kept := self._folder / backups.FOLDER).exists():
            private_folder(kept, "The folder")
            private_files(kept)
        private_file(self._folder / NAME)

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
        await self._on(self._reader, lambda: None)  # what is read now
        await self._on(self._writer, self._close)
        for pool in (self._writer, self._reader):
            pool.shutdown(wait=False)  # both are idle, and the loop waits for no thread

    def _close(self) -> None:
        for name in ("_read_db", "_write_db"):
            if (db := getattr(self, name, None)) is not None:
                db.close()
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """One transaction. Raises: StorageFault, and what `work` raises, with nothing written."""

        def transaction() -> T:
            db = self._write_db
            try:
                db.execute("BEGIN IMMEDIATE")
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

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """All that `work` reads is of one moment. Raises: StorageFault."""

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
        """A stat each, some microseconds a commit. Raises: StorageFault where a name leads to another file, or none."""
        for file, known in self._files.items():
            try:
                now = _identity(file)
            except FileNotFoundError:
                raise StorageFault(REPLACED) from None
            except OSError as error:
                raise StorageFault("The folder of the job database does not answer.") from error
            if now != known:
                raise StorageFault(REPLACED)

    def _fault_of(self, error: sqlite3.Error) -> StorageFault | None:
        """What SQLite says of the disk; None where the statement is at fault. Blocks."""
        name = getattr(error, "sqlite_errorname", None) or ""
        if name in ("SQLITE_FULL", "SQLITE_IOERR_WRITE") or (name.startswith(OF_THE_DISK) and self._is_full()):
            return StorageFull("There is no room left on the disk of the job database.")
        if name.startswith(DAMAGED):
            return StorageFault("The job database is damaged.")
        return StorageFault("The job database cannot be used.") if name.startswith(OF_THE_DISK) else None

    def _is_full(self) -> bool:
        """No bytes or no inodes; a filesystem that does not count them tells 0 of 0."""
        try:
            found = os.statvfs(self._folder)
        except OSError:
            return False
        return bool((found.f_blocks and not found.f_bavail) or (found.f_files and not found.f_favail))

    async def back_up(self, steady: float, every_s: float) -> bool:
        """As `gateway.store.backups.back_up`; writes and reads go on meanwhile. Raises: StorageFault, OSError."""

        def copied() -> bool:
            self._check_files()  # else an empty database would be made, and copied over the good copies
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
    """Device and inode. Raises: OSError."""
    found = os.stat(file)
    return found.st_dev, found.st_ino
