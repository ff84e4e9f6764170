"""When jobs are expected to begin and to be done, one after the other. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from math import hypot

from gateway.forecast.costs import Costs
from gateway.forecast.series import Cost
from gateway.forecast.work import Work


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is expected of a job that waits or runs, in seconds from the moment of asking."""

    expected_s: float
    """Until it is done."""
    wait_s: float
    """Until it begins; 0 where it runs."""
    finish_low_s: float
    finish_high_s: float
    """It is done between the two in nine cases of ten."""
    is_paused: bool = False
    """Nothing begins now: what waits is counted from the moment that the queue goes on."""


@dataclass(frozen=True, slots=True)
class Due:
    """When a waiting job begins and is done, counted from when the running one is."""

    begins: Cost
    done: Cost


def along(
    line: Iterable[tuple[str, Work]],
    costs: Costs,
    loaded: tuple[str, int | None] | None,
    ready_in: Mapping[str, float] | None = None,
) -> dict[str, Due]:
    """The jobs of a lane in their order with the loads between them; `loaded` is in memory before the first.

    `ready_in` says after how many seconds a model, or what a job by its id needs besides, is here: jobs are passed over
    until then.
    """
    due: dict[str, Due] = {}
    gap = costs.of("gap").seconds
    at, variance = 0.0, 0.0
    for job_id, work, not_before in _served(line, costs, ready_in or {}):
        at = max(at + gap, not_before)
        begins = Cost(at, variance**0.5)
        run = costs.run(work)
        at, variance = at + run.seconds, variance + run.spread**2
        if work.needs is not None and work.needs != loaded:
            load, loaded = costs.of("load", work), work.needs
            at, variance = at + load.seconds, variance + load.spread**2
        filed = filing(costs, work)
        due[job_id] = Due(begins, Cost(at + filed.seconds, hypot(variance**0.5, filed.spread)))
    return due


def _served(
    line: Iterable[tuple[str, Work]], costs: Costs, ready_in: Mapping[str, float]
) -> Iterable[tuple[str, Work, float]]:
    """The jobs as they will be claimed, each with when its model is here; loads are left out of the count."""
    if not ready_in:
        return ((job_id, work, 0.0) for job_id, work in line)
    jobs = list(line)
    ready = [max(ready_in.get(work.model, 0.0), ready_in.get(job_id, 0.0)) for job_id, work in jobs]
    absent = [(at, place) for place, at in enumerate(ready) if at > 0]
    present = [place for place, at in enumerate(ready) if at <= 0]
    heapify(absent)
    served, at = [], 0.0
    while present or absent:
        if not present:
            at = max(at, absent[0][0])
        while absent and absent[0][0] <= at:
            heappush(present, heappop(absent)[1])
        place = heappop(present)
        job_id, work = jobs[place]
        served.append((job_id, work, ready[place]))
        at += costs.run(work).seconds
    return served


def filing(costs: Costs, work: Work) -> Cost:
    """From a job's last pixel to its end; its lane goes on meanwhile."""
    return costs.of("file", work) if work.lane == "engine" and work.pictures > 0 else Cost(0.0, 0.0)
