"""Guarded database: reads and writes that set damaged records aside and are then repeated."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from gateway.store import checks, damage, rows
from gateway.store.base import DamagedRecord, Lost
from gateway.store.clock import Clock
from gateway.store.connection import Connection, Database
from gateway.store.index import QueueIndex
from gateway.store.rows import RecordDamaged

log = logging.getLogger("gateway.store")

PAUSE_S = 0.05
"""Between two pages of a check of all records."""
T = TypeVar("T")


class GuardedDatabase:
    """Database guard. A record that is set aside is removed from `line` and passed to `lose`."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        line: QueueIndex,
        end: Callable[[Connection], None],
    ) -> None:
        """`end` is called in the writing thread after the work of each transaction, before that is written."""
        self._database, self._clock, self._line, self._end = database, clock, line, end
        self.lose: Lost | None = None

    async def write(self, work: Callable[[Connection], T]) -> T:
        def timed(db: Connection) -> T:
            result = work(db)
            self._end(db)
            return result

        return await self._without_damaged(lambda: self._database.write(timed))

    async def read(self, work: Callable[[Connection], T]) -> T:
        return await self._without_damaged(lambda: self._database.read(work))

    async def look_over(self) -> None:
        """Set damaged records aside, page by page through all records."""
        after: int | None = 0
        while after is not None:
            last, report = await self._database.read(partial(damage.find_page, after=after))
            if report.rows or report.has_rowless:
                self.lost(await self._database.write(partial(checks.set_page_aside, clock=self._clock, after=after)))
            after = last
            await asyncio.sleep(PAUSE_S)

    def lost(self, records: Sequence[DamagedRecord]) -> None:
        """Log and report records that were set aside."""
        for record in records:
            log.error("a damaged record is set aside: %s", record.reason, extra={"job": record.name})
            self._line.drop(record.job_id, self._clock.steady())
            if self.lose is not None:
                self.lose(record)

    async def _without_damaged(self, work: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await work()
            except (RecordDamaged, sqlite3.OperationalError) as error:
                suspect = error.job_id if isinstance(error, RecordDamaged) else None
                if suspect is None and getattr(error, "sqlite_errorname", None) != "SQLITE_ERROR":
                    raise
                if not await self._set_aside(suspect):
                    raise

    async def _set_aside(self, suspect: str | None) -> bool:
        """Set damaged records aside; whether there were any. `suspect` is a job that could not be read, or is gone."""
        records = await self._database.write(lambda db: checks.set_aside(db, self._clock, suspect))
        self.lost(records)
        if suspect is None or not self._line.has(suspect):
            return bool(records)
        if is_gone := await self._database.read(partial(rows.is_gone, job_id=suspect)):
            self._line.drop(suspect, self._clock.steady())
        return bool(records) or is_gone
