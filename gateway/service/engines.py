"""Engines: what the engines of all nodes run and have in memory; skip and unload, wherever they must happen."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from engine.client import Engine, EngineStatus, EngineStopped
from gateway.errors import Unavailable
from gateway.fleet.messages import SkipImage, UnloadModel
from gateway.fleet.roster import ALIVE_S, Roster
from gateway.jobs.job import Job
from gateway.lanes.engine import EngineLane
from gateway.ocr.lane import OcrLane
from gateway.service.fleet import Fleet


class Engines:
    """The engines of all nodes. `fleet` has the others; None: there are none. `is_own`: whether this process draws."""

    def __init__(self, engine: Engine, lane: EngineLane, reader: OcrLane, fleet: Fleet | None, *, is_own: bool) -> None:
        self._engine = engine
        self._lane = lane
        self._reader = reader
        self._fleet = fleet
        self._is_own = is_own

    @property
    def status(self) -> EngineStatus:
        """The engine of this process; where it has none, what its workers have together."""
        if self._fleet is None or self._is_own:
            return self._engine.status
        return status_of_workers(self._fleet.roster, self._engine.status.backend)

    @property
    def loaded_models(self) -> tuple[str, ...]:
        """The models in memory."""
        if self._fleet is not None:
            return self._fleet.roster.loaded_models
        loaded = self._engine.status.loaded_model
        return () if loaded is None else (loaded,)

    def running_jobs(self) -> Sequence[Job]:
        """The jobs that run now."""
        if self._fleet is not None:
            return self._fleet.running.of("engine")
        return () if self._lane.running is None else (self._lane.running,)

    def running(self, owner: str | None = None, protocol: str | None = None) -> Job | None:
        """The job that runs now.

        Where several run, for an answer with room for one: the first that started of those of this owner and protocol,
        else of this owner, else of all.
        """
        jobs = self.running_jobs()
        own = [job for job in jobs if job.owner == owner]
        return next(iter([job for job in own if job.protocol == protocol] or own or jobs), None)

    def skip(self, job_id: str) -> None:
        """Finish the current image of a running job as it is, and continue with the next one."""
        self.skip_here(job_id)
        if self._fleet is not None:
            self._fleet.messenger.send(SkipImage(job=job_id))

    def skip_here(self, job_id: str) -> None:
        """As `skip`, if the job runs in this process."""
        if self._lane.running is not None and self._lane.running.id == job_id:
            self._lane.skip(job_id)

    async def unload(self, model: str | None) -> None:
        """Free the memory of this model, or of any, between two jobs, on every node. Raises: Unavailable."""
        if self._fleet is not None:
            self._fleet.messenger.send(UnloadModel(model=model))
        try:
            await self._unload(model)
        except EngineStopped:
            raise Unavailable("The gateway is stopping.", retry_after_s=5) from None

    async def unload_here(self, model: str | None) -> None:
        """As `unload`, of this process, for another one."""
        with suppress(EngineStopped):
            await self._unload(model)
        if model is not None:
            await self._reader.let_go(model)

    async def unload_reader(self, model: str) -> bool:
        """Free the memory of an OCR model on every node; whether this one had it."""
        if self._fleet is not None:
            self._fleet.messenger.send(UnloadModel(model=model))
        return await self._reader.let_go(model)

    async def _unload(self, model: str | None) -> None:
        if model is None or model == self._engine.status.loaded_model:
            await self._engine.unload()


def status_of_workers(roster: Roster, backend: str) -> EngineStatus:
    """What the workers have together, as the status of one engine."""
    nodes = [one.node for one in roster.others if "engine" in one.node.lanes and one.seen_s < ALIVE_S]
    ready = [node for node in nodes if node.state == "ready"]
    first = next(iter(ready or nodes), None)
    if first is None:
        return EngineStatus("down", backend, "No worker is there.")
    return EngineStatus(
        state="ready" if ready else "starting",
        backend=backend,
        reason=None if ready else first.reason,
        device=first.device,
        loaded_model=next(iter(roster.loaded_models), None),
        memory_limit_bytes=roster.memory_bytes,
    )
