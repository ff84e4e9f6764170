"""Who listens to which job, in this process. Nothing here is durable: state events are stored before they come here.

A subscriber's queue is bounded: state events wait in order, of progress and places only the newest. A reader so slow
that even state events pile up is closed; it comes back and resumes from the store.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from gateway.forecast import Forecast
from gateway.jobs.job import Job, JobEvent, Progress, ProgressFacts
from gateway.store.base import OnEvent

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger("gateway.service")

IN_A_ROW = 16
"""Events that a reader takes before others have their turn."""
STATE_EVENTS_QUEUED = 64
"""For a reader of one job."""
OWNER_EVENTS_QUEUED = 2048
"""For a reader of all jobs of an owner: as many may be cancelled at once."""


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """The newest progress of a job, and the fact that made it so."""

    job_id: str
    progress: Progress
    fact: ProgressFacts


@dataclass(frozen=True, slots=True)
class PlaceEvent:
    """Where a waiting job stands now: how many run or wait before it, and when it is expected to be done.

    `waits_for` is why nothing begins, where that is not its turn. While the engine is down nothing is foretold.
    """

    job_id: str
    position: int
    forecast: Forecast | None
    waits_for: str | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What an owner's jobs look like after the event `number`: where a reader begins who has seen nothing."""

    number: int
    jobs: tuple[Job, ...]
    """Those that wait or run, in order of submission; of a long queue those that run and the first ones."""
    newest: tuple[ProgressEvent | PlaceEvent, ...]
    """Of each of them the newest progress or place."""
    count: int
    """How many wait or run."""


Event = JobEvent | ProgressEvent | PlaceEvent
Topic = tuple[Literal["job", "owner"], str]


class Subscription:
    """One reader of one job, or of all jobs of an owner."""

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
        """Progress first where both wait: it happened before the state event that ends it."""
        given = 0
        while True:
            while self._progress or self._states:
                given += 1
                if given % IN_A_ROW == 0:  # a reader whose socket takes all of it would hold the loop
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
    """Publishes every state event once, in the order of storing: to the listeners, which are parts of the gateway,
    then to the subscribers of the job and to those of its owner.
    """

    def __init__(self) -> None:
        self._listeners: list[OnEvent] = []
        self._subscriptions: dict[Topic, set[Subscription]] = {}
        self._owners: dict[str, str] = {}
        """Of the jobs that wait or run."""
        self._newest: dict[str, Progress] = {}
        self._newest_event: dict[str, ProgressEvent] = {}
        self._closed = False

    def listen(self, on_event: OnEvent) -> None:
        """Call `on_event` with every state event from now on; listeners are called in the order of these calls."""
        self._listeners.append(on_event)

    @contextmanager
    def subscribe(self, job_id: str) -> Iterator[Subscription]:
        """Listen to a job. Events published from here on are seen."""
        with self._subscribe(("job", job_id), STATE_EVENTS_QUEUED) as subscription:
            yield subscription

    @contextmanager
    def subscribe_owner(self, owner: str) -> Iterator[Subscription]:
        """Listen to all jobs of an owner. Events published from here on are seen."""
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

    def watchers(self, job_id: str) -> int:
        """How many listen to this very job."""
        return len(self._subscriptions.get(("job", job_id), ()))

    @property
    def is_heard(self) -> bool:
        """Whether anybody listens at all."""
        return bool(self._subscriptions)

    def hears(self, job_id: str, owner: str) -> bool:
        """Whether anybody would see an event of this job."""
        return ("job", job_id) in self._subscriptions or ("owner", owner) in self._subscriptions

    def begin(self, job_id: str, pictures: int, first_image: int) -> None:
        """The job runs: there is progress to speak of."""
        self._newest[job_id] = Progress(job_id=job_id, pictures=pictures, image=first_image)

    def progress(self, job_id: str) -> Progress | None:
        """The newest progress of a running job."""
        return self._newest.get(job_id)

    def newest(self, job_id: str) -> ProgressEvent | None:
        """What a listener who comes late should know first."""
        return self._newest_event.get(job_id)

    def publish(self, job: Job, event: JobEvent) -> None:
        """A state event that is on disk, and the job as the event left it."""
        for on_event in self._listeners:
            try:
                on_event(job, event)
            except Exception:  # the other listeners are called all the same
                log.exception("an event could not be told", extra={"job": job.id, "seq": event.seq})
        self._owners[job.id] = job.owner
        self._send(job.id, event)
        if job.state is not None and job.state.terminal:
            self._owners.pop(job.id, None)

    def publish_place(self, event: PlaceEvent) -> None:
        self._send(event.job_id, event)

    def publish_waiting(self, job_id: str, fact: ProgressFacts, expected_s: float | None = None) -> None:
        """A fact that a waiting job is told of, such as how far the download of its model is."""
        progress = Progress(job_id=job_id, pictures=1, expected_s=expected_s).apply(fact)
        self._send(job_id, ProgressEvent(job_id, progress, fact))

    def publish_progress(self, job_id: str, fact: ProgressFacts, expected_s: float | None = None) -> None:
        """A fact that is only broadcast; the job is expected to be done after `expected_s`."""
        before = self._newest.get(job_id)
        if before is None:
            return
        self._newest[job_id] = after = replace(before.apply(fact), expected_s=expected_s)
        event = ProgressEvent(job_id, after, fact)
        if fact.kind != "preview":
            self._newest_event[job_id] = event
        self._send(job_id, event)

    def end(self, job_id: str) -> None:
        """The job no longer runs; its progress is forgotten."""
        self._newest.pop(job_id, None)
        self._newest_event.pop(job_id, None)

    def drop(self, job_id: str) -> None:
        """End every subscription of a job: nothing more can be told of it."""
        self.end(job_id)
        self._owners.pop(job_id, None)
        for subscription in self._subscriptions.get(("job", job_id), ()):
            subscription.close()

    def close(self) -> None:
        """End every subscription: the gateway stops."""
        self._closed = True
        for listeners in self._subscriptions.values():
            for subscription in listeners:
                subscription.close()

    def _send(self, job_id: str, event: Event) -> None:
        topics: list[Topic] = [("job", job_id)]
        if (owner := self._owners.get(job_id)) is not None:
            topics.append(("owner", owner))
        for topic in topics:
            for subscription in self._subscriptions.get(topic, ()):
                subscription.put(event)
