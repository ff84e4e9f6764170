"""Candidates: the next job of one lane, without the order of all the others.

Always the job that `gateway.jobs.order.take` would take. A claim, a submit, a cancel and a rise by age each touch the
jobs of one owner. Pure; knows no store and no clock.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from operator import attrgetter

from gateway.jobs.job import Priority
from gateway.jobs.order import OVERDUE, RoundRobinState, Waiting, level_of, next_rise, served
from gateway.store.base import WorkerInfo

Slot = tuple[int, str]
"""The class that jobs count in now, and their owner."""
_number = attrgetter("standing.number")


@dataclass(frozen=True, slots=True)
class NextJob:
    """A job that may be served next, and the round-robin state after it."""

    job: Waiting
    level: int
    """The class that it counts in."""
    turn: int
    """0: its owner's turn is in this round."""
    turns: RoundRobinState
    at: float


class _Class:
    """The slots of one class by the number of their first job, and then their owner."""

    __slots__ = ("fresh", "had")

    def __init__(self) -> None:
        self.fresh: list[tuple[int, str]] = []
        """Of owners that were not served in this round."""
        self.had: list[tuple[int, str]] = []

    def of(self, has_had: bool) -> list[tuple[int, str]]:
        return self.had if has_had else self.fresh


class Candidates:
    """Candidates of a lane. Where `now` decreases, because a clock was set back, all ages are computed again."""

    def __init__(self, waiting: Iterable[Waiting], turns: RoundRobinState, now: float) -> None:
        self._groups: dict[Slot, list[Waiting]] = {}
        """Jobs by their own class and owner, in order of submission: only the first one of a group ages."""
        self._raised: dict[Slot, int] = {}
        """The class that the first job of a group counts in, where age has raised it."""
        self._rises: list[tuple[float, Slot]] = []
        """A heap of the times at which the first job of a group may rise."""
        self._rises_at: dict[Slot, float] = {}
        self._places: dict[Slot, tuple[bool, Waiting]] = {}
        """Where a slot is in its class: whether its owner had its turn, and its first job."""
        self._classes: dict[int, _Class] = {level: _Class() for level in range(OVERDUE, Priority.BACKGROUND - 1, -1)}
        self._turns, self._now = turns, now
        self._filter: tuple[object, object] = (None, frozenset())
        self._skipped: dict[Slot, int] = {}
        """How many jobs at the front of a group this filter leaves out."""
        for job in sorted(waiting, key=_number):
            self._groups.setdefault(job.group, []).append(job)
        for group in self._groups:
            self._age(group)

    def put(self, job: Waiting) -> None:
        """Add a waiting job, which is not there yet."""
        jobs = self._groups.setdefault(job.group, [])
        at = bisect_left(jobs, job.standing.number, key=_number)
        jobs.insert(at, job)
        if at < self._skipped.get(job.group, 0):
            self._skipped[job.group] = at
        self._age(job.group)

    def remove(self, job: Waiting) -> None:
        """Remove a job that was not served."""
        self._take_out(job)
        self._age(job.group)

    def serve(self, next_job: NextJob) -> None:
        """Remove a job that is now served, and count its owner's turn."""
        before, self._turns = self._turns, next_job.turns
        self._take_out(next_job.job)
        self._age(next_job.job.group)
        for level in {level for level, _ in before.had - self._turns.had}:  # a new round of this class
            slots = self._classes[level]
            slots.fresh, slots.had = sorted(slots.fresh + slots.had), []
            for _, owner in slots.fresh:
                self._places[level, owner] = False, self._places[level, owner][1]
        for slot in self._turns.had - before.had:
            self._place(slot)
        self._place((next_job.level, next_job.job.owner))

    def set_turns(self, turns: RoundRobinState) -> None:
        self._turns = turns
        for group in self._groups:
            self._age(group)

    def next(self, worker: WorkerInfo, now: float) -> NextJob | None:
        """The first job that the worker may run."""
        self._pass_time(now)
        if self._filter != (worker.models, worker.held_jobs):
            self._filter = worker.models, worker.held_jobs
            self._skipped.clear()
        for level, slots in self._classes.items():
            if (candidate := self._next_of(level, slots, worker)) is not None:
                return self._next_job(candidate[1], level, candidate[0])
        return None

    def take(self, job: Waiting, now: float) -> NextJob:
        """Any waiting job, as if it were the next one."""
        self._pass_time(now)
        is_first = self._groups[job.group][0].id == job.id
        level = self._raised.get(job.group, job.group[0]) if is_first else job.group[0]
        slot = level, job.owner
        rank = _before(list(self._parts(slot)), job.standing.number)
        return self._next_job(job, level, 0 if level == OVERDUE else rank + (slot in self._turns.had))

    # ---- internal --------------------------------------------------------------------------------

    def _next_job(self, job: Waiting, level: int, turn: int) -> NextJob:
        turns = served(job, level, turn, self._turns, self._groups, self._now)
        return NextJob(job, level, turn, turns, self._now)

    def _next_of(self, level: int, slots: _Class, worker: WorkerInfo) -> tuple[int, Waiting] | None:
        """The turn and the job of the first candidate of a class."""
        at_front = slots.fresh or slots.had
        for _, owner in at_front:
            job = self._places[level, owner][1]
            if worker.may_run(job):
                return int(at_front is slots.had), job
            if level == OVERDUE:
                break  # by submission alone: the next job may be of the same slot
        least = 0 if level == OVERDUE else 1 + (not slots.fresh)  # the turn of any job that is left
        first: tuple[int, int, Waiting] | None = None
        for has_had, members in ((False, slots.fresh), (True, slots.had)):
            for number, owner in members:
                if first is not None and first[0] == least and number > first[1]:
                    break
                if (runnable := self._first_runnable((level, owner), worker)) is not None:
                    rank, job = runnable
                    candidate = (0 if level == OVERDUE else rank + has_had), job.standing.number, job
                    first = candidate if first is None or candidate[:2] < first[:2] else first
        return None if first is None else (first[0], first[2])

    def _parts(self, slot: Slot) -> Iterator[tuple[list[Waiting], int, int]]:
        """The jobs of a slot: parts of lists, each sorted by number, from an index up to another one."""
        level, owner = slot
        if (jobs := self._groups.get(slot)) is not None:
            yield jobs, int(slot in self._raised), len(jobs)
        for own in range(Priority.BACKGROUND, min(level, OVERDUE)):
            if self._raised.get((own, owner)) == level:
                yield self._groups[own, owner], 0, 1

    def _first(self, slot: Slot) -> Waiting | None:
        """The first job of a slot."""
        first = [jobs[start] for jobs, start, end in self._parts(slot) if start < end]
        return min(first, key=_number, default=None)

    def _first_runnable(self, slot: Slot, worker: WorkerInfo) -> tuple[int, Waiting] | None:
        """The first job of a slot that the worker may run, and how many jobs of the slot are before it."""
        parts = list(self._parts(slot))
        first: Waiting | None = None
        for jobs, start, end in parts:
            group = jobs[0].group
            at = skipped = self._skipped.get(group, 0)
            while at < len(jobs) and not worker.may_run(jobs[at]):
                at += 1
            if at != skipped:
                self._skipped[group] = at
            at = max(at, start)
            while at < end and not worker.may_run(jobs[at]):
                at += 1
            if at < end and (first is None or jobs[at].standing.number < first.standing.number):
                first = jobs[at]
        if first is None:
            return None
        return _before(parts, first.standing.number), first

    def _pass_time(self, now: float) -> None:
        """Let jobs rise whose time has come."""
        due: set[Slot] = set()
        if now < self._now:
            due.update(self._groups)
        self._now = now
        while self._rises and self._rises[0][0] <= now:
            due.add(group := heappop(self._rises)[1])
            self._rises_at.pop(group, None)
        for group in due:
            if group in self._groups:
                self._age(group)

    def _age(self, group: Slot) -> None:
        """Count the first job of a group in its class by age, and place the slots that this changes."""
        former = self._raised.pop(group, None)
        jobs = self._groups.get(group)
        if jobs is not None:
            level = int(level_of(jobs[0], self._turns, self._now))
            if level != group[0]:
                self._raised[group] = level
            rises_at = next_rise(jobs[0], self._turns, self._now)
            if rises_at != self._rises_at.get(group):
                self._rises_at[group] = rises_at
                heappush(self._rises, (rises_at, group))
        for counted in {group[0], former, self._raised.get(group)}:
            if counted is not None:
                self._place((counted, group[1]))

    def _place(self, slot: Slot) -> None:
        """Put a slot to its place in its class."""
        level, owner = slot
        if (former := self._places.pop(slot, None)) is not None:
            members = self._classes[level].of(former[0])
            del members[bisect_left(members, (former[1].standing.number, owner))]
        if (first := self._first(slot)) is not None:
            has_had = level != OVERDUE and slot in self._turns.had
            self._places[slot] = has_had, first
            insort(self._classes[level].of(has_had), (first.standing.number, owner))

    def _take_out(self, job: Waiting) -> None:
        jobs = self._groups[job.group]
        at = bisect_left(jobs, job.standing.number, key=_number)
        while jobs[at].id != job.id:  # during a reorder two jobs have one number
            at += 1
        del jobs[at]
        if at < self._skipped.get(job.group, 0):
            self._skipped[job.group] -= 1
        if not jobs:
            del self._groups[job.group]
            self._skipped.pop(job.group, None)
            self._rises_at.pop(job.group, None)


def _before(parts: Iterable[tuple[list[Waiting], int, int]], number: int) -> int:
    """How many jobs of a slot have a smaller number."""
    return sum(max(0, min(bisect_left(jobs, number, key=_number), end) - start) for jobs, start, end in parts)
