"""Shared store: a job store that several processes use at once, with what they tell each other through it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from gateway.fleet.node import Node, SeenNode
from gateway.jobs.job import Job
from gateway.store.base import JobStore, Lease

MESSAGE_BYTES = 7000
"""Most bytes of a message in UTF-8: PostgreSQL's NOTIFY carries less than 8000."""

OnMessage = Callable[[str], None]
"""Callback: takes a message of another process."""


class SharedStore(JobStore, Protocol):
    """A job store for several processes. Its time is the database's; a lease belongs to the process that claimed."""

    node_id: str
    """The id of this process, from `open` on; recorded with the jobs that it runs, and the attached ones it submits."""

    async def announce(self, node: Node) -> bool:
        """Report this process, every few seconds; returns whether the operator has asked it to drain."""
        ...

    async def withdraw(self, node_id: str) -> None:
        """Remove the report of a process that leaves."""
        ...

    async def nodes(self, within_s: float = 60.0) -> list[SeenNode]:
        """The processes that reported within the last `within_s` seconds, by name."""
        ...

    async def drain(self, name: str, is_draining: bool) -> None:
        """Ask the nodes of this name to take no more jobs, or to take jobs again; survives their restarts."""
        ...

    async def renew(self, leases: Sequence[Lease]) -> list[Lease]:
        """Prolong the leases of running jobs; returns those that are lost."""
        ...

    async def end_abandoned(self, gateways_gone_s: float) -> list[Job]:
        """Cancel (client_gone) the attached jobs whose gateway has not reported for that long."""
        ...

    async def post(self, message: str) -> None:
        """Send a message of at most `MESSAGE_BYTES` to all other processes, which may lose it."""
        ...

    def listen(self, on_message: OnMessage) -> None:
        """Call `on_message` on the event loop with every message of another process."""
        ...
