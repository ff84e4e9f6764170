"""The order of the queue: by priority class, which rises with age, by owners in turn within a class, by submission.

Pure; knows no store and no clock. `order` and `take` use the same keys, so jobs run in the published order. Times are
Unix seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Literal

from gateway.jobs.job import Priority
from gateway.jobs.plans import Lane

AGEING_S = 600.0
"""Seconds after which an owner's first job of a class rises by one class (S-26)."""
BACKGROUND_AGEING_S = 3600.0
"""Seconds after which an owner's first job of the background class counts as low."""
OVERDUE = Priority.HIGH + 1
"""The class above all others, for jobs that have risen through them: served in order of submission alone."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The values that determine a job's place in the queue. A reorder exchanges those of one owner's jobs."""

    priority: Priority
    since: float
    number: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """A waiting job, with the values that its place depends on."""

    id: str
    owner: str
    lane: Lane
    model: str
    standing: Standing

    @property
    def group(self) -> tuple[int, str]:
        return self.standing.priority, self.owner


@dataclass(frozen=True, slots=True)
class RoundRobinState:
    """The owners that were served lately in one lane: the state of round-robin and ageing between two claims."""

    had: frozenset[tuple[int, str]] = frozenset()
    """Pairs (class, owner) that were served in this round of the class."""
    last: Mapping[tuple[int, str], float] = field(default_factory=dict)
    """When the last job of each (class, owner) was served."""

    def given_back(self, owner: str) -> RoundRobinState:
        """The state in which this owner has not been served in this round."""
        return replace(self, had=frozenset(turn for turn in self.had if turn[1] != owner))


_number = attrgetter("standing.number")
Key = tuple[int, int, int]
"""(-class, turn, number): the smallest is served first. Turn 0 is this round, 1 the next one."""


def order(waiting: Iterable[Waiting], turns: RoundRobinState, now: float) -> list[Waiting]:
    """The jobs of one lane in the order in which they will run if no other job is submitted."""
    return [job for _, job in sorted(keyed(waiting, turns, now), key=lambda pair: pair[0])]


def take(
    waiting: Sequence[Waiting], turns: RoundRobinState, now: float, models: Collection[str] | None = None
) -> tuple[Waiting, RoundRobinState] | None:
    """The next job among those of `models`, and the state after it is served; None where there is none."""
    candidates = [pair for pair in keyed(waiting, turns, now) if models is None or pair[1].model in models]
    if not candidates:
        return None
    (falling, turn, _), job = min(candidates, key=lambda pair: pair[0])
    return job, served(job, -falling, turn, turns, {other.group for other in waiting}, now)


def served(
    job: Waiting, level: int, turn: int, turns: RoundRobinState, groups: Container[tuple[int, str]], now: float
) -> RoundRobinState:
    """The state after a job of class `level` is served; `groups` are those of all waiting jobs and of its own."""
    level = int(job.standing.priority) if level == OVERDUE else level
    had = turns.had if turn == 0 else frozenset(had for had in turns.had if had[0] != level)
    last = {group: at for group, at in turns.last.items() if group in groups}
    return RoundRobinState(had | {(level, job.owner)}, last | {job.group: now})


def level_of(job: Waiting, turns: RoundRobinState, now: float) -> int:
    """The class of an owner's first job, raised by the time since the owner was last served in the job's own class."""
    waited = now - max(job.standing.since, turns.last.get(job.group, 0.0))
    level = job.standing.priority
    if level is Priority.BACKGROUND:
        if waited < BACKGROUND_AGEING_S:
            return level
        level, waited = Priority.LOW, waited - BACKGROUND_AGEING_S
    return min(OVERDUE, level + max(0, int(waited // AGEING_S)))


def next_rise(job: Waiting, turns: RoundRobinState, now: float) -> float:
    """When an owner's first job of a class rises next, in Unix seconds; infinite in the highest class."""
    if level_of(job, turns, now) == OVERDUE:
        return float("inf")
    waited = now - max(job.standing.since, turns.last.get(job.group, 0.0))
    first = BACKGROUND_AGEING_S if job.standing.priority is Priority.BACKGROUND else AGEING_S
    return now + (first - waited if waited < first else AGEING_S - (waited - first) % AGEING_S)


def place_among_own(
    line: Sequence[Waiting],
    job_id: str,
    running: int,
    *,
    before: str | None = None,
    position: int | None = None,
    to: Literal["front", "end"] | None = None,
) -> int | None:
    """The place of a waiting job among its owner's jobs, from 0; None where it, or `before`, does not wait.

    `position` counts the `running` ones, too: the owner's first place from there on is taken.
    """
    job = next((job for job in line if job.id == job_id), None)
    if job is None:
        return None
    own = [(place, other.id) for place, other in enumerate(line) if other.owner == job.owner]
    match before, position, to:
        case str(), None, None:
            others = [other for _, other in own if other != job_id]
            return others.index(before) if before in others else None
        case None, int(), None:
            return sum(place + running < position for place, _ in own)
        case None, None, "front":
            return 0
        case None, None, "end":
            return len(own)
    raise ValueError("say where by exactly one of before, position, to")


def moved(line: Sequence[Waiting], job_id: str, to: int) -> dict[str, Standing]:
    """The standings that change when a job takes place `to`, from 0, among its owner's jobs; `line` is the queue.

    Jobs of other owners do not move: the owner's jobs exchange their places.
    """
    job = next(job for job in line if job.id == job_id)
    own = [other for other in line if other.owner == job.owner]
    standings = [other.standing for other in own]
    own.remove(job)
    own.insert(max(0, min(to, len(own))), job)
    return {o.id: standing for o, standing in zip(own, standings, strict=True) if o.standing != standing}


def keyed(waiting: Iterable[Waiting], turns: RoundRobinState, now: float) -> Iterator[tuple[Key, Waiting]]:
    """Each job with the key of its place, in order of submission."""
    heads: set[tuple[int, str]] = set()
    ahead: dict[tuple[int, str], int] = {}
    had = turns.had
    for job in sorted(waiting, key=_number):
        standing, owner = job.standing, job.owner
        level = +standing.priority  # a plain int
        slot = level, owner
        if slot not in heads:
            heads.add(slot)
            if (risen := level_of(job, turns, now)) != level:
                level = int(risen)
                slot = level, owner
        before = ahead.get(slot)
        if before is None:
            before = int(slot in had)
        ahead[slot] = before + 1
        yield (-level, 0 if level == OVERDUE else before, standing.number), job
