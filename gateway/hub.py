"""Who listens to which job, in this process. Nothing here is durable: state events are stored before they come here.

A subscriber's queue is bounded: state events wait in order, of progress only the newest. A reader so slow that
even state events pile up is closed; it comes back and resumes from the store.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.job import JobEvent, Progress, ProgressFacts

if TYPE_CHECKING:
    from collections.abc import Iterator

STATE_EVENTS_QUEUED = 64


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """The newest progress of a job, and the fact that made it so."""

    job_id: str
    progress: Progress
    fact: ProgressFacts


Event = JobEvent | ProgressEvent


class Subscription:
    """One reader of one job, or of all."""

    def __init__(self) -> None:
        self._states: deque[JobEvent] = deque()
        self._progress: dict[tuple[str, bool], ProgressEvent] = {}
        self._wake = asyncio.Event()
        self._closed = False

    def put(self, event: Event) -> None:
        if isinstance(event, ProgressEvent):
            self._progress[event.job_id, event.fact.kind == "preview"] = event
        elif len(self._states) >= STATE_EVENTS_QUEUED:
            self._closed = True
        else:
            self._states.append(event)
        self._wake.set()

    def close(self) -> None:
        self._closed = True
        self._wake.set()

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Progress first where both wait: it happened before the state event that ends it."""
        while True:
            while self._progress or self._states:
                if self._progress:
                    yield self._progress.pop(next(iter(self._progress)))
                else:
                    yield self._states.popleft()
            if self._closed:
                return
            self._wake.clear()
            await self._wake.wait()


class Hub:
    """In-process EventBus: publishes to the subscribers of a job and to those of all jobs."""

    def __init__(self) -> None:
        self._subscriptions: dict[str | None, set[Subscription]] = {}
        self._newest: dict[str, Progress] = {}
        self._newest_event: dict[str, ProgressEvent] = {}
        self._closed = False

    @contextmanager
    def subscribe(self, job_id: str | None) -> Iterator[Subscription]:
        """Listen to a job, or with None to all. Events published from here on are seen."""
        subscription = Subscription()
        if self._closed:
            subscription.close()
        self._subscriptions.setdefault(job_id, set()).add(subscription)
        try:
            yield subscription
        finally:
            listeners = self._subscriptions[job_id]
            listeners.discard(subscription)
            if not listeners:
                del self._subscriptions[job_id]

    def watchers(self, job_id: str) -> int:
        """How many listen to this very job."""
        return len(self._subscriptions.get(job_id, ()))

    def begin(self, job_id: str, pictures: int, first_image: int) -> None:
        """The job runs: there is progress to speak of."""
        self._newest[job_id] = Progress(job_id=job_id, pictures=pictures, image=first_image)

    def progress(self, job_id: str) -> Progress | None:
        """The newest progress of a running job."""
        return self._newest.get(job_id)

    def newest(self, job_id: str) -> ProgressEvent | None:
        """What a listener who comes late should know first."""
        return self._newest_event.get(job_id)

    def publish(self, event: JobEvent) -> None:
        """Tell of a state event that is on disk."""
        self._send(event.job_id, event)

    def publish_progress(self, job_id: str, fact: ProgressFacts) -> None:
        before = self._newest.get(job_id)
        if before is None:
            return
        self._newest[job_id] = after = before.apply(fact)
        event = ProgressEvent(job_id, after, fact)
        if fact.kind != "preview":
            self._newest_event[job_id] = event
        self._send(job_id, event)

    def end(self, job_id: str) -> None:
        """The job no longer runs; its progress is forgotten."""
        self._newest.pop(job_id, None)
        self._newest_event.pop(job_id, None)

    def close(self) -> None:
        """End every subscription: the gateway stops."""
        self._closed = True
        for listeners in self._subscriptions.values():
            for subscription in listeners:
                subscription.close()

    def _send(self, job_id: str, event: Event) -> None:
        for key in (job_id, None):
            for subscription in self._subscriptions.get(key, ()):
                subscription.put(event)
