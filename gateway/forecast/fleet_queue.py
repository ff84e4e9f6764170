"""Queues over several nodes: who takes jobs of a lane, and the computed queue while nothing has changed. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from gateway.forecast.other_nodes import OtherNodes
from gateway.forecast.schedule import NOW, Runner, Schedule
from gateway.forecast.series import Cost
from gateway.forecast.trace import Trace
from gateway.forecast.work import Work
from gateway.jobs.order import Waiting
from gateway.jobs.plans import Lane

ROUNDED_S = 0.5
"""The times at which nodes are free are rounded to this against each other: a computed queue is valid for that long."""


@dataclass(frozen=True, slots=True)
class _Walk:
    line: Sequence[Waiting]
    follows: object
    schedule: Schedule


class FleetQueue:
    """The computed queues of all lanes."""

    def __init__(self) -> None:
        self._walks: dict[Lane, _Walk] = {}

    def clear(self) -> None:
        self._walks.clear()

    def due(
        self,
        job_id: str,
        work: Work,
        line: Sequence[Waiting],
        works: Callable[[], Iterable[tuple[str, Work]]],
        runners: Sequence[Runner],
        due_in: Mapping[str, float],
    ) -> tuple[Cost, Cost] | None:
        """Seconds from now until a job starts and is done; None where none of the runners may run it.

        `works` are those of the jobs in `line`, `due_in` the seconds until downloads are complete.
        """
        if not runners:
            return None
        first_s = min(runner.free.seconds for runner in runners)
        missing = {
            name: at for name, at in due_in.items() if not any(one.models and name in one.models for one in runners)
        }
        ready_in = counted_from(missing, first_s)
        rounded = [_counted_from(first_s, runner, frozenset(missing)) for runner in runners]
        follows = [(one.version, one.free.seconds, one.loaded, one.models) for one in rounded], ready_in
        walk = self._walks.get(work.lane)
        if walk is None or walk.line is not line or walk.follows != follows:
            walk = self._walks[work.lane] = _Walk(line, follows, Schedule(works(), rounded, ready_in))
        # A claimed job leaves the line a moment before its trace begins.
        due = walk.schedule.due(job_id) or Schedule([(job_id, work)], rounded).due(job_id)
        if due is None:
            return None
        return Cost(first_s + due.begins.seconds, due.begins.spread), Cost(first_s + due.done.seconds, due.done.spread)


def runners_of(
    others: OtherNodes, lane: Lane, own: Sequence[Runner], foreign: Mapping[str, Trace], now: float
) -> list[Runner]:
    """The nodes that take jobs of a lane; `foreign` are its jobs that run elsewhere, in the order of their starts."""
    runners, newest, unknown = list(own), dict[str, Trace](), list[Trace]()
    for job_id, trace in foreign.items():
        if (node := others.node_of(job_id)) is None:
            unknown.append(trace)
        else:
            newest[node.id] = trace
    for node in others.of(lane):
        costs, running = others.costs(node), newest.get(node.id)
        free, loaded = NOW, others.loaded(node)
        if running is not None:
            free, loaded = running.left(costs, now), running.work.needs
        elif node.state == "starting":
            free = costs.of("start")
        models, limit = (others.models(node.id), node.memory_limit_bytes) if lane == "engine" else (None, None)
        runners.append(Runner(costs, loaded, free, models, limit, version=(node.id, node.costs)))
    for trace in unknown:  # claimed since the newest reports, by a node that was free
        idle = (at for at, one in enumerate(runners) if one.free == NOW and one.may_run(trace.work))
        if (at := next(idle, None)) is not None:
            free = trace.left(runners[at].costs, now)
            runners[at] = replace(runners[at], free=free, loaded=trace.work.needs)
    return runners


def counted_from(due_in: Mapping[str, float], free_s: float) -> dict[str, float]:
    """Whole seconds from `free_s` on, so that a computed queue stays valid for that long."""
    return {waits: float(max(0, round(seconds - free_s))) for waits, seconds in due_in.items()}


def _counted_from(first_s: float, runner: Runner, missing: frozenset[str]) -> Runner:
    """A runner that is free from `first_s` on, rounded; it may run the jobs of models that are downloaded."""
    after_s = round((runner.free.seconds - first_s) / ROUNDED_S) * ROUNDED_S
    models = runner.models | missing if runner.models is not None and missing else runner.models
    return replace(runner, free=Cost(after_s, runner.free.spread), models=models)
