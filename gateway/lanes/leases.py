"""Leases of the jobs that this process runs: renewed in the background while a job runs, also while it is filed.

A lease that is lost belongs to another process: the job is stopped here, and the store refuses what it still records.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from gateway.store.base import Lease

log = logging.getLogger("gateway.lane")

RENEWALS = 3
"""Renewals within the time of a lease: two may fail."""


class Renewal(Protocol):
    """The part of a shared store that renews leases."""

    async def renew(self, leases: Sequence[Lease]) -> list[Lease]:
        """Prolong the leases; returns those that are lost."""
        ...


class Leases:
    """The leases of one process, of all its lanes. Belongs to one event loop."""

    def __init__(self, store: Renewal, lease_s: float) -> None:
        self.lease_s = lease_s
        self._store = store
        self._renewed: dict[tuple[str, int], tuple[Lease, Callable[[Lease], None]]] = {}
        self._lost: set[tuple[str, int]] = set()
        self._changed = asyncio.Event()

    @property
    def job_ids(self) -> tuple[str, ...]:
        """Ids of the jobs that this process runs, in the order of their claims."""
        return tuple(lease.job.id for lease, _ in self._renewed.values())

    def add(self, lease: Lease, on_lost: Callable[[Lease], None]) -> None:
        """Renew this lease from now on; `on_lost` is called once another process may have the job."""
        self._renewed[_key(lease)] = lease, on_lost

    def drop(self, lease: Lease) -> None:
        """The job has ended or waits again."""
        self._renewed.pop(_key(lease), None)
        self._lost.discard(_key(lease))
        self._changed.set()
        self._changed.clear()

    def is_lost(self, lease: Lease) -> bool:
        return _key(lease) in self._lost

    async def all_dropped(self) -> None:
        """Wait until this process runs no job."""
        while self._renewed:
            await self._changed.wait()

    async def run(self) -> None:
        """Renew all leases periodically; a failure is tried again, because the store may be away for a while."""
        failed = False
        while True:
            await asyncio.sleep(self.lease_s / RENEWALS)
            try:
                await self.renew()
                failed = False
            except Exception as error:
                if not failed:
                    log.warning("leases cannot be renewed; jobs run on: %s", error)
                failed = True

    async def renew(self) -> None:
        """Renew all leases once, and stop the jobs whose lease is lost."""
        held = [lease for key, (lease, _) in self._renewed.items() if key not in self._lost]
        for lease in await self._store.renew(held) if held else ():
            known = self._renewed.get(_key(lease))
            if known is None:  # its job has ended meanwhile
                continue
            log.warning("the lease is lost; another worker has the job", extra={"job": lease.job.id})
            self._lost.add(_key(lease))
            known[1](lease)


def _key(lease: Lease) -> tuple[str, int]:
    return lease.job.id, lease.job.attempt
