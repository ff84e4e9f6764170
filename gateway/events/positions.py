"""Positions of waiting jobs in the queue and their forecasts: computed on request, and published to subscribers.

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
COMPARED_MOST = 200
"""Longest queue in which forecasts are compared with actual times: the comparison costs every submit a full scan."""
PUBLISHED_MOST = 1000
"""The most positions published at once; the rest follows after `every_s`."""
PUBLISHED_FIRST = 200
"""The number of first positions, which are published each time."""
READ_AT_ONCE = 200
"""Waiting jobs that are read in one transaction after a start; the first ones before any is run."""
SLICE = 50
"""Positions computed before the event loop runs other tasks."""
PASSED_AT_ONCE = 1000
"""Waiting jobs looked at for a subscriber before the event loop runs other tasks."""
RETRY_AFTER_MOST_S = 3600
SHIFT_S = 1.0
SHIFT_RATIO = 0.1
"""A forecast is published again once its end has shifted by more than both, in seconds and as a ratio."""


class QueuePositions:
    """The queue positions. Listens to the bus; `run` publishes the changes.

    `blocked` is why a lane begins no job now, None where it works; `downloading` is the progress of the download that a
    waiting job needs first; `kept_as` names what was learned in the store.

    A position is the number of jobs that run or wait before a job, on however many nodes they run.
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
        kept_as: str = KEPT_AS,
    ) -> None:
        self._store = store
        self._kept_as = kept_as
        self._bus = bus
        self._forecaster = forecaster
        self._every_s = every_s
        self._changed = asyncio.Event()
        self._begin_at = 0
        self._unread: Sequence[str] = ()
        """Waiting jobs of an earlier process whose work is not known yet."""
        self._published: dict[str, tuple[PlaceEvent, float]] = {}
        """The last published position of each job, with the loop's time of its publication."""
        self._blocked = blocked
        self._downloading = downloading
        bus.listen(self.on_event)

    async def start(self) -> None:
        """Load what the forecaster has learned, and the first waiting jobs; `run` loads the others."""
        text = await self._store.read_state(self._kept_as)
        if text is not None:
            try:
                self._forecaster.read_text(text)
            except (ValueError, KeyError, TypeError, AttributeError):
                log.exception("what forecasts were learned from cannot be read; they begin anew")
        waiting = [job.id for lane in LANES for job in self._store.order(lane)]
        await self._read(waiting[:READ_AT_ONCE])
        self._unread = waiting[READ_AT_ONCE:]

    async def _read(self, job_ids: Sequence[str]) -> None:
        """Note waiting jobs that an earlier process stored."""
        for n, waiting in enumerate(await self._store.plans(job_ids), 1):
            self._forecaster.waited(waiting.job_id, waiting.plan, waiting.done)
            if n % SLICE == 0:
                await asyncio.sleep(0)

    def on_event(self, job: Job, event: JobEvent) -> None:
        """Handle a state event: positions may have changed."""
        forecaster = self._forecaster
        match event.fact.kind:
            case "queued":
                forecaster.waits(job)
                lane = lane_of(job.plan)
                if self._is_compared(job, lane):
                    forecaster.on_submitted(job.id, self._store.order(lane))
            case "requeued":
                forecaster.waits(job)
            case "started":
                forecaster.begins(job)
            case "succeeded" | "failed" | "cancelled":
                forecaster.ends(job)
            case _:
                forecaster.learn(job.id, event.fact)
        self._changed.set()

    def _is_compared(self, job: Job, lane: Lane) -> bool:
        """Whether a forecast made now is compared with the actual time; not where it depends on a download."""
        is_paused, model = self._store.is_paused(lane), job.plan.model
        is_predictable = lane != "network" and not {model, job.id} & self._forecaster.due_in().keys()
        return is_predictable and not is_paused and self._store.depth(lane) <= COMPARED_MOST

    def forget(self, job_id: str) -> None:
        """Forget a job, which will have no more events."""
        self._forecaster.forget(job_id)
        self._changed.set()

    def invalidate(self) -> None:
        """Publish again: forecasts have changed without an event, by the progress of a download."""
        self._changed.set()

    def invalidate_order(self) -> None:
        """Publish again: positions have changed without an event, by a reorder, a pause or its end."""
        self._forecaster.pauses()
        self._changed.set()

    # ---- queries ---------------------------------------------------------------------------------

    def forecast(self, job: Job) -> Forecast | None:
        """When a job is expected to begin and to be done; None once it has ended."""
        lane = lane_of(job.plan)
        return self._forecaster.of(job.id, self._store.order(lane), is_paused=self._store.is_paused(lane))

    async def newest(self, jobs: Sequence[Job]) -> AsyncIterator[ProgressEvent | PlaceEvent]:
        """The newest progress or position of each job, which a new subscriber gets first."""
        for n, job in enumerate(jobs, 1):
            if job.state is State.RUNNING and (newest := self._bus.newest(job.id)) is not None:
                yield newest
            elif job.state is State.QUEUED:
                if (download := self._downloading(job)) is not None:
                    yield download
                place = await self._store.position(job.id)
                if place is not None and (event := self._now(lane_of(job.plan), place, job.id)) is not None:
                    yield event
            if n % SLICE == 0:
                await asyncio.sleep(0)

    def retry_after_s(self, lane: Lane, owner: str | None) -> int:
        """Seconds until one more job may wait: of this owner, or of any where that is None."""
        queue = self._store.order(lane)
        first = next((job.id for job in queue if job.owner == owner), None)
        return max(1, min(RETRY_AFTER_MOST_S, ceil(self._forecaster.room_s(lane, first, queue))))

    # ---- publication -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Publish changed positions of waiting jobs, and store what the forecaster has learned."""
        loop, stored, stored_at = asyncio.get_running_loop(), self._forecaster.version, 0.0
        try:
            for at in range(0, len(self._unread), READ_AT_ONCE):  # in the background: a long queue delays no start
                await self._read(self._unread[at : at + READ_AT_ONCE])
        except Exception:  # these jobs have no forecast; the others do
            log.exception("waiting jobs could not be read")
        self._unread = ()
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._publish(loop.time())
            except Exception:  # what was learned is stored all the same
                log.exception("positions could not be published")
            if self._forecaster.version != stored and loop.time() - stored_at > KEEP_EVERY_S:
                stored, stored_at = self._forecaster.version, loop.time()
                await self.keep()
            await asyncio.sleep(self._every_s)

    async def keep(self) -> None:
        """Store what the forecaster has learned; a failure is only logged."""
        try:
            await self._store.save_state(self._kept_as, self._forecaster.to_text())
        except Exception:
            log.exception("what forecasts were learned from could not be kept")

    async def _publish(self, now: float) -> None:
        """Publish at most `PUBLISHED_MOST` positions with subscribers: the first ones, then others in turn."""
        before, self._published = self._published, {}
        subscribed: list[tuple[Lane, int, str]] = []
        for lane in LANES if self._bus.is_heard else ():
            running = self._store.running(lane)
            for place, job in enumerate(self._store.order(lane)):
                if place % PASSED_AT_ONCE == PASSED_AT_ONCE - 1:
                    await asyncio.sleep(0)
                if self._bus.hears(job.id, job.owner):
                    subscribed.append((lane, running + place, job.id))
                    if job.id in before:
                        self._published[job.id] = before[job.id]
        self._begin_at, count = self._begin_at % max(1, len(subscribed)), 0
        for n, (lane, position, job_id) in enumerate([*subscribed[:PUBLISHED_FIRST], *self._in_turn(subscribed)], 1):
            if count >= PUBLISHED_MOST:
                self._begin_at += n - PUBLISHED_FIRST - 1
                self._changed.set()
                return
            event = self._now(lane, position, job_id)
            published = before.get(job_id)
            if event is not None and (published is None or _differs(*published, event, now)):
                self._published[job_id] = event, now
                self._bus.publish_place(event)
                count += 1
            if n % SLICE == 0:
                await asyncio.sleep(0)
        self._begin_at = 0

    def _in_turn(self, subscribed: Sequence[tuple[Lane, int, str]]) -> Sequence[tuple[Lane, int, str]]:
        """The jobs behind the first ones, beginning where the last publication stopped."""
        rest = subscribed[PUBLISHED_FIRST:]
        at = self._begin_at % max(1, len(rest))
        return [*rest[at:], *rest[:at]]

    def _now(self, lane: Lane, position: int, job_id: str) -> PlaceEvent | None:
        """The position of a job now; None where it has begun meanwhile."""
        if not self._forecaster.is_waiting(job_id):
            return None
        queue, is_paused = self._store.order(lane), self._store.is_paused(lane)
        forecast = self._forecaster.of(job_id, queue, is_paused=is_paused)
        return PlaceEvent(job_id, position, forecast, self._blocked(lane))


def _differs(before: PlaceEvent, published_at: float, after: PlaceEvent, now: float) -> bool:
    """Whether a subscriber should get the change: of the position, the reason or, by more than a little, the end."""
    if (before.position, before.waits_for) != (after.position, after.waits_for):
        return True
    if before.forecast is None or after.forecast is None:
        return before.forecast is not after.forecast
    if before.forecast.is_paused != after.forecast.is_paused:
        return True
    shift = abs(now + after.forecast.expected_s - published_at - before.forecast.expected_s)
    return shift > max(SHIFT_S, SHIFT_RATIO * after.forecast.expected_s) and not after.forecast.is_paused
