"""Forecasts where several processes share the queue: each with its own costs, memory and running job."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.protocol import Drawn, ModelLoaded, StepDone, Succeeded
from gateway.fleet.node import Node, SeenNode
from gateway.forecast import Forecaster
from gateway.forecast.costs import Costs
from gateway.forecast.work import work_of
from gateway.jobs.facts import ImageDone, Queued, Started
from gateway.jobs.job import Job, Priority
from gateway.jobs.order import Standing, Waiting
from tests.support import a_job
from tests.support.forecast import LARGE, SMALL, SPECS, Machine, a_picture

approx = pytest.approx


def learned(seconds: float, *models: str) -> str:
    """Costs of a machine whose images take about this long, and its loads ten times that."""
    costs = Costs(SPECS.get)
    for model in models or (SMALL, LARGE):
        work = work_of(a_picture(model=model), SPECS[model])
        for _ in range(4):
            costs.learn("step", work, seconds / 4)
            for part in ("head", "tail"):
                costs.learn(part, work, 0.0)  # type: ignore[arg-type]
            costs.learn("load", work, 10 * seconds)
            costs.learn("file", work, 0.0)
            costs.learn("gap", None, 0.0)
    return json.dumps(costs.to_json())


def a_node(name: str, seconds: float = 1.0, **more: Any) -> Node:
    fields: dict[str, Any] = {
        "lanes": ("engine",),
        "models": (SMALL, LARGE),
        "loaded_model": SMALL,
        "state": "ready",
        "costs": learned(seconds),
    }
    return Node(id=f"id-{name}", name=name, kind="worker", version="1", **(fields | more))


@dataclass
class Site:
    """One gateway's forecaster, with the reports of the others; the clock is ours."""

    seen: tuple[SeenNode, ...] = ()
    own: set[str] = field(default_factory=set)
    now: float = 0.0
    loaded: str | None = None
    line: list[Job] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.forecaster = Forecaster(
            SPECS.get,
            lambda: self.loaded,
            lambda: self.now,
            own_id=lambda: "own",
            nodes=lambda: self.seen,
            runs=self.own.__contains__,
            needed_bytes=lambda plan, spec: int(spec.size_gb * 1e9),
        )

    def report(self, *nodes: Node, **seen: Any) -> None:
        self.seen = tuple(SeenNode(node, **{"seen_s": 0.5, **seen}) for node in nodes)

    def order(self) -> list[Waiting]:
        standing = Standing(Priority.NORMAL, 0.0, 0)
        return [Waiting(job.id, "me", "engine", job.plan.model, standing) for job in self.line]

    def submit(self, **plan: Any) -> Job:
        job = Job.of(a_job(plan=a_picture(**plan)), len(self.line) + 1).apply(Queued(), 0.0)
        self.line.append(job)
        self.forecaster.waits(job)
        return job

    def begin(self, job: Job) -> Job:
        self.line.remove(job)
        job = job.apply(Started(attempt=1), 0.0)
        self.forecaster.begins(job)
        return job

    def waits(self, job: Job) -> float | None:
        found = self.forecaster.of(job.id, self.order())
        return None if found is None else found.wait_s


OWN = Node(id="own", name="gate", kind="gateway", version="1", lanes=(), state="ready")


def test_jobs_are_given_to_the_node_that_is_free_first_by_its_own_costs() -> None:
    site = Site()
    site.report(OWN, a_node("fast", 1.0), a_node("slow", 3.0))
    waits = [site.waits(site.submit()) for _ in range(6)]
    assert waits == approx([0, 0, 1, 2, 3, 3], abs=0.3)


def test_a_node_runs_only_models_on_its_disk_that_fit_and_counts_its_own_load() -> None:
    site = Site()
    site.report(OWN, a_node("small", models=(SMALL,)), a_node("full", 2.0, loaded_model=LARGE))
    first, large, more = site.submit(), site.submit(model=LARGE), site.submit(model=LARGE)
    assert [site.waits(job) for job in (first, large, more)] == approx([0, 0, 2], abs=0.3)
    small = site.submit()
    assert site.waits(small) == approx(1, abs=0.3)
    site.report(OWN, a_node("tight", memory_limit_bytes=10**9))
    assert site.waits(first) is None
    assert site.forecaster.is_waiting(first.id)


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"state": "draining"}, {}),
        ({"state": "down"}, {}),
        ({"models": ()}, {}),
        ({}, {"is_draining": True}),
        ({}, {"seen_s": 30.0}),
    ],
)
def test_nodes_that_drain_are_down_silent_or_lack_the_model_take_nothing(
    change: dict[str, Any], seen: dict[str, Any]
) -> None:
    site = Site()
    site.report(OWN, a_node("one", **change), **seen)
    job = site.submit()
    assert site.waits(job) is None
    if not seen:
        site.report(OWN, a_node("one", **change), a_node("two"))
        assert site.waits(job) == approx(0, abs=0.1)


def test_this_gateway_takes_jobs_beside_the_others_unless_its_engine_is_down_or_it_drains() -> None:
    own = replace(OWN, lanes=("engine",), models=(SMALL,))
    site = Site(loaded=SMALL)
    site.forecaster.read_text(
        json.dumps({"version": 1, "costs": json.loads(learned(1.0)), "accuracy": _accuracy(site.forecaster)})
    )
    site.report(own, a_node("other", 1.0))
    jobs = [site.submit() for _ in range(4)]
    both = [site.waits(job) for job in jobs]
    site.forecaster.is_down = lambda: True
    alone = [site.waits(job) for job in jobs]
    assert alone == approx([0, 1, 2, 3], abs=0.3)
    site.forecaster.is_down = lambda: False
    assert [site.waits(job) for job in jobs] == both
    site.seen = (SeenNode(own, 0.0, is_draining=True), site.seen[1])
    assert [site.waits(job) for job in jobs] == approx(alone, abs=0.1)
    assert both[3] is not None
    assert both[3] < 3


def _accuracy(forecaster: Forecaster) -> object:
    return json.loads(forecaster.to_text())["accuracy"]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([256, 512, 1024]), st.integers(1, 6), st.sampled_from([SMALL, LARGE])), max_size=9
    ),
    st.booleans(),
    st.dictionaries(st.sampled_from([LARGE]), st.floats(0.0, 60.0), max_size=1),
)
def test_one_worker_elsewhere_has_the_forecasts_of_a_gateway_alone(
    plans: list[tuple[int, int, str]], is_running: bool, due_in: dict[str, float]
) -> None:
    alone = Machine()
    for model in (SMALL, LARGE, SMALL):
        alone.draw(a_picture(model=model))
    alone.forecaster.read_text(alone.forecaster.to_text())  # rounds what was learned, as a report does
    alone.forecaster.due_in = lambda: due_in
    site = Site()
    site.forecaster.read_text(
        json.dumps({"version": 1, "costs": {}, "accuracy": json.loads(alone.forecaster.to_text())["accuracy"]})
    )
    site.forecaster.due_in = lambda: due_in
    models = (SMALL,) if due_in else (SMALL, LARGE)
    node = a_node("one", costs=alone.forecaster.costs_text, models=models)
    site.report(OWN, node)
    if is_running:
        alone.submit(a_picture())
        running = alone.begin()
        site.forecaster.begins(running)
        site.report(OWN, replace(node, jobs=(running.id,)))
        for forecaster in (alone.forecaster, site.forecaster):
            forecaster.on_fact(running.id, StepDone(image=0, step=1, steps=4, seconds=0.6))
    for plan in plans:
        job = alone.submit(a_picture(*plan))
        site.line.append(job)
        site.forecaster.waits(job)
    for job in site.line:
        here, there = alone.forecast(job), site.forecaster.of(job.id, site.order())
        assert there is not None
        for name in ("wait_s", "expected_s", "finish_low_s", "finish_high_s"):
            assert getattr(there, name) == approx(getattr(here, name), rel=1e-9, abs=1e-9), name


def test_a_job_that_runs_elsewhere_has_its_forecast_by_that_nodes_costs_and_steps() -> None:
    site = Site()
    site.report(OWN, a_node("one", 8.0))
    running, behind = site.submit(), site.submit()
    job = site.begin(running)
    claimed = site.waits(behind)
    site.report(OWN, a_node("one", 8.0, jobs=(job.id,)))
    assert claimed == approx(8, abs=0.3)
    assert site.waits(behind) == approx(8, abs=0.3)
    left = []
    for step in range(1, 4):
        site.now += 2.0
        fact = StepDone(image=0, step=step, steps=4, seconds=2.0)
        left.append(site.forecaster.on_fact(job.id, fact))
        assert site.waits(behind) == approx(8 - site.now, abs=0.5)
    assert left == approx([6, 4, 2], abs=0.5)
    done = ImageDone(image=0, seed=0, file="", width_px=1, height_px=1, drawn_px=(1, 1), seconds=1)
    site.forecaster.on_fact(job.id, done)
    assert site.waits(behind) == approx(0, abs=0.1)
    site.forecaster.ends(job.apply(Succeeded(), 0.0))
    assert site.forecaster.of(job.id, site.order()) is None


def test_only_this_processs_jobs_teach_its_costs() -> None:
    site = Site()
    site.report(replace(OWN, lanes=("engine",), models=(SMALL,)), a_node("one"))
    before = site.forecaster.version

    def draw(job: Job) -> None:
        for step in range(1, 5):
            site.now += 1.0
            fact = StepDone(image=0, step=step, steps=4, seconds=1.0)
            site.forecaster.on_fact(job.id, fact)
        drawn = Drawn(image=0, seed=0, spool="", width_px=1, height_px=1, drawn_px=(1, 1), seconds=1)
        if job.id in site.own:
            site.forecaster.on_fact(job.id, drawn)
        site.forecaster.on_fact(
            job.id, ImageDone(image=0, seed=0, file="", width_px=1, height_px=1, drawn_px=(1, 1), seconds=1)
        )
        site.forecaster.ends(job.apply(Succeeded(), 0.0))

    foreign = site.begin(site.submit())
    site.forecaster.on_fact(foreign.id, ModelLoaded(model=SMALL, seconds=9.0))
    draw(foreign)
    assert site.forecaster.version == before
    assert json.loads(site.forecaster.costs_text) == {}
    own = site.begin(site.submit())
    site.own.add(own.id)  # its lane has it a moment after the claim
    draw(own)
    assert site.forecaster.version[0] > before[0]
    assert site.forecaster.image_s(SMALL) is not None
    assert json.loads(site.forecaster.costs_text)


def test_a_node_with_unreadable_costs_has_the_first_guesses() -> None:
    site = Site()
    site.report(OWN, a_node("one", costs='{"step": 3}'))
    job = site.submit()
    assert site.waits(job) == approx(0, abs=0.1)
    found = site.forecaster.of(job.id, site.order())
    assert found is not None
    assert found.expected_s > 0.1


def test_room_in_the_queue_is_when_the_first_node_is_free() -> None:
    site = Site()
    site.report(OWN, a_node("one", 4.0), a_node("two", 8.0))
    running = [site.begin(site.submit()) for _ in range(2)]
    site.report(OWN, a_node("one", 4.0, jobs=(running[0].id,)), a_node("two", 8.0, jobs=(running[1].id,)))
    waiting = site.submit()
    assert site.forecaster.room_s("engine", None, site.order()) == approx(4, abs=0.3)
    assert site.forecaster.room_s("engine", waiting.id, site.order()) == approx(4, abs=0.3)


def test_a_download_is_waited_for_only_where_no_node_has_the_model() -> None:
    site = Site()
    site.forecaster.due_in = lambda: {LARGE: 100.0}
    site.report(OWN, a_node("one", models=(SMALL,)))
    job = site.submit(model=LARGE)
    assert site.waits(job) == approx(100, abs=1)
    site.report(OWN, a_node("one", models=(SMALL,)), a_node("two"))
    assert site.waits(job) == approx(0, abs=0.3)


def test_seconds_of_an_image_are_those_that_a_node_has_learned() -> None:
    site = Site()
    node = a_node("one", 2.0)
    small, usual = 512**2, SPECS[SMALL].default_px ** 2
    assert site.forecaster.image_s(SMALL, node) == approx(2.0 * usual / small, rel=0.1)
    assert site.forecaster.image_s(SMALL, a_node("new", costs="")) is None
    assert site.forecaster.image_s("seedvr2-3b", node) is None
    assert site.forecaster.image_s("unknown", node) is None
