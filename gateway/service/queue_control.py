"""Control of the queue: pause, reorder, positions. The order itself is in `gateway.jobs.order`."""

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
    """Control of the queue. `wake` starts the engine's lane; `stopped` jobs are not listed as waiting; `on_change` is
    called after a pause or a move, for other processes.
    """

    def __init__(
        self,
        store: JobStore,
        positions: QueuePositions,
        wake: Callable[[], None],
        rights: Rights,
        stopped: Callable[[], frozenset[str]] = frozenset,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._stopped = stopped
        self._positions = positions
        self._wake = wake
        self._rights = rights
        self._on_change = on_change

    @property
    def paused(self) -> bool:
        """Whether the engine's lane begins no jobs; the running job and other lanes continue."""
        return self._store.is_paused("engine")

    async def pause(self, owner: str) -> None:
        """Begin no more jobs in the engine's lane until `resume`, also after a restart. Raises: Forbidden."""
        await self._pause(owner, True)

    async def resume(self, owner: str) -> None:
        """Begin jobs again after `pause`. Raises: Forbidden."""
        await self._pause(owner, False)

    async def _pause(self, owner: str, paused: bool) -> None:
        self._rights.check(owner, "pause")
        await asyncio.shield(self._store.pause("engine", paused))
        log.info("paused" if paused else "resumed")
        self._wake()
        self._positions.invalidate_order()
        self._on_change()

    async def move(
        self,
        job_id: str,
        *,
        owner: str | None = None,
        before: str | None = None,
        position: int | None = None,
        to: Literal["front", "end"] | None = None,
    ) -> Job:
        """Move a waiting job among the jobs of its owner; exactly one of the three parameters gives the place.

        `before` is another job of the owner; `position` counts as in `position()`, and the owner's first place from
        there on is taken. Jobs of other owners do not move. Raises: JobNotFound, JobNotWaiting.
        """
        job = await self._store.get(job_id, owner)
        lane = lane_of(job.plan)
        queue = self._store.order(lane)
        if before is not None:
            await self._store.get(before, job.owner)
        place = place_among_own(queue, job_id, self._store.running(lane), before=before, position=position, to=to)
        if place is None:
            raise JobNotWaiting
        await asyncio.shield(self._store.move(job_id, place))
        self._positions.invalidate_order()
        self._on_change()
        return job

    async def waiting(self, *, owner: str | None = None, limit: int = 100, offset: int = 0) -> list[Job]:
        """Queued jobs, of one owner or of all, in the order in which they will run, without the first `offset`."""
        stopped = self._stopped()
        jobs = await self._store.waiting(owner=owner, limit=limit, offset=offset)
        return [job for job in jobs if job.id not in stopped]

    def running(self, lane: Lane) -> int:
        """The number of running jobs of a lane."""
        return self._store.running(lane)

    def depth(self, lane: Lane) -> int:
        """The number of waiting jobs of a lane."""
        return self._store.depth(lane)

    async def position(self, job_id: str) -> int | None:
        """The number of jobs that run or wait before this one; None once it has ended."""
        return await self._store.position(job_id)
