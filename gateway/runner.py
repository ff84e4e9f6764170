"""What every lane does: claims one job after the other, has it done, and records how it ended.

Knows the store and the hub; what a job needs to be done is its lane's business. No client and no protocol.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TypeVar

from engine.protocol import Cancelled, CancelReason, Failed, FailureCode, Lane
from gateway.errors import JobDamaged
from gateway.hub import Hub
from gateway.job import CRASHES_ALLOWED, Job, Outcome
from gateway.store.base import JobStore, Lease, WorkerInfo

log = logging.getLogger("gateway.lane")

T = TypeVar("T")

RETRY_S = (0.1, 0.5, 2.0, 5.0, 15.0)
"""Between tries to write what must be written; the last one repeats."""


class LaneRunner(ABC):
    """One runner, one job at a time. `start` before, `stop` after; both are the subclass's."""

    lane: Lane
    stops: tuple[type[BaseException], ...] = (asyncio.CancelledError,)
    """What a running job ends with when the gateway stops: it goes back to the queue."""

    def __init__(self, *, store: JobStore, hub: Hub) -> None:
        self._store = store
        self._hub = hub
        self._worker = WorkerInfo(id=secrets.token_hex(8), lane=self.lane)
        self._wake = asyncio.Event()
        self._cancels: dict[str, CancelReason] = {}
        self._loop: asyncio.Task[None] | None = None
        self._stopping = False
        self.running: Job | None = None
        """The job that is done now."""

    @abstractmethod
    async def start(self) -> None: ...

    @abstractmethod
    async def stop(self) -> None:
        """Give the running job back to the queue."""

    @abstractmethod
    async def cancel(self, job_id: str, reason: CancelReason) -> None:
        """Stop a job that was claimed; the store already knows that it was asked to."""

    @abstractmethod
    async def _wait_ready(self) -> None:
        """Until a job could be done."""

    async def _idle(self) -> None:
        """There is nothing to do: until there may be something."""
        await self._wake.wait()

    def _claimant(self) -> WorkerInfo:
        """Who claims, and for which models."""
        return self._worker

    @abstractmethod
    async def _do(self, lease: Lease) -> None:
        """Do the job and end it. Raises: one of `stops`."""

    @abstractmethod
    def _tidy(self, job_id: str) -> None:
        """Remove what the job left lying about. Blocks."""

    def wake(self) -> None:
        """There is a job to claim."""
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wait_ready()
            self._wake.clear()
            lease = await self._surely(lambda: self._store.claim(self._claimant()), "claim")
            if lease is None:
                await self._idle()
                continue
            try:
                await self._do(lease)
            except self.stops:
                await asyncio.shield(self._store.release(lease, "gateway_restart"))
                raise
            except Exception:
                log.exception("the lane stumbled", extra={"job": lease.job.id})
                await self._end(lease, Failed(code="internal_error", message="The gateway made a mistake."))
            finally:
                self.running = None

    async def _died(self, lease: Lease, code: FailureCode, message: str) -> None:
        """The process that did the job took it along: once it waits again, twice it fails with `message`."""
        job = await self._surely(lambda: self._store.get(lease.job.id), "get")
        if job.cancel_requested is not None:
            return await self._end(lease, Cancelled(reason=job.cancel_requested))
        if job.crashes >= CRASHES_ALLOWED:
            return await self._end(lease, Failed(code=code, message=message))
        why = code if code == "engine_timeout" else "engine_crash"
        await self._surely(lambda: self._store.release(lease, why), "release")
        self._hub.end(job.id)

    async def _end(self, lease: Lease, outcome: Outcome) -> None:
        """Commit, tidy up."""
        job_id = lease.job.id
        if isinstance(outcome, Cancelled):
            outcome = Cancelled(reason=self._cancels.get(job_id, outcome.reason))
        await self._surely(lambda: self._store.commit(lease, outcome), "commit")
        self._cancels.pop(job_id, None)
        self._hub.end(job_id)
        await asyncio.to_thread(self._tidy, job_id)

    async def _surely(self, write: Callable[[], Awaitable[T]], what: str) -> T:
        """Try until it is on disk: a full disk or a passing fault must not cost the lane, nor the job its end."""
        for tries in range(2**31):
            try:
                return await write()
            except JobDamaged:
                raise  # it stays damaged
            except Exception:
                if self._stopping:
                    raise
                log.exception("%s failed; trying again", what)
                await asyncio.sleep(RETRY_S[min(tries, len(RETRY_S) - 1)])
        raise AssertionError("unreachable")
