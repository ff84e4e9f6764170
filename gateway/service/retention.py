"""Retention: deletes old jobs, unused inputs and images over the quota; backs up the job database."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from gateway.events.previews import Previews
from gateway.images.output import OutputFolder
from gateway.service.options import ServiceOptions
from gateway.store.base import JobStore
from gateway.store.shared import SharedStore

log = logging.getLogger("gateway.retention")

LOOK_EVERY_S = 86400.0
TURN = "retention"
"""The name under which the store has when which process cleaned up."""
SETTLE_S = 0.5
"""Seconds until whoever begins at the same moment has written its name."""
TURN_RATIO = 0.9
"""Of the period: processes do not wake at the same moment."""
DELETED_AT_ONCE = 50
UNUSED_INPUTS_S = 3600.0
"""Seconds for which an input is kept that no job names."""


class Turn:
    """Turns of several processes at what one of them does once in a period, by a state in their store.

    Two that begin together both write their names, and the one that wrote last has the turn.
    """

    def __init__(self, store: SharedStore) -> None:
        self._store = store

    async def take(self, every_s: float) -> bool:
        """Whether this process does it now: nobody has within most of the period."""
        at, _, _ = (await self._store.read_state(TURN) or "").partition(" ")
        now = self._store.steady()
        with suppress(ValueError):
            if 0 <= now - float(at) < TURN_RATIO * every_s:
                return False
        mine = f"{now} {self._store.node_id}"
        await self._store.save_state(TURN, mine)
        await asyncio.sleep(SETTLE_S)
        return await self._store.read_state(TURN) == mine


class Retention:
    """The retention of a store and of the images of its jobs."""

    def __init__(
        self,
        store: JobStore,
        output: OutputFolder,
        options: ServiceOptions,
        shared: SharedStore | None = None,
        previews: Previews | None = None,
    ) -> None:
        """`shared` is the store where several processes use it, which take turns."""
        self._turn = None if shared is None else Turn(shared)
        self._store = store
        self._output = output
        self._options = options
        self._backup_due_s = self._look_due_s = 0.0
        self._duties: dict[str, Callable[[], Awaitable[None]]] = {
            "keeping the time": store.check,
            "indexing prompts": store.index_prompts,
            "looking at the records": self._look_over,
            "forgetting old jobs": self._forget_jobs,
            "compacting the events": store.compact,
            "forgetting unused inputs": self._forget_inputs,
            "removing pictures over the quota": self._shrink_images,
            "copying the job database": self._back_up,
        }
        if previews is not None:
            self._duties["removing previews of crashed processes"] = previews.sweep

    async def run(self) -> None:
        """Run all duties periodically; a duty that fails is tried again the next time."""
        while True:
            await self.once()
            await asyncio.sleep(self._options.retention_every_s)

    async def once(self) -> None:
        """Run each duty once; one that fails does not prevent the others. Of several processes one runs them."""
        if self._turn is not None and not await self._has_turn(self._turn):
            return
        for name, duty in self._duties.items():
            try:
                await duty()
            except Exception:
                log.exception("%s failed", name)

    async def _has_turn(self, turn: Turn) -> bool:
        try:
            return await turn.take(self._options.retention_every_s)
        except Exception:
            log.exception("whose turn it is to clean up cannot be read")
            return False

    async def _look_over(self) -> None:
        """Check all records: at once, then once a day."""
        if self._store.steady() >= self._look_due_s:
            await self._store.look_over()
            self._look_due_s = self._store.steady() + LOOK_EVERY_S

    async def _forget_jobs(self) -> None:
        old = self._store.steady() - self._options.retention_s
        while ended := await self._store.ended_before(old, keep_newest=self._options.retained_jobs):
            for at in range(0, len(ended), DELETED_AT_ONCE):  # claims go on between two transactions
                await self._store.delete([job.id for job in ended[at : at + DELETED_AT_ONCE]])

    async def _forget_inputs(self) -> None:
        await self._store.drop_unused_blobs(grace_s=UNUSED_INPUTS_S)

    async def _shrink_images(self) -> None:
        damaged = {record.job_id for record in await self._store.damaged()}
        quota = self._options.images_quota_bytes
        await self._output.run(self._output.shrink, quota, spare=damaged, age_s=self._store.age_s)

    async def _back_up(self) -> None:
        """Back up the database: at once, since it was checked at the start, then periodically."""
        if self._options.backup_every_s is not None:
            await self._store.back_up(self._backup_due_s)
            self._backup_due_s = self._options.backup_every_s
