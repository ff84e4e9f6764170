"""What is forgotten, and when: ended jobs, inputs that none names, pictures over the quota; and what is copied."""

from __future__ import annotations

import asyncio
import logging
import time

from gateway.options import ServiceOptions
from gateway.pictures import Pictures
from gateway.store.base import JobStore

log = logging.getLogger("gateway.retention")

UNUSED_INPUTS_S = 3600.0
"""How long an input is kept that no job names."""


class Retention:
    """Tidies a store and the pictures of its jobs."""

    def __init__(self, store: JobStore, pictures: Pictures, options: ServiceOptions) -> None:
        self._store = store
        self._pictures = pictures
        self._options = options

    async def run(self) -> None:
        """Again and again; what goes wrong once may go well the next time."""
        due_s = 0.0  # what was checked at the start is worth a copy at once
        while True:
            try:
                await self.once()
                if self._options.backup_every_s is not None:
                    await self._store.back_up(due_s)
                    due_s = self._options.backup_every_s
            except Exception:
                log.exception("retention failed")
            await asyncio.sleep(self._options.retention_every_s)

    async def once(self) -> None:
        """Forget ended jobs past their time with their inputs; remove the oldest pictures over the quota."""
        old = time.time() - self._options.retention_s
        while ended := await self._store.ended_before(old, keep_newest=self._options.retained_jobs):
            await self._store.delete([job.id for job in ended])
        await self._store.drop_unused_blobs(grace_s=UNUSED_INPUTS_S)
        await asyncio.to_thread(self._pictures.shrink, self._options.pictures_quota_bytes)
