"""A lane whose jobs run in a child process of their own, which can be cancelled at any time.

Knows the store and the event bus, no client and no protocol. The subclass knows the child and its requests.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable

from engine.protocol import Cancelled, CancelReason, FailureCode
from gateway.events.bus import EventBus
from gateway.framing import ChildDied
from gateway.jobs.job import Job, Outcome
from gateway.lanes.base import LaneRunner
from gateway.lanes.leases import Leases
from gateway.lanes.pending_stops import Stops
from gateway.store.base import JobStore, Lease
from gateway.store.folder_health import StorageHealth


class ChildLane(LaneRunner):
    """The lane of child processes: one job at a time, each one task; the job of a dead child is tried once more."""

    def __init__(
        self,
        *,
        store: JobStore,
        bus: EventBus,
        storage: StorageHealth | None = None,
        stops: Stops | None = None,
        leases: Leases | None = None,
        accepts: Callable[[Job], Awaitable[bool]] | None = None,
    ) -> None:
        super().__init__(store=store, bus=bus, storage=storage, stops=stops, leases=leases, accepts=accepts)
        self._work: asyncio.Task[Outcome] | None = None

    async def start(self) -> None:
        self._loop = asyncio.create_task(self._run(), name=f"{self.lane} lane")

    async def stop(self) -> None:
        """Put the running job back into the queue; its partial result is kept."""
        self._stopping = True
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)

    async def cancel(self, job_id: str, reason: CancelReason) -> None:
        """Stop the child's work; its partial result is kept."""
        is_requested = job_id in self._cancels
        self._cancels[job_id] = reason
        # A second cancel would interrupt the cleanup of the child.
        if not is_requested and self._work is not None and self.runs(job_id):
            self._work.cancel()

    async def _halt(self, job_id: str) -> None:
        if self._work is not None and self.running is not None and self.running.id == job_id:
            self._work.cancel()

    @abstractmethod
    def _extent(self, lease: Lease) -> tuple[int, int]:
        """The number of parts of a job, and of those that are done."""

    @abstractmethod
    async def _outcome(self, lease: Lease) -> Outcome:
        """Run the job and return its outcome. Raises: ChildDied, StorageFault."""

    @abstractmethod
    def _failure(self, died: ChildDied) -> tuple[FailureCode, str]:
        """The code and message of a job whose child died twice."""

    async def _wait_ready(self) -> None:
        """Return at once: the child starts with the job."""

    def _tidy(self, job_id: str) -> None:
        """Do nothing: a child leaves no files of its job."""

    async def _do(self, lease: Lease) -> None:
        job = lease.job
        self._bus.begin(job.id, *self._extent(lease))
        if job.id in self._cancels:
            return await self._end(lease, Cancelled())
        work = self._work = asyncio.create_task(self._outcome(lease))
        try:
            await asyncio.wait({work})
        finally:
            self._work = None
            if not work.done():
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
        if work.cancelled():
            return await self._end(lease, Cancelled())
        error = work.exception()
        if isinstance(error, ChildDied):
            return await self._died(lease, *self._failure(error))
        await self._end(lease, work.result())
