"""SQLite job store: jobs in the rows of one file, locked by this process. Knows no protocol."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from engine.protocol import Cancelled
from gateway.errors import StorageFault
from gateway.files.base import Files
from gateway.jobs.facts import Requeued
from gateway.jobs.job import Job, State
from gateway.store import checks, compaction, rows
from gateway.store.backups import FAULTS
from gateway.store.base import Lost, OnEvent, StoreCorrupt
from gateway.store.clock import StoreClock
from gateway.store.connection import Connection
from gateway.store.database import Database
from gateway.store.prompt_index import PromptIndex
from gateway.store.schema import SqliteConnection, unusable
from gateway.store.sql_store import SqlStore


class SqliteStore(SqlStore):
    """A JobStore in `folder` (mode 0700), locked by this process."""

    _database: Database
    _clock: StoreClock

    def __init__(
        self,
        folder: Path,
        clock: Callable[[], float] = time.time,
        *,
        elapsed: Callable[[], float] | None = None,
        lookahead: int = 0,
        inputs: Files | None = None,
    ) -> None:
        """`clock` gives the date and may jump; `elapsed` only increases; a test clock given alone serves as both.

        `inputs`: where inputs are stored that several processes use; None: in `folder`.
        """
        elapsed = elapsed or (time.monotonic if clock is time.time else clock)
        super().__init__(
            Database(folder, self._begin, self._written),
            StoreClock(clock, elapsed),
            inputs=inputs or folder / "blobs",
            prompts=PromptIndex(folder),
            lookahead=lookahead,
        )
        self._changes_before = 0

    async def open(self, on_event: OnEvent | None = None, lose: Lost | None = None) -> list[Job]:
        self._loop = asyncio.get_running_loop()
        await self._database.open()
        await self._inputs.prepare()
        try:
            self._records.lost(await self._database.write(lambda db: checks.at_start(db, self._clock)))
            recovered = await self._records.write(self._recover)
            await self._records.read(self._fill_line)
        except (StorageFault, *FAULTS) as error:
            cause = error.__cause__ if isinstance(error, StorageFault) else error
            if not isinstance(cause, FAULTS):
                raise
            raise StoreCorrupt(unusable(self._database.file, cause)) from error
        self._hear, self._records.lose = on_event, lose
        return recovered

    def _recover(self, db: Connection) -> list[Job]:
        """End or requeue what an earlier process left running, and end its clients' attached jobs."""
        live = db.execute(
            "SELECT * FROM jobs WHERE state IN ('running', 'queued') AND finished_at IS NULL"
            " AND (state = 'running' OR attached = 1) ORDER BY number"
        ).fetchall()
        changed = []
        for row in live:
            job = rows.fold(db, row)
            if job.attached and job.idempotency_key is None:
                changed.append(self._append(db, job, Cancelled(reason="client_gone")))
            elif job.cancel_requested is not None:
                changed.append(self._append(db, job, Cancelled(reason=job.cancel_requested)))
            elif job.state is State.RUNNING:
                changed.append(self._append(db, job, Requeued(reason="gateway_restart")))
        return changed

    def _begin(self, db: Connection) -> None:
        super()._begin(db)
        self._changes_before = _changes(db)

    def _end(self, db: Connection) -> None:
        """Store the clock where it was changed, together with the work: nothing is written for it alone."""
        self._clock.note()
        if not self._clock.is_noted and _changes(db) > self._changes_before:
            self._keep_time(db)

    async def close(self) -> None:
        if self._database.is_open:
            with suppress(StorageFault, sqlite3.Error):  # then steady time continues from the last event
                await self._database.write(self._keep_time)
        await self._database.close()

    def _keep_time(self, db: Connection) -> None:
        checks.keep_time(db, self._clock)

    async def check(self) -> None:
        await self._database.write(self._keep_time)

    async def back_up(self, every_s: float) -> bool:
        await self._database.write(self._keep_time)
        return await self._database.back_up(self._clock.steady(), every_s)

    async def compact(self) -> None:
        await super().compact()
        await self._repeat(compaction.shrink)


def _changes(db: Connection) -> int:
    """How many rows this connection has written."""
    assert isinstance(db, SqliteConnection)
    return db.total_changes
