"""The order of one lane's waiting jobs, kept while jobs come and go: a claim or a submit finds nothing anew.

Always what `gateway.queue.order` would say. Where a change may touch more than one job's place, `holds` turns False
and the order is to be found again. Pure; knows no store and no clock.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gateway.queue import OVERDUE, Key, Turns, Waiting, keyed, next_rise, served

Group = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Taken:
    """A job that may be served next, and the turns once it is."""

    job: Waiting
    turns: Turns
    at: float
    order: KeptOrder
    """In which it was the next one."""


class KeptOrder:
    """Keys are kept as they were found: a new round of a class counts up in `_rounds` instead of changing them all."""

    def __init__(self, waiting: Iterable[Waiting], turns: Turns, now: float) -> None:
        self._turns = turns
        self._found_at = now
        self._keyed: list[tuple[Key, Waiting]] = []
        self._key_of: dict[str, Key] = {}
        self._rounds: Counter[int] = Counter()
        self._slots: Counter[Group] = Counter()
        """Jobs by the class they count in now, and by owner."""
        self._groups: dict[Group, deque[str]] = {}
        """Jobs by their own class and owner, in order of submission: only the first one ages."""
        self._newest = -1
        self._until = float("inf")
        """Age alone changes the order then, at the earliest."""
        self._is_known = True
        for key, job in keyed(waiting, turns, now):
            self._keyed.append((key, job))
            self._key_of[job.id] = key
            self._slots[-key[0], job.owner] += 1
            self._newest = job.standing.number
            group = self._groups.setdefault(job.group, deque())
            group.append(job.id)
            if len(group) == 1:
                self._until = min(self._until, next_rise(job, turns, now))
        self._keyed.sort(key=_key)
        self._line: tuple[Waiting, ...] | None = None

    def holds(self, now: float) -> bool:
        """Whether it need not be found again; a clock that was set back makes heads younger."""
        return self._is_known and self._found_at <= now < self._until

    @property
    def line(self) -> tuple[Waiting, ...]:
        """The next one first; the same object until something changes."""
        if self._line is None:
            self._line = tuple(job for _, job in self._keyed)
        return self._line

    def place(self, job_id: str) -> int | None:
        """How many wait before it; None where it does not wait."""
        key = self._key_of.get(job_id)
        return None if key is None else bisect_left(self._keyed, key, key=_key)

    def next(self, now: float, may_run: Callable[[Waiting], bool]) -> Taken | None:
        """The first job that may."""
        job = next((job for _, job in self._keyed if may_run(job)), None)
        return None if job is None else self.take(job, now)

    def take(self, job: Waiting, now: float) -> Taken:
        """Any of the jobs, as if it were the next one."""
        key = self._key_of[job.id]
        turn = key[1] - self._rounds[-key[0]]
        return Taken(job, served(job, -key[0], turn, self._turns, self._groups, now), now, self)

    def level(self, job: Waiting) -> int:
        """The class that the job counts in now."""
        return -self._key_of[job.id][0]

    def serve(self, taken: Taken) -> None:
        """It waits no more, and its turn is over."""
        job, key = taken.job, self._key_of[taken.job.id]
        level, place = -key[0], bisect_left(self._keyed, key, key=_key)
        turn = key[1] - self._rounds[level]
        first_of_class = place == 0 or self._keyed[place - 1][0][0] != key[0]
        group = self._groups[job.group]
        self._turns = taken.turns
        if level == OVERDUE or group[0] != job.id or not (turn == 0 or (turn == 1 and first_of_class)):
            self._is_known = False
            return
        # What is left of its owner moves up by one and has had its turn: nobody's place changes but by this one job.
        del self._keyed[place], self._key_of[job.id]
        self._slots[level, job.owner] -= 1
        self._rounds[level] += turn
        group.popleft()
        if group:
            next_head = self._keyed[self.place(group[0]) or 0][1]
            self._until = min(self._until, next_rise(next_head, taken.turns, taken.at))
        else:
            del self._groups[job.group]
        self._line = None

    def put(self, job: Waiting) -> None:
        """It waits, or waits elsewhere than before."""
        if job.standing.number <= self._newest:
            self._is_known = False
            return
        level, slot = int(job.standing.priority), job.group
        turn = self._slots[slot] + (slot in self._turns.had)
        key = (-level, turn + self._rounds[level], job.standing.number)
        insort(self._keyed, (key, job), key=_key)
        self._key_of[job.id] = key
        self._slots[slot] += 1
        self._newest = job.standing.number
        group = self._groups.setdefault(slot, deque())
        group.append(job.id)
        if len(group) == 1:  # its age counts from its coming: before `until` it stays in its class
            self._until = min(self._until, next_rise(job, self._turns, job.standing.since))
        self._line = None


def _key(pair: tuple[Key, Waiting]) -> Key:
    return pair[0]
