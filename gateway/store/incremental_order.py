"""Incremental order of one lane's waiting jobs, updated while jobs come and go: a claim or submit does not sort again.

Always equal to what `gateway.jobs.order` computes. If a change may move more than one job, `holds` becomes False and
the order must be computed again. Pure; knows no store and no clock.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, deque
from collections.abc import Iterable
from itertools import islice
from operator import itemgetter

from gateway.jobs.order import OVERDUE, Key, RoundRobinState, Waiting, keyed, level_of, next_rise
from gateway.store.candidates import NextJob

Group = tuple[int, str]
_key = itemgetter(0)
MOVED_MOST = 300
"""Jobs behind a removed one of the same owner; if there are more, the order is computed again."""


class IncrementalOrder:
    """Keys are not changed later: a new round of a class increments `_rounds` instead of all its keys."""

    def __init__(self, waiting: Iterable[Waiting], turns: RoundRobinState, now: float) -> None:
        self._turns = turns
        self._found_at = now
        self._keyed: list[tuple[Key, Waiting]] = []
        self._key_of: dict[str, Key] = {}
        self._rounds: Counter[int] = Counter()
        self._slots: Counter[Group] = Counter()
        """Jobs by the class they count in now and by owner."""
        self._groups: dict[Group, deque[str]] = {}
        """Job ids by their own class and owner, in order of submission: only the first one of a group ages."""
        self._newest = -1
        self._until = float("inf")
        """The earliest time at which age alone changes the order."""
        self._is_known = True
        self._gaps: set[int] = set()
        """Classes with one owner whose turn numbers are no longer consecutive."""
        slots, groups = self._slots, self._groups
        self._keyed = list(keyed(waiting, turns, now))  # in order of submission
        for key, job in self._keyed:
            group = job.standing.priority, job.owner
            slot = -key[0], job.owner
            slots[slot] = slots.get(slot, 0) + 1
            if (members := groups.get(group)) is None:
                groups[group] = deque((job.id,))
                self._until = min(self._until, next_rise(job, turns, now))
            else:
                members.append(job.id)
        if self._keyed:
            self._newest = self._keyed[-1][1].standing.number
        self._key_of = {job.id: key for key, job in self._keyed}
        self._keyed.sort(key=_key)
        self._line: tuple[Waiting, ...] | None = None

    def holds(self, now: float) -> bool:
        """Whether the order is still right; a clock that was set back makes waiting jobs younger."""
        return self._is_known and self._found_at <= now < self._until

    @property
    def line(self) -> tuple[Waiting, ...]:
        """The waiting jobs, the next one first; the same object until something changes."""
        if self._line is None:
            self._line = tuple(job for _, job in self._keyed)
        return self._line

    def place(self, job_id: str) -> int | None:
        """How many jobs wait before this one; None if it does not wait."""
        key = self._key_of.get(job_id)
        return None if key is None else bisect_left(self._keyed, key, key=_key)

    def level(self, job: Waiting) -> int:
        """The class that the job counts in now."""
        return -self._key_of[job.id][0]

    def serve(self, next_job: NextJob) -> None:
        """Remove a job that is now served, and count its owner's turn."""
        job, key = next_job.job, self._key_of[next_job.job.id]
        level, place = -key[0], bisect_left(self._keyed, key, key=_key)
        turn = key[1] - self._rounds[level]
        first_of_class = place == 0 or self._keyed[place - 1][0][0] != key[0]
        group = self._groups[job.group]
        self._turns = next_job.turns
        is_as_taken = (level, turn) == (next_job.level, next_job.turn)  # time may have passed since
        if (
            not is_as_taken
            or level == OVERDUE
            or group[0] != job.id
            or not (turn == 0 or (turn == 1 and first_of_class))
        ):
            self._is_known = False
            return
        # Its owner's other jobs move up by one and the owner has had its turn: no other job's place changes.
        del self._keyed[place], self._key_of[job.id]
        self._slots[level, job.owner] -= 1
        self._rounds[level] += turn
        group.popleft()
        if group:
            next_head = self._keyed[self.place(group[0]) or 0][1]
            self._until = min(self._until, next_rise(next_head, next_job.turns, next_job.at))
        else:
            del self._groups[job.group]
        self._line = None

    def remove(self, job: Waiting, now: float) -> None:
        """Remove a job that was not served: its owner's later jobs move up by one turn."""
        level, slot, group = int(job.standing.priority), job.group, self._groups.get(job.group)
        key = self._key_of.get(job.id)
        if key is None or group is None or key[0] != -level or self._slots[slot] != len(group):
            self._is_known = False  # age has raised it, or another job of its owner
            return
        at = group.index(job.id)
        later = [] if at == len(group) - 1 else list(islice(group, at + 1, None))
        is_alone = not any(count and own[0] == level and own != slot for own, count in self._slots.items())
        head = self._waiting(later[0]) if at == 0 and later else None
        if head is not None and level_of(head, self._turns, now) != level:
            self._is_known = False
            return
        if len(later) > MOVED_MOST or level in self._gaps:
            if at == 0 or not is_alone:
                self._is_known = False
                return
            self._gaps.add(level)  # the order stays; the turns are computed again when another owner's job is added
            later = []
        del self._keyed[self._at(key)], self._key_of[job.id], group[at]
        self._slots[slot] -= 1
        for moved in later:
            other = self._keyed.pop(self._at(self._key_of[moved]))[1]
            self._key_of[moved] = key = (-level, self._key_of[moved][1] - 1, other.standing.number)
            insort(self._keyed, (key, other), key=_key)
        if head is not None:
            self._until = min(self._until, next_rise(head, self._turns, now))
        if not group:
            del self._groups[slot]
        self._line = None

    def _at(self, key: Key) -> int:
        return bisect_left(self._keyed, key, key=_key)

    def _waiting(self, job_id: str) -> Waiting:
        return self._keyed[self._at(self._key_of[job_id])][1]

    def put(self, job: Waiting) -> None:
        """Add a waiting job, or move it."""
        if job.standing.number <= self._newest or int(job.standing.priority) in self._gaps:
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
        if len(group) == 1:  # its age counts from its submission: before `until` it stays in its class
            self._until = min(self._until, next_rise(job, self._turns, job.standing.since))
        self._line = None
