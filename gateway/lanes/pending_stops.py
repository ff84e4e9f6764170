"""Stopped jobs whose end cannot be stored yet: remembered in memory, stored as soon as the disk takes it.

Stopping work needs no write. A restart before it is stored forgets it: the job then runs again.
"""

from __future__ import annotations

import asyncio
import logging
import time

from engine.protocol import Cancelled, CancelReason
from gateway.errors import JobDamaged, JobNotFound, StorageFault
from gateway.jobs.job import Job
from gateway.store.base import JobStore

log = logging.getLogger("gateway.stops")

RETRY_S = 1.0
"""Between tries to store what is remembered."""


class Stops:
    """Belongs to one event loop. Lanes say whose work goes on; the service says whom to stop."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._reasons: dict[str, CancelReason] = {}
        self._ends: dict[str, Cancelled] = {}
        """Of jobs that ran: the work has stopped, and the commit fails."""
        self._ended_at: dict[str, tuple[float, float]] = {}
        """When the work stopped: Unix time, and the store's steady time."""
        self._at_work: set[str] = set()
        self._news = asyncio.Event()
        self._storing: asyncio.Task[None] | None = None

    @property
    def ids(self) -> frozenset[str]:
        """Jobs that may not be claimed."""
        return frozenset(self._reasons)

    def reason(self, job_id: str) -> CancelReason | None:
        """Why a job that could not be marked is to stop."""
        return self._reasons.get(job_id)

    def remember(self, job_id: str, reason: CancelReason) -> None:
        """Stop this job although nothing can be written now."""
        log.warning("stopped, and not stored yet", extra={"job": job_id})
        self._reasons.setdefault(job_id, reason)
        if job_id not in self._at_work:
            self._ended_at.setdefault(job_id, self._now())
        if self._storing is None or self._storing.done():
            self._storing = asyncio.create_task(self._store_all(), name="stops to store")
        self._pulse()

    def end_later(self, job_id: str, outcome: Cancelled) -> None:
        """The work of a job has stopped; its end is not on disk yet."""
        self._ends[job_id] = outcome
        self._ended_at.setdefault(job_id, self._now())
        self._pulse()

    def begin_work(self, job_id: str) -> None:
        """A lane has claimed it."""
        self._at_work.add(job_id)

    def end_work(self, job_id: str) -> None:
        """Nothing is done for it any more, whatever the store says."""
        self._at_work.discard(job_id)
        if job_id in self._reasons:
            self._ended_at.setdefault(job_id, self._now())
        self._pulse()

    def forget(self, job_id: str) -> None:
        """Its end is on disk."""
        for known in (self._ends, self._reasons, self._ended_at):
            known.pop(job_id, None)
        self._pulse()

    def end(self, job_id: str) -> Cancelled | None:
        """How a job has ended in this process that the store still calls waiting or running."""
        if (end := self._ends.get(job_id)) is not None:
            return end
        reason = self._reasons.get(job_id)
        return None if reason is None or job_id in self._at_work else Cancelled(reason=reason)

    def seen(self, job: Job) -> Job:
        """The job as it really stands."""
        end = None if job.state is None or job.state.terminal else self.end(job.id)
        return job if end is None else job.apply(end, *self._ended_at.get(job.id, self._now()))

    def _now(self) -> tuple[float, float]:
        return time.time(), self._store.steady()

    async def over(self, job_id: str) -> None:
        """Until the job has ended without the store knowing."""
        while self.end(job_id) is None:
            await self._news.wait()

    async def close(self) -> None:
        """Try once more to store what is remembered."""
        if self._storing is not None:
            self._storing.cancel()
            await asyncio.gather(self._storing, return_exceptions=True)
        await self._store_once()

    async def _store_all(self) -> None:
        while self._reasons:
            await self._store_once()
            await asyncio.sleep(RETRY_S)

    async def _store_once(self) -> None:
        """Each by itself: what keeps one from being stored keeps none of the others, unless it is the disk."""
        for job_id, reason in list(self._reasons.items()):
            try:
                job = await self._store.cancel(job_id, reason)
            except (JobDamaged, JobNotFound):
                self.forget(job_id)
            except StorageFault as fault:
                log.debug("stops cannot be stored yet: %s", fault)
                return
            except Exception:
                log.exception("a stop cannot be stored yet", extra={"job": job_id})
            else:
                if job.state is not None and job.state.terminal:  # one that runs ends by its lane
                    self.forget(job_id)

    def _pulse(self) -> None:
        """Wake all who wait now."""
        self._news.set()
        self._news.clear()
