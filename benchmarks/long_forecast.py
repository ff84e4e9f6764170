"""Forecasts of ten thousand waiting jobs by one node and by several: a part of benchmarks.scale."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from gateway.fleet.node import Node, SeenNode
from gateway.forecast import Forecaster
from gateway.jobs.facts import Queued
from gateway.jobs.job import Job, Priority
from gateway.jobs.order import Standing, Waiting
from tests.support import a_job
from tests.support.forecast import LARGE, SMALL, SPECS, a_picture

NODES = (1, 4, 10)
TIMES = 15


def forecasts(waiting: int) -> None:
    """Print the milliseconds of a forecast right after the queue changed, and of one more of the same queue."""
    print(f"forecasts of {waiting} waiting jobs of eight kinds: of the first, of the last, again of the last")
    kinds = [(px, steps, model) for px in (256, 512) for steps in (4, 8) for model in (SMALL, LARGE)]
    jobs = [Job.of(a_job(plan=a_picture(*kinds[n % len(kinds)])), n + 1).apply(Queued(), 0.0) for n in range(waiting)]
    standing = Standing(Priority.NORMAL, 0.0, 0)
    line = [Waiting(job.id, "me", "engine", job.plan.model, standing) for job in jobs]
    for count in NODES:
        seen = tuple(SeenNode(_node(n), 1.0) for n in range(count)) if count > 1 else ()
        forecaster = Forecaster(SPECS.get, lambda: None, nodes=lambda seen=seen: seen)  # type: ignore[misc]
        for job in jobs:
            forecaster.waits(job)
        forecaster.of(jobs[0].id, list(line))  # reads the reports
        first = _median(lambda queue, f=forecaster: f.of(jobs[0].id, queue), line)  # type: ignore[misc]
        last = _median(lambda queue, f=forecaster: f.of(jobs[-1].id, queue), line)  # type: ignore[misc]
        again = _median(lambda queue, f=forecaster: f.of(jobs[-1].id, queue), line, is_same=True)  # type: ignore[misc]
        print(f"  {count:2} nodes: {first:7.3f} ms, {last:7.2f} ms, {again:7.3f} ms")


def _median(work: Callable[[list[Waiting]], object], line: list[Waiting], *, is_same: bool = False) -> float:
    """Median milliseconds, each time with another object for the queue, as after a change."""
    took = []
    for _ in range(TIMES):
        queue = line if is_same else list(line)
        if is_same:
            work(queue)
        began = time.perf_counter()
        work(queue)
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took)


def _node(n: int) -> Node:
    more = {"lanes": ("engine",), "models": (SMALL, LARGE), "loaded_model": (SMALL, LARGE)[n % 2], "state": "ready"}
    return Node(id=f"id {n}", name=f"node {n}", kind="worker", version="1", **more)  # type: ignore[arg-type]
