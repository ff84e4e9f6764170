"""Health of the service: lanes that take no jobs, folders, the job store, damaged records."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from engine.client import EngineStatus
from gateway.access.rights import Rights
from gateway.errors import StorageFault
from gateway.jobs.plans import Lane
from gateway.lanes.base import LaneRunner
from gateway.lanes.pending_stops import Stops
from gateway.store.base import JobStore
from gateway.store.folder_health import StorageHealth


class ServiceHealth:
    """The health of the service. `lanes` are those of this process by name; `engine` gives the status of the engine's
    process; `works_elsewhere`: whether another node takes the jobs of a lane; `draining`: why this process takes no
    more jobs, None where nobody drains it.
    """

    def __init__(
        self,
        store: JobStore,
        storage: StorageHealth,
        lanes: Mapping[Lane, LaneRunner],
        engine: Callable[[], EngineStatus],
        stops: Stops,
        rights: Rights,
        works_elsewhere: Callable[[Lane], bool] = lambda _: False,
        draining: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._store = store
        self._storage = storage
        self._lanes = lanes
        self._engine = engine
        self._stops = stops
        self._rights = rights
        self._works_elsewhere = works_elsewhere
        self._draining = draining

    @property
    def faults(self) -> dict[Lane, str]:
        """Lanes that take no jobs now, each with the reason as one sentence for clients."""
        return {lane: runner.fault.message for lane, runner in self._lanes.items() if runner.fault is not None}

    def blocked(self, lane: Lane) -> str | None:
        """Why a lane begins no job now, as one sentence for clients; None where it works."""
        if self._store.is_paused(lane) and (self._works_elsewhere(lane) or self.blocked_here(lane) is None):
            return "The queue is paused."
        return None if self._works_elsewhere(lane) else self.blocked_here(lane)

    def blocked_here(self, lane: Lane) -> str | None:
        """Why this process begins no job of a lane now, apart from a pause; None where it works."""
        if lane not in self._lanes:
            return "No worker takes jobs now."
        status = self._engine()
        if lane == "engine" and not status.works:
            return f"The engine is down: {status.reason}" if status.state == "down" else "The engine starts."
        return self.faults.get(lane) or self._draining()

    async def storage_fault(self) -> StorageFault | None:
        """Why images cannot be drawn now, where a folder is at fault."""
        engine = self._lanes.get("engine")
        if engine is None or self._works_elsewhere("engine"):
            return None
        return await self._storage.fault(engine.places) or engine.fault

    async def engine_fault(self) -> str | None:
        """Why no engine works, here or on another node."""
        status = self._engine()
        return None if status.works or self._works_elsewhere("engine") else status.reason

    async def check_store(self) -> None:
        """Check that the store can be written. Raises: the error that prevents it."""
        await self._store.check()

    async def damaged(self, owner: str) -> tuple[int, list[str]]:
        """The number of damaged records, and the names of those that this owner may see: operators see all."""
        records, sees_all = await self._store.damaged(), self._rights.is_operator(owner)
        return len(records), [record.name for record in records if sees_all or record.owner == owner]

    async def damaged_records(self) -> int:
        """The number of damaged records, which are set aside."""
        return len(await self._store.damaged())

    @property
    def unstored_stops(self) -> int:
        """The number of stopped jobs whose end is not on disk yet."""
        return len(self._stops.ids)

    def clock_jumps(self, within_s: float) -> int:
        """As `JobStore.clock_jumps`."""
        return self._store.clock_jumps(within_s)
