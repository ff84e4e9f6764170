"""Stopped jobs whose end cannot be stored yet: kept in memory until the disk can be written.

Stopping a job needs no write. A stop that is not stored before a restart is lost: the job then runs again.
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
"""Seconds between tries to store the pending stops."""


class Stops:
    """The pending stops, of one event loop. Lanes report the jobs that run; the service reports the jobs to stop."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._reasons: dict[str, CancelReason] = {}
        self._ends: dict[str, Cancelled] = {}
        """Outcomes of jobs that ran and were stopped, whose commit fails."""
        self._ended_at: dict[str, tuple[float, float]] = {}
        """When a job stopped: Unix time, and the store's steady time, in seconds."""
        self._at_work: set[str] = set()
        self._news = asyncio.Event()
        self._storing: asyncio.Task[None] | None = None

    @property
    def ids(self) -> frozenset[str]:
        """Jobs that may not be claimed."""
        return frozenset(self._reasons)

    def reason(self, job_id: str) -> CancelReason | None:
        """The reason for the pending stop of a job; None where there is none."""
        return self._reasons.get(job_id)

    def remember(self, job_id: str, reason: CancelReason) -> None:
        """Add a pending stop: stop this job although nothing can be written now."""
        log.warning("stopped, and not stored yet", extra={"job": job_id})
        self._reasons.setdefault(job_id, reason)
        if job_id not in self._at_work:
            self._ended_at.setdefault(job_id, self._now())
        if self._storing is None or self._storing.done():
            self._storing = asyncio.create_task(self._store_all(), name="stops to store")
        self._pulse()

    def end_later(self, job_id: str, outcome: Cancelled) -> None:
        """Add the outcome of a stopped job that is not on disk yet."""
        self._ends[job_id] = outcome
        self._ended_at.setdefault(job_id, self._now())
        self._pulse()

    def begin_work(self, job_id: str) -> None:
        """A lane has claimed the job."""
        self._at_work.add(job_id)

    def end_work(self, job_id: str) -> None:
        """The lane no longer runs the job, whatever the store has."""
        self._at_work.discard(job_id)
        if job_id in self._reasons:
            self._ended_at.setdefault(job_id, self._now())
        self._pulse()

    def forget(self, job_id: str) -> None:
        """Remove a pending stop: the end of the job is on disk."""
        for known in (self._ends, self._reasons, self._ended_at):
            known.pop(job_id, None)
        self._pulse()

    def end(self, job_id: str) -> Cancelled | None:
        """The outcome of a job that has ended in this process and is waiting or running in the store."""
        if (end := self._ends.get(job_id)) is not None:
            return end
        reason = self._reasons.get(job_id)
        return None if reason is None or job_id in self._at_work else Cancelled(reason=reason)

    def with_pending_end(self, job: Job) -> Job:
        """The job with its pending end applied."""
        end = None if job.state is None or job.state.terminal else self.end(job.id)
        return job if end is None else job.apply(end, *self._ended_at.get(job.id, self._now()))

    def _now(self) -> tuple[float, float]:
        return time.time(), self._store.steady()

    async def over(self, job_id: str) -> None:
        """Wait until the job has a pending end."""
        while self.end(job_id) is None:
            await self._news.wait()

    async def close(self) -> None:
        """Try once more to store the pending stops."""
        if self._storing is not None:
            self._storing.cancel()
            await asyncio.gather(self._storing, return_exceptions=True)
        await self._store_once()

    async def _store_all(self) -> None:
        while self._reasons:
            await self._store_once()
            await asyncio.sleep(RETRY_S)

    async def _store_once(self) -> None:
        """Store each pending stop; a failure of one does not prevent the others, except a fault of the disk."""
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
                if job.state is not None and job.state.terminal:  # a running job is ended by its lane
                    self.forget(job_id)

    def _pulse(self) -> None:
        """Wake all waiters."""
        self._news.set()
        self._news.clear()
