"""The event bus: subscriptions to jobs, within this process. Not durable: state events are stored before publication.

A subscriber's queue is bounded: it holds state events in order, and only the newest progress and position of a job. A
reader that is too slow even for state events is closed; it reconnects and resumes from the store.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from gateway.forecast import Forecast
from gateway.jobs.job import Job, JobEvent, Progress, ProgressFacts
from gateway.store.base import OnEvent

log = logging.getLogger("gateway.service")

IN_A_ROW = 16
"""Events that one reader takes before the event loop runs other tasks."""
STATE_EVENTS_QUEUED = 64
"""The most state events in the queue of a reader of one job."""
OWNER_EVENTS_QUEUED = 2048
"""The same for a reader of all jobs of an owner: that many may be cancelled at once."""


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """The newest progress of a job, and the fact that changed it."""

    job_id: str
    progress: Progress
    fact: ProgressFacts


@dataclass(frozen=True, slots=True)
class PlaceEvent:
    """The position of a waiting job: how many jobs run or wait before it, and its forecast.

    `waits_for` is why the job does not begin, other than its turn. There is no forecast while the engine is down.
    """

    job_id: str
    position: int
    forecast: Forecast | None
    waits_for: str | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of an owner's jobs after the event `number`: the begin of a new stream."""

    number: int
    jobs: tuple[Job, ...]
    """Waiting and running jobs in order of submission; of a long queue the running and the first ones."""
    newest: tuple[ProgressEvent | PlaceEvent, ...]
    """The newest progress or position of each of these jobs."""
    count: int
    """The number of waiting and running jobs."""


Event = JobEvent | ProgressEvent | PlaceEvent
OnProgress = Callable[[str, ProgressFacts, float | None], None]
"""Callback: takes a job's id, a progress fact and the forecast of the job's end, in seconds."""
Topic = tuple[Literal["job", "owner"], str]


class Subscription:
    """The subscription of one reader to one job, or to all jobs of an owner."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._states: deque[JobEvent] = deque()
        self._progress: dict[tuple[str, str], ProgressEvent | PlaceEvent] = {}
        self._wake = asyncio.Event()
        self._closed = False

    def put(self, event: Event) -> None:
        if isinstance(event, PlaceEvent):
            self._progress[event.job_id, "place"] = event
        elif isinstance(event, ProgressEvent):
            self._progress[event.job_id, "preview" if event.fact.kind == "preview" else "progress"] = event
        elif len(self._states) >= self._bound:
            self._closed = True
        else:
            self._states.append(event)
        self._wake.set()

    def close(self) -> None:
        self._closed = True
        self._wake.set()

    async def __aiter__(self) -> AsyncIterator[Event]:
        """The events; progress first, because it happened before the state event that ends it."""
        count = 0
        while True:
            while self._progress or self._states:
                count += 1
                if count % IN_A_ROW == 0:  # a fast reader would block the event loop
                    await asyncio.sleep(0)
                if not (self._progress or self._states):
                    break
                if self._progress:
                    yield self._progress.pop(next(iter(self._progress)))
                else:
                    yield self._states.popleft()
            if self._closed:
                return
            self._wake.clear()
            await self._wake.wait()


class EventBus:
    """The event bus. Publishes every state event once, in the order of storing.

    First to the listeners, which are parts of the gateway, then to the subscribers of the job and of its owner.
    """

    def __init__(self) -> None:
        self._listeners: list[OnEvent] = []
        self._subscriptions: dict[Topic, set[Subscription]] = {}
        self._owners: dict[str, str] = {}
        """The owners of waiting and running jobs, by job id."""
        self._newest: dict[str, Progress] = {}
        self._newest_event: dict[str, ProgressEvent] = {}
        self._unforecast: dict[str, Callable[[], float | None]] = {}
        """Forecasts of newest progress that nobody has heard or asked for, by job id."""
        self._ends: dict[str, set[asyncio.Future[Job | None]]] = {}
        """Futures of callers that wait for the end of a job, by job id."""
        self._on_progress: list[OnProgress] = []
        self._closed = False

    def listen(self, on_event: OnEvent) -> None:
        """Call `on_event` with every state event from now on; listeners are called in the order of these calls."""
        self._listeners.append(on_event)

    def listen_progress(self, on_progress: OnProgress) -> None:
        """Call `on_progress` with every progress fact of a job that runs in this process."""
        self._on_progress.append(on_progress)

    @contextmanager
    def subscribe(self, job_id: str) -> Iterator[Subscription]:
        """Subscribe to a job: to all events published from now on."""
        with self._subscribe(("job", job_id), STATE_EVENTS_QUEUED) as subscription:
            yield subscription

    @contextmanager
    def subscribe_owner(self, owner: str) -> Iterator[Subscription]:
        """Subscribe to all jobs of an owner: to all events published from now on."""
        with self._subscribe(("owner", owner), OWNER_EVENTS_QUEUED) as subscription:
            yield subscription

    @contextmanager
    def _subscribe(self, topic: Topic, bound: int) -> Iterator[Subscription]:
        subscription = Subscription(bound)
        if self._closed:
            subscription.close()
        self._subscriptions.setdefault(topic, set()).add(subscription)
        try:
            yield subscription
        finally:
            listeners = self._subscriptions[topic]
            listeners.discard(subscription)
            if not listeners:
                del self._subscriptions[topic]

    @contextmanager
    def end_of(self, job_id: str) -> Iterator[asyncio.Future[Job | None]]:
        """The future end of a job: the ended job; None where the bus is closed, or the job has no more events."""
        end: asyncio.Future[Job | None] = asyncio.get_running_loop().create_future()
        if self._closed:
            end.set_result(None)
        self._ends.setdefault(job_id, set()).add(end)
        try:
            yield end
        finally:
            waiting = self._ends[job_id]
            waiting.discard(end)
            if not waiting:
                del self._ends[job_id]

    def _resolve(self, job_id: str, job: Job | None) -> None:
        for end in self._ends.get(job_id, ()):
            if not end.done():
                end.set_result(job)

    def watchers(self, job_id: str) -> int:
        """The number of subscribers of this job alone, and of callers that wait for its end."""
        return len(self._subscriptions.get(("job", job_id), ())) + len(self._ends.get(job_id, ()))

    @property
    def is_heard(self) -> bool:
        """Whether there is any subscriber."""
        return bool(self._subscriptions)

    def hears(self, job_id: str, owner: str) -> bool:
        """Whether an event of this job has a subscriber."""
        return ("job", job_id) in self._subscriptions or ("owner", owner) in self._subscriptions

    def is_live(self, job_id: str) -> bool:
        """Whether the job waits or runs, by the events published so far."""
        return job_id in self._owners

    def begin(self, job_id: str, images: int, first_image: int) -> None:
        """Begin the progress of a job, which runs now."""
        self._newest[job_id] = Progress(job_id=job_id, images=images, image=first_image)

    def progress(self, job_id: str) -> Progress | None:
        """The newest progress of a running job; None where it does not run."""
        self._forecast(job_id)
        return self._newest.get(job_id)

    def newest(self, job_id: str) -> ProgressEvent | None:
        """The newest progress event of a job, which a new subscriber gets first."""
        self._forecast(job_id)
        return self._newest_event.get(job_id)

    def _forecast(self, job_id: str) -> None:
        """Compute the forecast of the newest progress, which somebody wants now."""
        if (forecast := self._unforecast.pop(job_id, None)) is not None:
            expected_s = forecast()
            self._newest[job_id] = replace(self._newest[job_id], expected_s=expected_s)
            if (event := self._newest_event.get(job_id)) is not None:
                progress = replace(event.progress, expected_s=expected_s)
                self._newest_event[job_id] = replace(event, progress=progress)

    def publish(self, job: Job, event: JobEvent) -> None:
        """Publish a state event that is on disk, with the job after the event."""
        for on_event in self._listeners:
            try:
                on_event(job, event)
            except Exception:  # the other listeners are called all the same
                log.exception("a listener failed on an event", extra={"job": job.id, "seq": event.seq})
        self._owners[job.id] = job.owner
        self._send(job.id, event)
        if job.state is not None and job.state.terminal:
            self._owners.pop(job.id, None)
            self._resolve(job.id, job)

    def publish_place(self, event: PlaceEvent) -> None:
        self._send(event.job_id, event)

    def publish_waiting(self, job_id: str, fact: ProgressFacts, expected_s: float | None = None) -> None:
        """Publish a progress fact of a waiting job, such as the download of its model."""
        progress = Progress(job_id=job_id, images=1, expected_s=expected_s).apply(fact)
        self._send(job_id, ProgressEvent(job_id, progress, fact))

    def publish_progress(
        self, job_id: str, fact: ProgressFacts, expected_s: float | Callable[[], float | None] | None = None
    ) -> None:
        """Publish a progress fact, which is not stored; `expected_s` is the forecast of the job's end, in seconds.

        A function of it is called once somebody hears the fact, or asks for the newest.
        """
        for on_progress in self._on_progress:
            on_progress(job_id, fact, expected_s() if callable(expected_s) else expected_s)
        self.relay_progress(job_id, fact, expected_s)

    def relay_progress(
        self, job_id: str, fact: ProgressFacts, expected_s: float | Callable[[], float | None] | None = None
    ) -> None:
        """Publish a progress fact of a job that runs in another process."""
        before = self._newest.get(job_id)
        if before is None:
            return
        self._unforecast.pop(job_id, None)
        if callable(expected_s) and not self.hears(job_id, self._owners.get(job_id, "")):
            self._unforecast[job_id], expected_s = expected_s, None
        elif callable(expected_s):
            expected_s = expected_s()
        self._newest[job_id] = after = replace(before.apply(fact), expected_s=expected_s)
        event = ProgressEvent(job_id, after, fact)
        if fact.kind != "preview":
            self._newest_event[job_id] = event
        self._send(job_id, event)

    def end(self, job_id: str) -> None:
        """Forget the progress of a job, which no longer runs."""
        for by_id in (self._newest, self._newest_event, self._unforecast):
            by_id.pop(job_id, None)

    def drop(self, job_id: str) -> None:
        """End every subscription to a job, which will have no more events."""
        self.end(job_id)
        self._owners.pop(job_id, None)
        for subscription in self._subscriptions.get(("job", job_id), ()):
            subscription.close()
        self._resolve(job_id, None)

    def close(self) -> None:
        """End every subscription, because the gateway stops."""
        self._closed = True
        for listeners in self._subscriptions.values():
            for subscription in listeners:
                subscription.close()
        for job_id in self._ends:
            self._resolve(job_id, None)

    def _send(self, job_id: str, event: Event) -> None:
        topics: list[Topic] = [("job", job_id)]
        if (owner := self._owners.get(job_id)) is not None:
            topics.append(("owner", owner))
        for topic in topics:
            for subscription in self._subscriptions.get(topic, ()):
                subscription.put(event)
