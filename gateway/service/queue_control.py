"""The queue as people see and change it: pause, reorder, places. The order itself is `gateway.jobs.order`'s."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Literal

from gateway.access.rights import Rights
from gateway.errors import JobNotWaiting
from gateway.events.positions import QueuePositions
from gateway.jobs.job import Job
from gateway.jobs.order import place_among_own
from gateway.jobs.plans import Lane, lane_of
from gateway.store.base import JobStore

log = logging.getLogger("gateway.service")


class QueueControl:
    """`wake` tells the engine's lane that there may be something to do; `stopped` jobs are not shown as waiting."""

    def __init__(
        self,
        store: JobStore,
        positions: QueuePositions,
        wake: Callable[[], None],
        rights: Rights,
        stopped: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        self._store = store
        self._stopped = stopped
        self._positions = positions
        self._wake = wake
        self._rights = rights

    @property
    def paused(self) -> bool:
        """Whether nothing new is drawn; what runs goes on, and other lanes do."""
        return self._store.is_paused("engine")

    async def pause(self, owner: str) -> None:
        """Begin no more jobs in the engine's lane, over restarts, too, until `resume`. Raises: Forbidden."""
        await self._pause(owner, True)

    async def resume(self, owner: str) -> None:
        """Raises: Forbidden."""
        await self._pause(owner, False)

    async def _pause(self, owner: str, paused: bool) -> None:
        self._rights.check(owner, "pause")
        await asyncio.shield(self._store.pause("engine", paused))
        log.info("paused" if paused else "resumed")
        self._wake()
        self._positions.invalidate_order()

    async def move(
        self,
        job_id: str,
        *,
        owner: str | None = None,
        before: str | None = None,
        position: int | None = None,
        to: Literal["front", "end"] | None = None,
    ) -> Job:
        """Let a waiting job run earlier or later than the same owner's others: exactly one of the three says where.

        `before` is one of those others; `position` is as `position()` counts, and the owner's first place from there on
        is taken. Nobody else's place changes. Raises: JobNotFound, JobNotWaiting.
        """
        job = await self._store.get(job_id, owner)
        lane = lane_of(job.plan)
        line = self._store.order(lane)
        if before is not None:
            await self._store.get(before, job.owner)
        place = place_among_own(line, job_id, self._store.running(lane), before=before, position=position, to=to)
        if place is None:
            raise JobNotWaiting
        await asyncio.shield(self._store.move(job_id, place))
        self._positions.invalidate_order()
        return job

    async def waiting(self, *, owner: str | None = None, limit: int = 100, offset: int = 0) -> list[Job]:
        """Queued jobs, of one owner or of all, in the order in which they will run, without the first `offset`."""
        stopped = self._stopped()
        found = await self._store.waiting(owner=owner, limit=limit, offset=offset)
        return [job for job in found if job.id not in stopped]

    def running(self, lane: Lane) -> int:
        """How many jobs of this lane run."""
        return self._store.running(lane)

    def depth(self, lane: Lane) -> int:
        """How many jobs wait for this lane."""
        return self._store.depth(lane)

    async def position(self, job_id: str) -> int | None:
        """How many jobs run or wait before this one; None once it has ended."""
        return await self._store.position(job_id)
