"""Events of jobs for clients: progress, forecasts, and the event stream of an owner."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

from gateway.events.bus import Event, EventBus, Snapshot
from gateway.events.positions import QueuePositions
from gateway.events.streams import watch_all
from gateway.forecast import Forecast, Forecaster, Record
from gateway.jobs.job import Job, Progress, State
from gateway.jobs.plans import Lane, lane_of
from gateway.store.base import JobStore, OnEvent


class JobEvents:
    """The events of jobs. `blocked`: why a lane begins no job now, as one sentence for clients; None where it works."""

    def __init__(
        self,
        store: JobStore,
        bus: EventBus,
        positions: QueuePositions,
        forecaster: Forecaster,
        blocked: Callable[[Lane], str | None],
    ) -> None:
        self._store = store
        self._bus = bus
        self._positions = positions
        self._forecaster = forecaster
        self._blocked = blocked

    def listen(self, on_event: OnEvent) -> None:
        """Call `on_event` with every state event from now on."""
        self._bus.listen(on_event)

    def watch_all(self, owner: str, after: int | None = None) -> AsyncGenerator[Snapshot | Event, None]:
        """As `gateway.events.streams.watch_all`."""
        return watch_all(self._store, self._bus, self._positions, owner, after)

    def watchers(self, job_id: str) -> int:
        """The number of streams that follow this job alone."""
        return self._bus.watchers(job_id)

    def progress(self, job_id: str) -> Progress | None:
        """The progress of a running job; None where it does not run."""
        return self._bus.progress(job_id)

    def forecast(self, job: Job) -> Forecast | None:
        """When a job is expected to begin and to be done, from now; None once it has ended."""
        return self._positions.forecast(job)

    @property
    def forecast_record(self) -> Record:
        """The record of errors of the forecasts made at submit."""
        return self._forecaster.record

    def waits_for(self, job: Job) -> str | None:
        """Why a queued job does not begin, as one sentence for clients; None where it only waits for its turn."""
        return self._blocked(lane_of(job.plan)) if job.state is State.QUEUED else None
