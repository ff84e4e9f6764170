"""The waiting jobs of an embedded store as they stand, in memory: ten thousand are ordered without reading a row.

Belongs to one process; every change is made once its transaction is on disk.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from engine.protocol import Lane
from gateway.queue import Turns, Waiting
from gateway.store.kept_order import KeptOrder, Taken


@dataclass(slots=True)
class _Lane:
    waiting: dict[str, Waiting] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)
    turns: Turns = Turns()
    is_paused: bool = False
    owners: Counter[str] = field(default_factory=Counter)
    order: KeptOrder | None = None
    """None where it must be found again."""


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
            if job.id not in lane.waiting:
                lane.owners[job.owner] += 1
            lane.waiting[job.id] = job
            if lane.order is not None:
                lane.order.put(job)

    def serve(self, taken: Taken) -> None:
        """It runs now."""
        with self._lock:
            lane = self._lanes[taken.job.lane]
            is_same = lane.order is taken.order and taken.order.is_known
            self._forget(lane, taken.job.id)
            lane.running.add(taken.job.id)
            lane.turns = taken.turns
            if is_same:
                taken.order.serve(taken)
                lane.order = taken.order

    def end(self, lane: Lane, job_id: str) -> None:
        with self._lock:
            self._forget(self._lanes[lane], job_id)
            self._lanes[lane].running.discard(job_id)

    @staticmethod
    def _forget(lane: _Lane, job_id: str) -> None:
        job = lane.waiting.pop(job_id, None)
        if job is not None:
            lane.owners[job.owner] -= 1
            if not lane.owners[job.owner]:
                del lane.owners[job.owner]
            lane.order = None

    def turns(self, lane: Lane) -> Turns:
        return self._lanes[lane].turns

    def set_turns(self, lane: Lane, turns: Turns) -> None:
        with self._lock:
            self._lanes[lane].turns = turns
            self._lanes[lane].order = None

    def is_paused(self, lane: Lane) -> bool:
        return self._lanes[lane].is_paused

    def set_paused(self, lane: Lane, paused: bool) -> None:
        self._lanes[lane].is_paused = paused

    def next(self, lane: Lane, now: float, models: Collection[str] | None) -> Taken | None:
        """Who is served next."""
        with self._lock:
            return self._order(lane, now).next(now, models)

    def order(self, lane: Lane, now: float) -> tuple[Waiting, ...]:
        """The waiting jobs of a lane, the next one first."""
        with self._lock:
            return self._order(lane, now).line

    def depth(self, lane: Lane) -> int:
        return len(self._lanes[lane].waiting)

    def running(self, lane: Lane) -> int:
        return len(self._lanes[lane].running)

    def position(self, lane: Lane, job_id: str, now: float) -> int | None:
        """How many jobs of its lane run or wait before it; None where it does neither."""
        with self._lock:
            found = self._lanes[lane]
            if job_id in found.running:
                return 0
            place = self._order(lane, now).place(job_id)
            return None if place is None else len(found.running) + place

    def count(self, owner: str | None = None) -> int:
        """Waiting jobs of all lanes."""
        with self._lock:
            lanes = self._lanes.values()
            return sum(len(lane.waiting) if owner is None else lane.owners[owner] for lane in lanes)

    def _order(self, lane: Lane, now: float) -> KeptOrder:
        found = self._lanes[lane]
        if found.order is None or not found.order.is_known or now >= found.order.until:
            found.order = KeptOrder(found.waiting.values(), found.turns, now)
        return found.order
