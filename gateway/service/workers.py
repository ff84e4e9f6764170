"""Workers: the processes that run jobs, for clients to see, and for operators to drain."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.access.rights import Rights
from gateway.errors import JobDamaged, JobNotFound, WorkerNotFound
from gateway.fleet.node import Node, SeenNode
from gateway.fleet.reports import Reports
from gateway.jobs.job import Job

JOBS_SHOWN = 16
"""The most jobs of one process that are looked up for a client; it runs one for each lane."""


class Drain(Protocol):
    def __call__(self, name: str, is_draining: bool) -> Coroutine[Any, Any, None]:
        """Have the processes of this name take no more jobs, or take jobs again; survives their restarts."""
        ...


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A process as one client sees it."""

    seen: SeenNode
    jobs: tuple[str, ...]
    """Ids of those of its running jobs that the client may see."""
    image_s: float | None
    """Learned seconds of an image of the loaded model, at its usual size and steps; None where nothing is learned."""

    @property
    def node(self) -> Node:
        return self.seen.node

    @property
    def is_draining(self) -> bool:
        return self.seen.is_draining or self.node.state == "draining"


class WorkerControl:
    """The processes that run jobs. `see` is a job that an owner may see, `image_s` as `WorkerView.image_s`;
    `on_change` is called when a process was drained or resumed.
    """

    def __init__(
        self,
        reports: Reports,
        *,
        drain: Drain,
        see: Callable[[str, str], Awaitable[Job]],
        image_s: Callable[[Node], float | None],
        rights: Rights,
        on_change: Callable[[], None],
    ) -> None:
        self._reports = reports
        self._drain = drain
        self._see = see
        self._image_s = image_s
        self._rights = rights
        self._on_change = on_change

    async def nodes(self) -> Sequence[SeenNode]:
        """The processes that reported within the last minute, by name; of one name the one that reported last."""
        return await self._reports.refresh()

    async def views(self, owner: str) -> list[WorkerView]:
        """The same as this owner may see them."""
        return [await self._view(seen, owner) for seen in await self.nodes()]

    async def drain(self, name: str, owner: str) -> WorkerView:
        """Have a process take no more jobs, also after a restart, until it is resumed; running jobs go on.

        Raises: Forbidden, WorkerNotFound.
        """
        return await self._change(name, owner, True)

    async def resume(self, name: str, owner: str) -> WorkerView:
        """Have a process take jobs again. Raises: as drain."""
        return await self._change(name, owner, False)

    async def _change(self, name: str, owner: str, is_draining: bool) -> WorkerView:
        self._rights.check(owner, "drain")
        if not any(seen.node.name == name for seen in await self.nodes()):
            raise WorkerNotFound
        await asyncio.shield(self._drain(name, is_draining))
        named = [seen for seen in await self.nodes() if seen.node.name == name]
        self._on_change()
        if not named:  # it has left meanwhile
            raise WorkerNotFound
        return await self._view(named[0], owner)

    async def _view(self, seen: SeenNode, owner: str) -> WorkerView:
        visible = []
        for job_id in seen.node.jobs[:JOBS_SHOWN]:
            with suppress(JobNotFound, JobDamaged):
                visible.append((await self._see(job_id, owner)).id)
        return WorkerView(seen, tuple(visible), self._image_s(seen.node))
