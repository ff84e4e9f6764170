"""The waiting jobs of an embedded store as they stand, in memory: ten thousand are ordered without reading a row.

Belongs to one process; every change is made once its transaction is on disk.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass, field

from engine.protocol import Lane
from gateway.queue import Turns, Waiting, next_rise, order, take


@dataclass(slots=True)
class _Lane:
    waiting: dict[str, Waiting] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)
    turns: Turns = Turns()
    is_paused: bool = False
    ordered: tuple[Waiting, ...] = ()
    places: dict[str, int] = field(default_factory=dict)
    ordered_until: float = 0.0
    """The order holds until then; 0 where it must be found again."""


class Line:
    """Written by the thread that writes the store, read by any."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, _Lane] = {"engine": _Lane(), "cpu": _Lane(), "network": _Lane()}
        self._lock = threading.Lock()

    def put(self, job: Waiting) -> None:
        """It waits, or waits elsewhere than before."""
        with self._lock:
            lane = self._lanes[job.lane]
            lane.running.discard(job.id)
            lane.waiting[job.id] = job
            lane.ordered_until = 0.0

    def run(self, lane: Lane, job_id: str) -> None:
        with self._lock:
            self._forget(lane, job_id)
            self._lanes[lane].running.add(job_id)

    def end(self, lane: Lane, job_id: str) -> None:
        with self._lock:
            self._forget(lane, job_id)
            self._lanes[lane].running.discard(job_id)

    def _forget(self, lane: Lane, job_id: str) -> None:
        if self._lanes[lane].waiting.pop(job_id, None) is not None:
            self._lanes[lane].ordered_until = 0.0

    def turns(self, lane: Lane) -> Turns:
        return self._lanes[lane].turns

    def set_turns(self, lane: Lane, turns: Turns) -> None:
        with self._lock:
            self._lanes[lane].turns = turns
            self._lanes[lane].ordered_until = 0.0

    def is_paused(self, lane: Lane) -> bool:
        return self._lanes[lane].is_paused

    def set_paused(self, lane: Lane, paused: bool) -> None:
        self._lanes[lane].is_paused = paused

    def next(self, lane: Lane, now: float, models: Collection[str] | None) -> tuple[Waiting, Turns] | None:
        """Who is served next, and whose turn it was then."""
        with self._lock:
            found = self._lanes[lane]
            return take(list(found.waiting.values()), found.turns, now, models)

    def order(self, lane: Lane, now: float) -> tuple[Waiting, ...]:
        """The waiting jobs of a lane, the next one first."""
        with self._lock:
            return self._ordered(lane, now).ordered

    def depth(self, lane: Lane) -> int:
        return len(self._lanes[lane].waiting)

    def running(self, lane: Lane) -> int:
        return len(self._lanes[lane].running)

    def position(self, lane: Lane, job_id: str, now: float) -> int | None:
        """How many jobs of its lane run or wait before it; None where it does neither."""
        with self._lock:
            found = self._ordered(lane, now)
            if job_id in found.running:
                return 0
            place = found.places.get(job_id)
            return None if place is None else len(found.running) + place

    def count(self, owner: str | None = None) -> int:
        """Waiting jobs of all lanes."""
        with self._lock:
            lines = [lane.waiting for lane in self._lanes.values()]
            if owner is None:
                return sum(map(len, lines))
            return sum(job.owner == owner for line in lines for job in line.values())

    def _ordered(self, lane: Lane, now: float) -> _Lane:
        found = self._lanes[lane]
        if now >= found.ordered_until:
            waiting = list(found.waiting.values())
            found.ordered = tuple(order(waiting, found.turns, now))
            found.places = {job.id: place for place, job in enumerate(found.ordered)}
            found.ordered_until = next_rise(waiting, found.turns, now)
        return found
