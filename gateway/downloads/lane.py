"""The network lane: one download at a time, while the engine draws. Knows the store, the event bus, the child."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

from engine.protocol import Failed, FailureCode, Succeeded
from gateway.downloads.client import fetched
from gateway.downloads.wire import Fetch, Fetched, Had, NotFetched
from gateway.errors import ModelNotFound, StorageFault, StorageFull
from gateway.events.bus import EventBus
from gateway.forecast import Forecaster
from gateway.framing import ChildDied
from gateway.jobs.facts import ModelDownloading
from gateway.jobs.job import Job, Outcome
from gateway.jobs.plans import Download
from gateway.lanes.leases import Leases
from gateway.lanes.pending_stops import Stops
from gateway.lanes.process import ChildLane
from gateway.models.library import Library
from gateway.store.base import JobStore, Lease, WorkerInfo
from gateway.store.folder_health import StorageHealth

log = logging.getLogger("gateway.downloads")

FAILURE_TEXT = {
    "engine_crash": "The process that downloads stopped twice; what has come is kept.",
    "engine_timeout": "The hub said nothing for minutes, twice; what has come is kept.",
}
PACE_OVER_S = 15.0
LOGGED_PERCENT = 25
Publish = Callable[[Download, ModelDownloading], None]


class NetworkLane(ChildLane):
    """The lane of downloads. `publish` gets the progress of a download, for the jobs that wait for it."""

    lane = "network"
    places = ("models",)

    def __init__(
        self,
        *,
        store: JobStore,
        bus: EventBus,
        library: Library,
        forecaster: Forecaster,
        publish: Publish,
        storage: StorageHealth | None = None,
        stops: Stops | None = None,
        leases: Leases | None = None,
        accepts: Callable[[Job], Awaitable[bool]] | None = None,
        notes: Path | None = None,
        fall_back: tuple[str, ...] = (),
        held_jobs: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        super().__init__(store=store, bus=bus, storage=storage, stops=stops, leases=leases, accepts=accepts)
        self._library = library
        self._forecaster = forecaster
        self._publish = publish
        self._notes = notes
        self._fall_back = fall_back
        self._held_jobs = held_jobs

    def _claimant(self) -> WorkerInfo:
        """The worker that claims; downloads that are another worker's are skipped."""
        return replace(self._worker, held_jobs=self._held_jobs() | self._stops.ids)

    def _extent(self, lease: Lease) -> tuple[int, int]:
        return 1, 0

    def _failure(self, died: ChildDied) -> tuple[FailureCode, str]:
        return "model_missing", FAILURE_TEXT[died.reason]

    async def _outcome(self, lease: Lease) -> Outcome:
        job, plan = lease.job, lease.job.plan
        assert isinstance(plan, Download), "the store gives this lane its own jobs only"
        if await asyncio.to_thread(self._is_here, plan):
            return Succeeded()
        fetch = Fetch(models_dir=str(self._library.models_dir), sources=plan.sources, fall_back=self._fall_back)
        pace, logged = Pace(), -1
        async with aclosing(fetched(fetch, self._notes)) as answers:
            async for answer in answers:
                match answer:
                    case Had(done_bytes=done, total_bytes=total):
                        per_s = pace.of(asyncio.get_running_loop().time(), done)
                        percent = 100 * done // max(1, total)
                        if percent // LOGGED_PERCENT > logged:
                            logged = percent // LOGGED_PERCENT
                            self._log(job, plan, logged * LOGGED_PERCENT, total)
                        fact = ModelDownloading(model=plan.model, done_bytes=done, total_bytes=total, bytes_per_s=per_s)
                        self._bus.publish_progress(job.id, fact, self._forecaster.on_fact(job.id, fact))
                        self._publish(plan, fact)
                    case Fetched():
                        return Succeeded()
                    case NotFetched(is_of_the_disk=True) as refused:
                        self._storage.needs("models", free=refused.needed_bytes)
                        raise (StorageFull if refused.code == "disk_full" else StorageFault)(refused.message)
                    case NotFetched(code=code, message=message):
                        return Failed(code=code, message=message)
        raise ChildDied("engine_crash")

    def _is_here(self, plan: Download) -> bool:
        try:
            return self._library.on_disk(self._library.find(plan.model))
        except ModelNotFound:
            return False  # a LoRA, or a model no longer served: the child checks the files itself

    @staticmethod
    def _log(job: Job, plan: Download, percent: int, total: int) -> None:
        extra = {"job": job.id, "model": plan.model, "percent": percent}
        log.info("downloading %s: %d %% of %.2f GB", plan.model, percent, total / 1e9, extra=extra)


class Pace:
    """The rate of a download, in bytes a second over the last seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def of(self, now: float, done: int) -> float | None:
        """The rate with `done` bytes at the time `now`; None before bytes have arrived over at least a second."""
        self._seen.append((now, done))
        while self._seen[0][0] < now - PACE_OVER_S:
            self._seen.popleft()
        began, first_done = self._seen[0]
        return (done - first_done) / (now - began) if now - began >= 1.0 and done > first_done else None
