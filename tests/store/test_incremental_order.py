"""The order that is kept while jobs come and go is, after each of them, the order that would be found anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.jobs.job import Priority
from gateway.jobs.order import (
    AGEING_S,
    BACKGROUND_AGEING_S,
    RoundRobinState,
    Standing,
    Waiting,
    keyed,
    order,
    served,
    take,
)
from gateway.store import candidates
from gateway.store import incremental_order as kept_order
from gateway.store.base import WorkerInfo
from gateway.store.candidates import Candidates
from gateway.store.incremental_order import IncrementalOrder
from gateway.store.index import QueueIndex
from tests.jobs.test_queue import queues

owners = st.sampled_from("abc")
models = st.sampled_from(["m", "n"])
comes = st.tuples(st.just("comes"), owners, st.sampled_from(list(Priority)), models)
goes = st.tuples(st.just("goes"), st.sampled_from([None, frozenset({"m"}), frozenset({"n"})]))
goes_past = st.tuples(st.just("goes_past"), st.integers(1, 4))
is_cancelled = st.tuples(st.just("is_cancelled"), st.integers(0, 100))
is_given_back = st.tuples(st.just("is_given_back"))
waits = st.tuples(st.just("waits"), st.sampled_from([1.0, AGEING_S / 2, AGEING_S, BACKGROUND_AGEING_S, -3000.0]))


class Twins:
    """A line, and beside it the same jobs in a list that is ordered anew each time."""

    def __init__(self) -> None:
        self.now = 10_000.0
        self.number = 0
        self.line = QueueIndex()
        self.jobs: dict[str, Waiting] = {}
        self.turns = RoundRobinState()
        self.ran: list[Waiting] = []

    def comes(self, owner: str, priority: Priority, model: str) -> None:
        self.number += 1
        standing = Standing(priority, self.now, self.number)
        self._put(Waiting(str(self.number), owner, "engine", model, standing))

    def _put(self, job: Waiting) -> None:
        self.jobs[job.id] = job
        self.line.put(job)

    def goes(self, models: frozenset[str] | None) -> None:
        self._take(WorkerInfo("w", models=models), take(list(self.jobs.values()), self.turns, self.now, models))

    def goes_past(self, every: int) -> None:
        """Past jobs that are held: they count in their owners' turns."""
        worker = WorkerInfo("w", held_jobs=frozenset(job_id for job_id in self.jobs if int(job_id) % every == 0))
        runnable = [one for one in keyed(self.jobs.values(), self.turns, self.now) if worker.may_run(one[1])]
        if not runnable:
            return self._take(worker, None)
        (falling, turn, _), job = min(runnable, key=lambda one: one[0])
        groups = {other.group for other in self.jobs.values()}
        self._take(worker, (job, served(job, -falling, turn, self.turns, groups, self.now)))

    def _take(self, worker: WorkerInfo, expected: tuple[Waiting, RoundRobinState] | None) -> None:
        taken = self.line.next(worker, self.now)
        assert (taken and (taken.job, taken.turns)) == expected
        if taken is not None:
            self.line.serve(taken)
            del self.jobs[taken.job.id]
            self.turns = taken.turns
            self.ran.append(taken.job)

    def is_cancelled(self, which: int) -> None:
        if self.jobs:
            job_id = sorted(self.jobs)[which % len(self.jobs)]
            del self.jobs[job_id]
            self.line.end("engine", job_id, self.now)

    def is_given_back(self) -> None:
        if self.ran:
            self._put(self.ran.pop())

    def waits(self, seconds: float) -> None:
        self.now += seconds

    def check(self) -> None:
        expected = order(self.jobs.values(), self.turns, self.now)
        assert list(self.line.order("engine", self.now)) == expected
        running = self.line.running("engine")
        places = [self.line.position("engine", job.id, self.now) for job in expected]
        assert places == list(range(running, running + len(expected)))
        assert self.line.count() == len(expected)
        for owner in "abc":
            assert self.line.count(owner) == sum(job.owner == owner for job in expected)


@pytest.mark.parametrize("moved_most", [0, 300])
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(story=st.lists(st.one_of(comes, comes, goes, goes, goes_past, is_cancelled, is_given_back, waits), max_size=60))
def test_queue_order_kept_incrementally_equals_the_recomputed_order(
    moved_most: int, story: list[tuple[Any, ...]]
) -> None:
    twins = Twins()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept_order, "MOVED_MOST", moved_most)
        for what, *said in story:
            happen: Callable[..., None] = getattr(twins, what)
            happen(*said)
            twins.check()


@given(queues())
def test_queue_served_incrementally_has_the_same_order_as_computed_from_scratch(
    queue: tuple[list[Waiting], RoundRobinState, float],
) -> None:
    waiting, turns, now = queue
    kept, next_jobs = IncrementalOrder(waiting, turns, now), Candidates(waiting, turns, now)
    while waiting:
        expected = take(waiting, turns, now)
        taken = next_jobs.next(WorkerInfo("w"), now)
        assert taken is not None
        assert (taken.job, taken.turns) == expected
        kept.serve(taken)
        next_jobs.serve(taken)
        waiting.remove(taken.job)
        turns = taken.turns
        if not kept.holds(now):
            kept = IncrementalOrder(waiting, turns, now)
        assert list(kept.line) == order(waiting, turns, now)


def test_queue_order_is_not_recomputed_on_claim_and_submit_in_a_long_queue() -> None:
    """R-11: only what cannot be followed costs a look at all jobs."""
    twins = Twins()
    for n in range(200):
        twins.comes("abc"[n % 3], list(Priority)[n % 4], "m")
    first = twins.line._order("engine", twins.now)
    for _ in range(150):
        twins.goes(None)
        twins.comes("b", Priority.NORMAL, "m")
        twins.check()
    assert twins.line._order("engine", twins.now) is first


@pytest.mark.parametrize("owners", ["a", "abcdefgh"])
def test_queue_order_is_not_recomputed_on_cancel_in_a_long_queue(owners: str) -> None:
    """R-11: all jobs of one owner, or of several in turn."""
    twins = Twins()
    for n in range(1000):
        twins.comes(owners[n % len(owners)], Priority.NORMAL, "m")
    first = twins.line._order("engine", twins.now)
    for n in range(50):
        twins.is_cancelled(500 + 7 * n)
    twins.check()
    assert twins.line._order("engine", twins.now) is first


@pytest.mark.parametrize("count", [300, 3000])
@pytest.mark.parametrize("owners", ["a", "abcdefghij"])
def test_next_job_of_a_long_queue_is_found_without_a_look_at_the_others(
    count: int, owners: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past held jobs, after a reorder, after rises by age: each held job is looked at once, of the others a few."""
    line = QueueIndex()
    for number in range(count):
        standing = Standing(list(Priority)[number % 4], 10_000.0 + number / 10, number)
        line.put(Waiting(str(number), owners[number % len(owners)], "engine", "m", standing))
    looks: list[str] = []
    level_of, may_run = candidates.level_of, WorkerInfo.may_run

    def aged(job: Waiting, turns: RoundRobinState, now: float) -> int:
        looks.append(job.id)
        return level_of(job, turns, now)

    def asked(worker: WorkerInfo, job: Waiting) -> bool:
        looks.append(job.id)
        return may_run(worker, job)

    monkeypatch.setattr(candidates, "level_of", aged)
    monkeypatch.setattr(WorkerInfo, "may_run", asked)
    monkeypatch.setattr(IncrementalOrder, "__init__", lambda *_: pytest.fail("all jobs were ordered"))
    worker, now = WorkerInfo("w", held_jobs=frozenset(map(str, range(0, count, 2)))), 10_000.0 + count / 10
    for n in range(60):
        now += 20.0  # many rise meanwhile
        if n % 7 == 3:
            one, other = (line._lanes["engine"].waiting[str(count - 10 - m)] for m in (0, 20))
            line.put(replace(one, standing=other.standing), replace(other, standing=one.standing))
        taken = line.next(worker, now)
        assert taken is not None
        line.serve(taken)
        line.put(Waiting(f"new {n}", owners[0], "engine", "m", Standing(Priority.NORMAL, now, count + n)))
    assert len(looks) < 2 * count + 60 * (10 + 12 * len(owners))


def test_overdue_jobs_are_served_by_submission_past_a_held_one_of_the_same_owner() -> None:
    twins = Twins()
    for owner, priority in (("a", Priority.HIGH), ("a", Priority.NORMAL), ("b", Priority.HIGH)):
        twins.comes(owner, priority, "n" if priority is Priority.HIGH and owner == "a" else "m")
    twins.waits(3 * AGEING_S)
    for models in (frozenset({"m"}), frozenset({"m"}), None):
        twins.goes(models)
        twins.check()
