"""Positions of waiting jobs in the queue and their forecasts: computed when asked for, and published to subscribers.

Knows the store's order, the forecaster and the event bus; no engine, no client and no protocol.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from math import ceil

from gateway.events.bus import EventBus, PlaceEvent, ProgressEvent
from gateway.forecast import Forecast, Forecaster
from gateway.jobs.job import Job, JobEvent, State
from gateway.jobs.plans import LANES, Lane, lane_of
from gateway.store.base import JobStore

log = logging.getLogger("gateway.places")

KEPT_AS = "forecast"
KEEP_EVERY_S = 10.0
HELD_TO = 200
"""Where more wait, forecasts are told, too, but not held to: that would cost every submit a look at all."""
TOLD_MOST = 1000
"""Places told at once; what is left comes after `every_s`."""
TOLD_FIRST = 200
"""Those in front are told each time."""
SLICE = 50
"""Places found between two looks of the loop at others."""
RETRY_AFTER_MOST_S = 3600
SHIFT_S = 1.0
SHIFT_RATIO = 0.1
"""A forecast is told again once its end has shifted by more than both."""


class QueuePositions:
    """Listens to the bus; `run` publishes what follows from its events.

    `blocked` is why nothing of a lane begins now, None where nothing keeps it; `downloading` is how far the download is
    that a waiting job needs first.
    """

    def __init__(
        self,
        store: JobStore,
        bus: EventBus,
        forecaster: Forecaster,
        every_s: float,
        *,
        blocked: Callable[[Lane], str | None] = lambda _: None,
        downloading: Callable[[Job], ProgressEvent | None] = lambda _: None,
    ) -> None:
        self._store = store
        self._bus = bus
        self._forecaster = forecaster
        self._every_s = every_s
        self._changed = asyncio.Event()
        self._begin_at = 0
        self._told: dict[str, tuple[PlaceEvent, float]] = {}
        """With the loop's time at which it was told."""
        self._blocked = blocked
        self._downloading = downloading
        bus.listen(self.on_event)

    async def start(self) -> None:
        """Remember what was learned, and what waits."""
        kept = await self._store.kept(KEPT_AS)
        if kept is not None:
            try:
                self._forecaster.read_text(kept)
            except (ValueError, KeyError, TypeError, AttributeError):
                log.exception("what forecasts were learned from cannot be read; they begin anew")
        for job in await self._store.waiting(limit=100_000):
            self._forecaster.waits(job)

    def on_event(self, job: Job, event: JobEvent) -> None:
        """A state event: places may have changed."""
        forecaster = self._forecaster
        match event.fact.kind:
            case "queued":
                forecaster.waits(job)
                lane = lane_of(job.plan)
                if self._is_held(job, lane):
                    forecaster.on_submitted(job.id, self._store.order(lane))
            case "requeued":
                forecaster.waits(job)
            case "started":
                forecaster.begins(job)
            case "succeeded" | "failed" | "cancelled":
                forecaster.ends(job)
            case _:
                forecaster.on_fact(job.id, event.fact)
        self._changed.set()

    def _is_held(self, job: Job, lane: Lane) -> bool:
        """Whether a forecast told now counts: nobody can foretell how fast the hub sends."""
        is_paused, model = self._store.is_paused(lane), job.plan.model
        foretold = lane != "network" and not {model, job.id} & self._forecaster.due_in().keys()
        return foretold and not is_paused and self._store.depth(lane) <= HELD_TO

    def forget(self, job_id: str) -> None:
        """Nothing more will be heard of a job."""
        self._forecaster.forget(job_id)
        self._changed.set()

    def invalidate(self) -> None:
        """Forecasts may have changed without an event: a download goes on."""
        self._changed.set()

    def invalidate_order(self) -> None:
        """Places have changed without an event: a reorder, a pause, its end."""
        self._forecaster.pauses()
        self._changed.set()

    # ---- what is asked ---------------------------------------------------------------------------

    def forecast(self, job: Job) -> Forecast | None:
        """When a job is expected to begin and to be done; None once it has ended."""
        lane = lane_of(job.plan)
        return self._forecaster.of(job.id, self._store.order(lane), is_paused=self._store.is_paused(lane))

    async def newest(self, jobs: Sequence[Job]) -> AsyncIterator[ProgressEvent | PlaceEvent]:
        """What a listener who comes late should know first."""
        for n, job in enumerate(jobs, 1):
            if job.state is State.RUNNING and (newest := self._bus.newest(job.id)) is not None:
                yield newest
            elif job.state is State.QUEUED:
                if (download := self._downloading(job)) is not None:
                    yield download
                place = await self._store.position(job.id)
                if place is not None and (found := self._now(lane_of(job.plan), place, job.id)) is not None:
                    yield found
            if n % SLICE == 0:
                await asyncio.sleep(0)

    def retry_after_s(self, lane: Lane, owner: str | None) -> int:
        """Seconds until one more job may wait: of this owner, or of anybody."""
        line = self._store.order(lane)
        first = next((job.id for job in line if job.owner == owner), None)
        return max(1, min(RETRY_AFTER_MOST_S, ceil(self._forecaster.room_s(lane, first, line))))

    # ---- what is told ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Tell waiting jobs where they stand whenever that has changed, and keep what was learned."""
        loop, kept, kept_at = asyncio.get_running_loop(), self._forecaster.version, 0.0
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._tell(loop.time())
            except Exception:  # what was learned is kept all the same
                log.exception("places could not be told")
            if self._forecaster.version != kept and loop.time() - kept_at > KEEP_EVERY_S:
                kept, kept_at = self._forecaster.version, loop.time()
                await self.keep()
            await asyncio.sleep(self._every_s)

    async def keep(self) -> None:
        """Store what was learned; a disk that is full costs no more than that."""
        try:
            await self._store.keep(KEPT_AS, self._forecaster.to_text())
        except Exception:
            log.exception("what forecasts were learned from could not be kept")

    async def _tell(self, now: float) -> None:
        """At most `TOLD_MOST` of those who listen, those in front and others in turn; the rest is told next."""
        before, self._told = self._told, {}
        heard: list[tuple[Lane, int, str]] = []
        for lane in LANES if self._bus.is_heard else ():
            running = self._store.running(lane)
            for place, job in enumerate(self._store.order(lane)):
                if self._bus.hears(job.id, job.owner):
                    heard.append((lane, running + place, job.id))
                    if job.id in before:
                        self._told[job.id] = before[job.id]
        self._begin_at, told = self._begin_at % max(1, len(heard)), 0
        for n, (lane, position, job_id) in enumerate([*heard[:TOLD_FIRST], *self._in_turn(heard)], 1):
            if told >= TOLD_MOST:
                self._begin_at += n - TOLD_FIRST - 1
                self._changed.set()
                return
            found = self._now(lane, position, job_id)
            was = before.get(job_id)
            if found is not None and (was is None or _differs(*was, found, now)):
                self._told[job_id] = found, now
                self._bus.publish_place(found)
                told += 1
            if n % SLICE == 0:
                await asyncio.sleep(0)
        self._begin_at = 0

    def _in_turn(self, heard: Sequence[tuple[Lane, int, str]]) -> Sequence[tuple[Lane, int, str]]:
        """Those behind the first, beginning where the last telling broke off."""
        rest = heard[TOLD_FIRST:]
        at = self._begin_at % max(1, len(rest))
        return [*rest[at:], *rest[:at]]

    def _now(self, lane: Lane, position: int, job_id: str) -> PlaceEvent | None:
        """None where it has begun meanwhile."""
        if not self._forecaster.is_waiting(job_id):
            return None
        line, is_paused = self._store.order(lane), self._store.is_paused(lane)
        found = self._forecaster.of(job_id, line, is_paused=is_paused)
        return PlaceEvent(job_id, position, found, self._blocked(lane))


def _differs(before: PlaceEvent, told_at: float, after: PlaceEvent, now: float) -> bool:
    """Whether a listener should hear of it: the position, what keeps it, or the end by more than a little."""
    if (before.position, before.waits_for) != (after.position, after.waits_for):
        return True
    if before.forecast is None or after.forecast is None:
        return before.forecast is not after.forecast
    if before.forecast.is_paused != after.forecast.is_paused:
        return True
    shift = abs(now + after.forecast.expected_s - told_at - before.forecast.expected_s)
    return shift > max(SHIFT_S, SHIFT_RATIO * after.forecast.expected_s) and not after.forecast.is_paused
