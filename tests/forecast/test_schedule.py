"""The schedule of a queue over several nodes: against the queue of one node, and against claims one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.forecast.costs import Costs
from gateway.forecast.schedule import Runner, Schedule
from gateway.forecast.series import Cost
from gateway.forecast.wait import WALKED_AT_ONCE, Due, QueueForecast
from gateway.forecast.work import Work
from tests.support.forecast import LARGE, SMALL, SPECS

MODELS = (SMALL, LARGE, "flux2-tiny")
KINDS = [
    Work("engine", model, bits, "txt2img", images, 4, 1.0, 1.0)
    for model in MODELS
    for bits in (None, 8)
    for images in (1, 3)
] + [Work("engine", SMALL, None, "load", 0)]


def costs_of(speed: float) -> Costs:
    costs = Costs(SPECS.get)
    for work in KINDS:
        costs.learn("step", work, speed)
        costs.learn("head", work, 0.3 * speed)
        costs.learn("tail", work, 0.2 * speed)
        costs.learn("load", work, 7 * speed)
    costs.learn("gap", None, 0.01)
    costs.learn("file", KINDS[0], 0.05)
    return costs


SPEEDS = {speed: costs_of(speed) for speed in (0.1, 0.25, 1.0)}
lines = st.lists(st.sampled_from(KINDS), max_size=30).map(
    lambda works: [(f"job{place}", work) for place, work in enumerate(works)]
)
loaded = st.sampled_from([None, *(work.needs for work in KINDS)])
ready = st.dictionaries(st.sampled_from([*MODELS, "job0", "job3", "job7"]), st.floats(0.0, 200.0), max_size=3)
runners = st.builds(
    Runner,
    st.sampled_from(list(SPEEDS.values())),
    loaded,
    st.builds(Cost, st.floats(0.0, 100.0), st.just(0.0)),
    st.sampled_from([None, frozenset(MODELS), frozenset(MODELS[:1]), frozenset(MODELS[1:]), frozenset()]),
)


@settings(max_examples=200, deadline=None)
@given(lines, loaded, ready, st.randoms())
def test_with_one_node_the_times_are_those_of_the_queue_of_one_node(
    line: list[tuple[str, Work]], first: tuple[str, int | None] | None, ready_in: dict[str, float], rnd: object
) -> None:
    costs = SPEEDS[0.25]
    one, many = QueueForecast(line, costs, first, ready_in), Schedule(line, [Runner(costs, first)], ready_in)
    names = [name for name, _ in line]
    rnd.shuffle(names)  # type: ignore[attr-defined]
    assert [many.due(name) for name in names] == [one.due(name) for name in names]
    assert many.due("nobody") is None


def claimed(line: Sequence[tuple[str, Work]], nodes: Sequence[Runner]) -> Iterator[tuple[str, float]]:
    """Each job with its start, where each node claims the first job in order that it may run whenever it is free."""
    waiting, free = list(line), [[node.free.seconds, place, node.loaded] for place, node in enumerate(nodes)]
    while waiting:
        able = [
            (at, work_place, held != waiting[work_place][1].needs, place)
            for at, place, held in free
            if (work_place := next((n for n, (_, w) in enumerate(waiting) if nodes[place].may_run(w)), None))
            is not None  # type: ignore[call-overload]
        ]
        if not able:
            return
        at, work_place, _, place = min(able)  # type: ignore[type-var]
        job, work = waiting.pop(work_place)
        costs = nodes[place].costs  # type: ignore[call-overload]
        begins = at + costs.of("gap").seconds  # type: ignore[operator]
        load = costs.of("load", work).seconds if work.needs not in (None, free[place][2]) else 0.0  # type: ignore[call-overload]
        free[place][0] = begins + costs.run(work).seconds + load  # type: ignore[call-overload]
        free[place][2] = work.needs or free[place][2]  # type: ignore[call-overload]
        yield job, begins


@settings(max_examples=200, deadline=None)
@given(lines, st.lists(runners, min_size=1, max_size=4))
def test_the_times_are_those_of_claims_one_after_the_other(line: list[tuple[str, Work]], nodes: list[Runner]) -> None:
    starts, schedule = dict(claimed(line, nodes)), Schedule(line, nodes)
    for name, work in line:
        due = schedule.due(name)
        assert (due is not None) == any(node.may_run(work) for node in nodes)
        if due is not None:
            assert due.begins.seconds == pytest.approx(starts[name])
            assert due.done.seconds >= due.begins.seconds


@settings(max_examples=100, deadline=None)
@given(lines, st.lists(runners, min_size=2, max_size=4), ready)
def test_no_job_starts_before_its_download_or_before_a_node_is_free(
    line: list[tuple[str, Work]], nodes: list[Runner], ready_in: dict[str, float]
) -> None:
    schedule = Schedule(line, nodes, ready_in)
    for name, work in line:
        able = [node.free.seconds for node in nodes if node.may_run(work)]
        due = schedule.due(name)
        assert (due is None) == (not able)
        if due is not None:
            here = max(ready_in.get(name, 0.0), ready_in.get(work.model, 0.0))
            assert due.begins.seconds >= max(min(able), here)


def test_the_first_job_of_a_long_queue_is_computed_without_the_rest() -> None:
    reads = 0

    def line() -> Iterator[tuple[str, Work]]:
        nonlocal reads
        for place in range(10_000):
            reads += 1
            yield f"job{place}", KINDS[0]

    schedule = Schedule(line(), [Runner(SPEEDS[0.1]), Runner(SPEEDS[1.0])])
    assert schedule.due("job0") is not None
    assert reads <= WALKED_AT_ONCE
    assert schedule.due("job9999") is not None
    assert reads == 10_000


def test_four_equal_nodes_are_done_in_a_quarter_of_the_time_and_a_fast_one_takes_more() -> None:
    line = [(f"job{place}", KINDS[0]) for place in range(64)]
    one, fast = Runner(SPEEDS[0.25], KINDS[0].needs), Runner(SPEEDS[0.1], KINDS[0].needs)

    def last(*nodes: Runner) -> float:
        schedule = Schedule(line, nodes)
        return max(due.done.seconds for name, _ in line if (due := schedule.due(name)) is not None)

    assert last(one) / last(one, one, one, one) == pytest.approx(4, rel=0.05)
    assert last(one) / last(one, fast) == pytest.approx(1 + 2.5, rel=0.1)


def test_of_two_idle_nodes_the_one_with_the_model_in_memory_takes_the_job() -> None:
    other, here = Runner(SPEEDS[0.25], KINDS[4].needs), Runner(SPEEDS[0.25], KINDS[0].needs)
    due = Schedule([("a", KINDS[0])], [other, here]).due("a")
    assert due == Schedule([("a", KINDS[0])], [here]).due("a")
    assert isinstance(due, Due)


def test_a_node_without_memory_for_a_job_takes_smaller_ones_only() -> None:
    small, large = replace(KINDS[0], memory_bytes=4), replace(KINDS[0], memory_bytes=12)
    nodes = [Runner(SPEEDS[0.25], memory_limit_bytes=8), Runner(SPEEDS[0.25], free=Cost(50.0, 0.0))]
    schedule = Schedule([("a", large), ("b", small)], nodes)
    begins = [due.begins.seconds for name in "ab" if (due := schedule.due(name)) is not None]
    assert begins == pytest.approx([50, 0], abs=0.1)
    assert Schedule([("a", large)], nodes[:1]).due("a") is None
