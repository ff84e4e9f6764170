"""Queue index: the waiting jobs of an embedded store in memory, so that ten thousand are ordered without reading rows.

Belongs to one process; every change is made after its transaction is on disk.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import takewhile

from gateway.jobs.lookahead import grouped
from gateway.jobs.order import RoundRobinState, Waiting
from gateway.jobs.plans import LANES, Lane
from gateway.store.base import WorkerInfo
from gateway.store.candidates import Candidates, NextJob
from gateway.store.incremental_order import IncrementalOrder

MOVED_MOST = 300
"""Jobs that move at once; if there are more, the candidates are collected again."""


@dataclass(slots=True)
class _Lane:
    waiting: dict[str, Waiting] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)
    turns: RoundRobinState = RoundRobinState()
    is_paused: bool = False
    owners: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    order: IncrementalOrder | None = None
    """The order, for those who ask for it; None: it must be computed again."""
    candidates: Candidates | None = None
    """The next job, for claims; None: they must be collected again."""
    model: str | None = None
    """The model of the job that was served last."""
    passed: Counter[str] = field(default_factory=Counter)
    """How often a later job was served before this waiting job because of its model."""
    grouped: tuple[tuple[Waiting, ...], tuple[Waiting, ...]] | None = None
    """The strict order, and the order that follows from it; valid while the first is the same object."""


class QueueIndex:
    """Queue index. Written by the thread that writes the store, read by any thread."""

    def __init__(self, lookahead: int = 0) -> None:
        self._lookahead = lookahead
        self._lanes: dict[Lane, _Lane]
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        with self._lock:
            self._lanes = {lane: _Lane() for lane in LANES}

    def prepare(self, now: float) -> None:
        """Collect the candidates of all lanes, so that the first claim need not."""
        with self._lock:
            for lane in self._lanes:
                self._candidates(lane, now)

    def put(self, *jobs: Waiting) -> None:
        """Add waiting jobs, or move them."""
        with self._lock:
            for job in jobs:
                lane = self._lanes[job.lane]
                lane.running.discard(job.id)
                if (former := lane.waiting.get(job.id)) is None:
                    lane.owners[job.owner] += 1
                    lane.models[job.model] += 1
                lane.waiting[job.id] = job
                if lane.order is not None:
                    lane.order.put(job)
                if len(jobs) > MOVED_MOST:
                    lane.candidates = None
                elif lane.candidates is not None:
                    if former is not None:
                        lane.candidates.remove(former)
                    lane.candidates.put(job)

    def serve(self, next_job: NextJob) -> None:
        """Count a job as running."""
        with self._lock:
            lane = self._lanes[next_job.job.lane]
            if (passed := self._passed_after(next_job)) is not None:
                lane.model, lane.passed, lane.grouped = next_job.job.model, passed, None
            order = lane.order
            self._forget(lane, next_job.job.id)
            lane.running.add(next_job.job.id)
            lane.turns = next_job.turns
            if lane.candidates is not None:
                lane.candidates.serve(next_job)
            if order is not None and order.holds(next_job.at):
                order.serve(next_job)
                lane.order = order

    def passed_after(self, next_job: NextJob) -> Counter[str] | None:
        """How often each waiting job is passed once this one is served; None without lookahead."""
        with self._lock:
            return self._passed_after(next_job)

    def set_passed(self, lane: Lane, model: str | None, passed: Mapping[str, int]) -> None:
        """Set the model that was served last, and how often each job was passed because of its model."""
        with self._lock:
            state = self._lanes[lane]
            state.model, state.passed, state.grouped = model, Counter(passed), None

    def begin(self, lane: Lane, job_id: str, now: float) -> None:
        """Count a job as running that another process serves."""
        self.end(lane, job_id, now)
        with self._lock:
            self._lanes[lane].running.add(job_id)

    def end(self, lane: Lane, job_id: str, now: float) -> None:
        with self._lock:
            state = self._lanes[lane]
            job, order = state.waiting.get(job_id), state.order
            self._forget(state, job_id)
            state.running.discard(job_id)
            if job is not None and state.candidates is not None:
                state.candidates.remove(job)
            if job is not None and order is not None and order.holds(now):
                order.remove(job, now)
                state.order = order

    def drop(self, job_id: str, now: float) -> None:
        """Remove a job from whichever lane it is in."""
        for lane in self._lanes:
            self.end(lane, job_id, now)

    @staticmethod
    def _forget(lane: _Lane, job_id: str) -> None:
        job = lane.waiting.pop(job_id, None)
        lane.passed.pop(job_id, None)
        if job is not None:
            for counts, name in ((lane.owners, job.owner), (lane.models, job.model)):
                counts[name] -= 1
                if not counts[name]:
                    del counts[name]
            lane.order = None

    def turns(self, lane: Lane) -> RoundRobinState:
        return self._lanes[lane].turns

    def set_turns(self, lane: Lane, turns: RoundRobinState) -> None:
        with self._lock:
            state = self._lanes[lane]
            state.turns, state.order = turns, None
            if state.candidates is not None:
                state.candidates.set_turns(turns)

    def is_paused(self, lane: Lane) -> bool:
        return self._lanes[lane].is_paused

    def set_paused(self, lane: Lane, paused: bool) -> None:
        self._lanes[lane].is_paused = paused

    def next(self, worker: WorkerInfo, now: float) -> NextJob | None:
        """The job that this worker serves next."""
        with self._lock:
            candidates = self._candidates(worker.lane, now)
            if not self._lookahead:
                return candidates.next(worker, now)
            job = next(filter(worker.may_run, self._grouped(worker.lane, now, worker.loaded_model)), None)
            return None if job is None else candidates.take(job, now)

    def order(self, lane: Lane, now: float) -> tuple[Waiting, ...]:
        """The waiting jobs of a lane, the next one first."""
        with self._lock:
            return self._served(lane, now)

    def depth(self, lane: Lane) -> int:
        return len(self._lanes[lane].waiting)

    def models(self, lane: Lane) -> frozenset[str]:
        """The models of the waiting jobs of a lane."""
        with self._lock:
            return frozenset(self._lanes[lane].models)

    def has(self, job_id: str) -> bool:
        """Whether a job waits, in whichever lane."""
        return any(job_id in lane.waiting for lane in self._lanes.values())

    def running(self, lane: Lane) -> int:
        return len(self._lanes[lane].running)

    def position(self, lane: Lane, job_id: str, now: float) -> int | None:
        """How many jobs of its lane run or wait before it; None if it neither runs nor waits."""
        with self._lock:
            state = self._lanes[lane]
            if job_id in state.running:
                return 0
            place = self._place(lane, now, job_id)
            return None if place is None else len(state.running) + place

    def count(self, owner: str | None = None) -> int:
        """How many jobs wait in all lanes, of one owner or of all."""
        with self._lock:
            lanes = self._lanes.values()
            return sum(len(lane.waiting) if owner is None else lane.owners[owner] for lane in lanes)

    def _candidates(self, lane: Lane, now: float) -> Candidates:
        state = self._lanes[lane]
        if state.candidates is None:
            state.candidates = Candidates(state.waiting.values(), state.turns, now)
        return state.candidates

    def _order(self, lane: Lane, now: float) -> IncrementalOrder:
        state = self._lanes[lane]
        if state.order is None or not state.order.holds(now):
            state.order = IncrementalOrder(state.waiting.values(), state.turns, now)
        return state.order

    def _served(self, lane: Lane, now: float) -> tuple[Waiting, ...]:
        """The waiting jobs in the order in which they will be served."""
        state, order = self._lanes[lane], self._order(lane, now)
        if not self._lookahead:
            return order.line
        if state.grouped is None or state.grouped[0] is not order.line:
            state.grouped = order.line, tuple(self._grouped(lane, now))
        return state.grouped[1]

    def _grouped(self, lane: Lane, now: float, loaded: str | None = None) -> Iterator[Waiting]:
        """The same with lookahead, computed as far as it is read."""
        state, order = self._lanes[lane], self._order(lane, now)
        return grouped(order.line, order.level, self._lookahead, loaded or state.model, state.passed)

    def _place(self, lane: Lane, now: float, job_id: str) -> int | None:
        if not self._lookahead:
            return self._order(lane, now).place(job_id)
        return next((place for place, job in enumerate(self._served(lane, now)) if job.id == job_id), None)

    def _passed_after(self, next_job: NextJob) -> Counter[str] | None:
        """How often each job is passed once this one is served: those before it, because its model stays in memory."""
        if not self._lookahead:
            return None
        job, passed = next_job.job, self._lanes[next_job.job.lane].passed.copy()
        line = self._order(job.lane, next_job.at).line
        passed.update(
            other.id for other in takewhile(lambda other: other.id != job.id, line) if other.model != job.model
        )
        del passed[job.id]
        return passed
