"""Own node: the report of a gateway that shares its queue with no other process, and whether its operator drains it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from engine.client import EngineStatus
from gateway import __version__
from gateway.fleet.node import Node, NodeState, SeenNode
from gateway.jobs.plans import Lane
from gateway.lanes.base import LaneRunner
from gateway.models.library import Library
from gateway.store.base import JobStore

log = logging.getLogger("gateway.service")

NAME = "gateway"
SAVED_AS = "draining"
MODELS_EVERY_S = 2.0
"""Seconds between two looks at the models on the disk."""
DRAINING = "This worker takes no more jobs: its operator drains it."


class OwnNode:
    """The only node. `why_idle` is why its engine's lane takes no jobs, as one sentence; None where it takes them."""

    def __init__(
        self,
        store: JobStore,
        library: Library,
        lanes: Callable[[], Mapping[Lane, LaneRunner]],
        engine: Callable[[], EngineStatus],
        why_idle: Callable[[], str | None],
    ) -> None:
        self._store = store
        self._library = library
        self._lanes = lanes
        self._engine = engine
        self._why_idle = why_idle
        self._models: tuple[str, ...] = ()
        self._models_read_at = -MODELS_EVERY_S
        self.is_draining = False
        """Whether its lanes take no more jobs, also after a restart, until the operator resumes it."""

    async def start(self) -> None:
        """Read whether the operator drained it, before its lanes claim a job."""
        self._set(await self._store.read_state(SAVED_AS) == "true")

    async def drain(self, name: str, is_draining: bool) -> None:
        """Take no more jobs, or take jobs again."""
        if name != NAME or is_draining == self.is_draining:
            return
        await self._store.save_state(SAVED_AS, str(is_draining).lower())
        log.info("draining" if is_draining else "taking jobs again")
        self._set(is_draining)

    def _set(self, is_draining: bool) -> None:
        self.is_draining = is_draining
        for lane in self._lanes().values():
            lane.drain(is_draining)

    async def read(self) -> list[SeenNode]:
        """Its report."""
        now = time.monotonic()
        if now - self._models_read_at >= MODELS_EVERY_S:
            self._models_read_at, self._models = now, await asyncio.to_thread(self._on_disk)
        return [SeenNode(self._node(), 0.0, self.is_draining)]

    def _on_disk(self) -> tuple[str, ...]:
        self._library.refresh()
        return tuple(spec.name for spec in self._library.specs if self._library.on_disk(spec))

    def _node(self) -> Node:
        engine, lanes = self._engine(), self._lanes()
        state: NodeState = "starting" if engine.state == "starting" else "down"
        if engine.works:
            state = "draining" if self.is_draining else "ready"
        return Node(
            id=NAME,
            name=NAME,
            kind="gateway",
            version=__version__,
            lanes=tuple(lanes),
            device=engine.device,
            memory_limit_bytes=engine.memory_limit_bytes,
            models=self._models,
            loaded_model=engine.loaded_model,
            jobs=tuple(lane.running.id for lane in lanes.values() if lane.running is not None),
            state=state,
            reason=self._why_idle(),
        )
