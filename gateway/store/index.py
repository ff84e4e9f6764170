"""The waiting jobs of an embedded store as they stand, in memory: ten thousand are ordered without reading a row.

Belongs to one process; every change is made once its transaction is on disk.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from itertools import takewhile

from gateway.jobs.lookahead import grouped
from gateway.jobs.order import RoundRobinState, Waiting
from gateway.jobs.plans import LANES, Lane
from gateway.store.base import WorkerInfo
from gateway.store.incremental_order import IncrementalOrder, Taken


@dataclass(slots=True)
class _Lane:
    waiting: dict[str, Waiting] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)
    turns: RoundRobinState = RoundRobinState()
    is_paused: bool = False
    owners: Counter[str] = field(default_factory=Counter)
    order: IncrementalOrder | None = None
    """None where it must be found again."""
    model: str | None = None
    """Of the job that was served last."""
    passed: Counter[str] = field(default_factory=Counter)
    """How often a waiting job saw a later one served for its model."""
    grouped: tuple[tuple[Waiting, ...], tuple[Waiting, ...]] | None = None
    """The strict line, and the one that follows from it; while the first is the same object, so is the second."""


class QueueIndex:
    """Written by the thread that writes the store, read by any."""

    def __init__(self, lookahead: int = 0) -> None:
        self._lookahead = lookahead
        self._lanes: dict[Lane, _Lane]
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        with self._lock:
            self._lanes = {lane: _Lane() for lane in LANES}

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
            is_same = lane.order is taken.order
            if self._lookahead:
                self._count_passed(lane, taken)
            self._forget(lane, taken.job.id)
            lane.running.add(taken.job.id)
            lane.turns = taken.turns
            if is_same:
                taken.order.serve(taken)
                lane.order = taken.order

    def end(self, lane: Lane, job_id: str, now: float) -> None:
        with self._lock:
            found = self._lanes[lane]
            job, order = found.waiting.get(job_id), found.order
            self._forget(found, job_id)
            found.running.discard(job_id)
            if job is not None and order is not None and order.holds(now):
                order.remove(job, now)
                found.order = order

    def drop(self, job_id: str, now: float) -> None:
        """It is gone, whichever lane it was in."""
        for lane in self._lanes:
            self.end(lane, job_id, now)

    @staticmethod
    def _forget(lane: _Lane, job_id: str) -> None:
        job = lane.waiting.pop(job_id, None)
        lane.passed.pop(job_id, None)
        if job is not None:
            lane.owners[job.owner] -= 1
            if not lane.owners[job.owner]:
                del lane.owners[job.owner]
            lane.order = None

    def turns(self, lane: Lane) -> RoundRobinState:
        return self._lanes[lane].turns

    def set_turns(self, lane: Lane, turns: RoundRobinState) -> None:
        with self._lock:
            self._lanes[lane].turns = turns
            self._lanes[lane].order = None

    def is_paused(self, lane: Lane) -> bool:
        return self._lanes[lane].is_paused

    def set_paused(self, lane: Lane, paused: bool) -> None:
        self._lanes[lane].is_paused = paused

    def next(self, worker: WorkerInfo, now: float) -> Taken | None:
        """Whom this worker serves next."""
        with self._lock:
            order = self._order(worker.lane, now)
            if not self._lookahead:
                return order.next(now, worker.may_run)
            job = next(filter(worker.may_run, self._served(worker.lane, now)), None)
            return None if job is None else order.take(job, now)

    def order(self, lane: Lane, now: float) -> tuple[Waiting, ...]:
        """The waiting jobs of a lane, the next one first."""
        with self._lock:
            return self._served(lane, now)

    def depth(self, lane: Lane) -> int:
        return len(self._lanes[lane].waiting)

    def has(self, job_id: str) -> bool:
        """Whether a job waits, in whichever lane."""
        return any(job_id in lane.waiting for lane in self._lanes.values())

    def running(self, lane: Lane) -> int:
        return len(self._lanes[lane].running)

    def position(self, lane: Lane, job_id: str, now: float) -> int | None:
        """How many jobs of its lane run or wait before it; None where it does neither."""
        with self._lock:
            found = self._lanes[lane]
            if job_id in found.running:
                return 0
            place = self._place(lane, now, job_id)
            return None if place is None else len(found.running) + place

    def count(self, owner: str | None = None) -> int:
        """Waiting jobs of all lanes."""
        with self._lock:
            lanes = self._lanes.values()
            return sum(len(lane.waiting) if owner is None else lane.owners[owner] for lane in lanes)

    def _order(self, lane: Lane, now: float) -> IncrementalOrder:
        found = self._lanes[lane]
        if found.order is None or not found.order.holds(now):
            found.order = IncrementalOrder(found.waiting.values(), found.turns, now)
        return found.order

    def _served(self, lane: Lane, now: float) -> tuple[Waiting, ...]:
        """The line as it will be served."""
        found, order = self._lanes[lane], self._order(lane, now)
        if not self._lookahead:
            return order.line
        if found.grouped is None or found.grouped[0] is not order.line:
            line = grouped(order.line, order.level, self._lookahead, found.model, found.passed)
            found.grouped = order.line, line
        return found.grouped[1]

    def _place(self, lane: Lane, now: float, job_id: str) -> int | None:
        if not self._lookahead:
            return self._order(lane, now).place(job_id)
        return next((place for place, job in enumerate(self._served(lane, now)) if job.id == job_id), None)

    @staticmethod
    def _count_passed(lane: _Lane, taken: Taken) -> None:
        """A job is served before others that stood before it; its model stays in memory."""
        lane.model, lane.grouped = taken.job.model, None
        for job in takewhile(lambda job: job.id != taken.job.id, taken.order.line):
            if job.model != taken.job.model:
                lane.passed[job.id] += 1
