"""Jobs of the loaded model before others, within bounds: the line that is told is the line that is served."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.jobs.job import Priority
from gateway.jobs.lookahead import grouped
from gateway.jobs.order import Standing, Waiting
from gateway.store.base import Bounds, WorkerInfo
from gateway.store.index import QueueIndex
from gateway.store.sqlite import SqliteStore
from tests.support import a_job, a_plan


def waiting(number: int, model: str, priority: Priority = Priority.NORMAL, owner: str = "me") -> Waiting:
    return Waiting(f"{number}{model}", owner, "engine", model, Standing(priority, 0.0, number))


def line_of(models: str) -> list[Waiting]:
    return [waiting(number, model) for number, model in enumerate(models)]


def served(models: str, most: int, loaded: str | None = None) -> str:
    line = list(grouped(line_of(models), lambda job: 1, most, loaded, {}))
    return "".join(job.model for job in line)


def test_queue_order_without_lookahead_is_strict() -> None:
    assert served("abababab", 0, "a") == "abababab"


def test_jobs_of_the_loaded_model_go_first_within_the_lookahead_limit() -> None:
    assert served("abababab", 3, "a") == "aaaabbbb"
    assert served("abababab", 2, "a") == "aaabbbba"
    assert served("bacaab", 1, "a") == "abcaab"
    assert served("bbbba", 2, "a") == "bbbba", "too far away"


def test_job_is_overtaken_at_most_as_often_as_the_lookahead_limit_allows() -> None:
    """A client that asks for the loaded model again and again cannot keep another one waiting."""
    line, most = QueueIndex(3), 3
    line.put(waiting(0, "a"))
    line.put(waiting(1, "b"))
    order = []
    for number in range(2, 12):
        line.put(waiting(number, "a"))
        taken = line.next(WorkerInfo("w"), 0.0)
        assert taken is not None
        line.serve(taken)
        order.append(taken.job.model)
    assert "".join(order).index("b") == 1 + most


jobs = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from((Priority.LOW, Priority.NORMAL))), max_size=25)


@settings(deadline=None)
@given(jobs, st.integers(0, 5), st.sampled_from((None, "a", "b")))
def test_lookahead_loses_no_job_and_no_job_is_overtaken_too_often_or_by_lower_priority(
    said: list[tuple[str, Priority]], most: int, loaded: str | None
) -> None:
    jobs = [waiting(number, model, level) for number, (model, level) in enumerate(said)]
    line = sorted(jobs, key=lambda job: -job.standing.priority)
    found = list(grouped(line, lambda job: job.standing.priority, most, loaded, {}))
    assert sorted(found, key=line.index) == line
    for place, job in enumerate(line):
        passing = [other for other in found[: found.index(job)] if line.index(other) > place]
        assert len(passing) <= most
        assert all(other.standing.priority == job.standing.priority for other in passing)


@settings(deadline=None)
@given(jobs, st.integers(0, 4))
def test_queue_order_reported_is_the_order_served(said: list[tuple[str, Priority]], most: int) -> None:
    line = QueueIndex(most)
    for number, (model, level) in enumerate(said):
        line.put(waiting(number, model, level, owner=model if number % 3 else "me"))
    while (taken := line.next(WorkerInfo("w"), 0.0)) is not None:
        told = line.order("engine", 0.0)
        assert told is line.order("engine", 0.0), "the same object while nothing changes"
        assert told[0] == taken.job
        assert [line.position("engine", job.id, 0.0) for job in told] == [
            line.running("engine") + place for place in range(len(told))
        ]
        line.serve(taken)
        line.end("engine", taken.job.id, 0.0)


async def test_store_with_lookahead_claims_jobs_in_the_reported_order(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, lookahead=2)
    await store.open(lambda job, event: None)
    for model in "ababab":
        await store.submit(a_job(plan=a_plan(model=model)), Bounds())
    told = [job.model for job in store.order("engine")]
    claimed = []
    while (lease := await store.claim(WorkerInfo(id="w", lane="engine"))) is not None:
        claimed.append(lease.job.plan.model)
    assert claimed == ["a", "a", "a", "b", "b", "b"]
    assert told == claimed
    await store.close()
