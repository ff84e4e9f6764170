"""When jobs are expected to begin and to be done, one after the other. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
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


def along(line: Iterable[tuple[str, Work]], costs: Costs, loaded: tuple[str, int | None] | None) -> dict[str, Due]:
    """The jobs of a lane in their order with the loads between them; `loaded` is in memory before the first."""
    due: dict[str, Due] = {}
    gap = costs.of("gap").seconds
    at, variance = 0.0, 0.0
    for job_id, work in line:
        at += gap
        begins = Cost(at, variance**0.5)
        run = costs.run(work)
        at, variance = at + run.seconds, variance + run.spread**2
        if work.needs is not None and work.needs != loaded:
            load, loaded = costs.of("load", work), work.needs
            at, variance = at + load.seconds, variance + load.spread**2
        filed = filing(costs, work)
        due[job_id] = Due(begins, Cost(at + filed.seconds, hypot(variance**0.5, filed.spread)))
    return due


def filing(costs: Costs, work: Work) -> Cost:
    """From a job's last pixel to its end; its lane goes on meanwhile."""
    return costs.of("file", work) if work.lane == "engine" and work.pictures > 0 else Cost(0.0, 0.0)
