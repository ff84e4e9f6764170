"""What is forgotten, and when: ended jobs, inputs that none names, pictures over the quota; and what is copied."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from gateway.images.output import Pictures
from gateway.service.options import ServiceOptions
from gateway.store.base import JobStore

log = logging.getLogger("gateway.retention")

LOOK_EVERY_S = 86400.0
UNUSED_INPUTS_S = 3600.0
"""How long an input is kept that no job names."""


class Retention:
    """Tidies a store and the pictures of its jobs."""

    def __init__(self, store: JobStore, pictures: Pictures, options: ServiceOptions) -> None:
        self._store = store
        self._pictures = pictures
        self._options = options
        self._backup_due_s = self._look_due_s = 0.0
        self._duties: dict[str, Callable[[], Awaitable[None]]] = {
            "keeping the time": store.check,
            "looking at the records": self._look_over,
            "forgetting old jobs": self._forget_jobs,
            "forgetting unused inputs": self._forget_inputs,
            "removing pictures over the quota": self._shrink_pictures,
            "copying the job database": self._back_up,
        }

    async def run(self) -> None:
        """Again and again; what goes wrong once may go well the next time."""
        while True:
            await self.once()
            await asyncio.sleep(self._options.retention_every_s)

    async def once(self) -> None:
        """Each duty by itself: one that fails keeps none of the others from being done."""
        for name, duty in self._duties.items():
            try:
                await duty()
            except Exception:
                log.exception("%s failed", name)

    async def _look_over(self) -> None:
        """The first time at once, then once a day."""
        if self._store.steady() >= self._look_due_s:
            await self._store.look_over()
            self._look_due_s = self._store.steady() + LOOK_EVERY_S

    async def _forget_jobs(self) -> None:
        old = self._store.steady() - self._options.retention_s
        while ended := await self._store.ended_before(old, keep_newest=self._options.retained_jobs):
            await self._store.delete([job.id for job in ended])

    async def _forget_inputs(self) -> None:
        await self._store.drop_unused_blobs(grace_s=UNUSED_INPUTS_S)

    async def _shrink_pictures(self) -> None:
        damaged = {record.job_id for record in await self._store.damaged()}
        quota = self._options.pictures_quota_bytes
        await asyncio.to_thread(self._pictures.shrink, quota, spare=damaged, age_s=self._store.age_s)

    async def _back_up(self) -> None:
        """The first time at once: what was checked at the start is worth a copy."""
        if self._options.backup_every_s is not None:
            await self._store.back_up(self._backup_due_s)
            self._backup_due_s = self._options.backup_every_s
