"""Times of a fleet: from a submit to its start, from a cancel to its end, and of fixed work by 1, 2 and 4 workers."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from benchmarks.fleet.processes import Fleet, Mistake, until
from benchmarks.fleet.traffic import body
from tests.support.postgres import Server

CALM_LEASE_S = 20.0


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median, 99th percentile and maximum in milliseconds."""
    took = sorted(1000 * value for value in seconds)
    p99 = statistics.quantiles(took, n=100, method="inclusive")[98]
    return {"p50_ms": round(statistics.median(took), 1), "p99_ms": round(p99, 1), "max_ms": round(took[-1], 1)}


def middle(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """The median of each figure over the rounds."""
    return {name: round(statistics.median(figures[name] for figures in rounds), 2) for name in rounds[0]}


def submit(http: httpx.Client, url: str, **values: Any) -> str:
    answer = http.post(f"{url}/api/v1/generate", json=body("a red circle", 1, **values))
    return str(answer.raise_for_status().json()["job_id"])


def dispatch(folder: Path, server: Server, *, jobs: int, rounds: int, pause_s: float = 0.1) -> dict[str, Any]:
    """From a submit at one gateway to the start on an idle worker, by the database's clock, and to the answer."""
    starts, answers = [], []
    fleet = Fleet(folder, server, workers=1, lease_s=CALM_LEASE_S, script={"step_seconds": 0.0})
    with fleet, httpx.Client(timeout=60) as http:
        for _ in range(rounds):
            took, ids = [], []
            for n in range(jobs):
                began = time.perf_counter()
                ids.append(submit(http, fleet.gateways[n % 2].url, steps=1))
                took.append(time.perf_counter() - began)
                fleet.wait_ended(ids[-1:])
                time.sleep(pause_s)
            waits = fleet.query(
                "SELECT s.steady - q.steady FROM events q JOIN events s ON s.job_id = q.job_id AND s.seq = 2"
                " WHERE q.seq = 1 AND q.job_id = ANY(%s)",
                (ids,),
            )
            starts.append(spread([float(row[0]) for row in waits]))
            answers.append(spread(took))
    return {"submit to start": middle(starts), "rounds": starts, "submit to answer": middle(answers)}


def cancel(folder: Path, server: Server, *, jobs: int, step_s: float, seed: int = 1) -> dict[str, Any]:
    """From a cancel at another gateway, at a random moment of a step, until the worker has stopped drawing."""
    chance, took = random.Random(seed), []
    fleet = Fleet(folder, server, workers=1, lease_s=CALM_LEASE_S, script={"step_seconds": step_s})
    with fleet, httpx.Client(timeout=60) as http:
        for n in range(jobs):
            job_id = submit(http, fleet.gateways[n % 2].url, steps=100)
            _wait_running(fleet, job_id)
            time.sleep(chance.uniform(step_s, 2 * step_s))
            began = time.perf_counter()
            answer = http.delete(f"{fleet.gateways[(n + 1) % 2].url}/api/v1/jobs/{job_id}")
            took.append(time.perf_counter() - began)
            if (status := answer.json()["status"]) != "cancelled":
                raise Mistake(f"a cancelled job is {status}")
    figures = spread(took)
    late = sum(seconds > step_s + 0.1 for seconds in took)
    return {"cancel to end": figures, "step_ms": 1000 * step_s, "later than a step and 100 ms": f"{late} of {jobs}"}


def _wait_running(fleet: Fleet, job_id: str) -> None:
    state = "SELECT state FROM jobs WHERE id = %s"
    until(lambda: fleet.query(state, (job_id,))[0][0] == "running", 30, lambda: f"{job_id} does not start", 0.01)


def throughput(folder: Path, server: Server, *, jobs: int, steps: int, step_s: float) -> dict[str, Any]:
    """The same jobs by 1, 2 and 4 workers, whose steps are spent asleep, so that two cores suffice."""
    took: dict[int, float] = {}
    for workers in (1, 2, 4):
        fleet = Fleet(folder / str(workers), server, gateways=1, workers=workers, script={"step_seconds": step_s})
        with fleet, httpx.Client(timeout=60) as http:
            url = fleet.gateways[0].url
            http.post(f"{url}/api/v1/queue/pause").raise_for_status()
            ids = [submit(http, url, steps=steps) for _ in range(jobs)]
            http.post(f"{url}/api/v1/queue/resume").raise_for_status()
            fleet.wait_ended(ids, 600)
            times = fleet.query("SELECT min(started_steady), max(finished_steady), sum(attempt) FROM jobs")[0]
            took[workers] = times[1] - times[0]
            if times[2] != jobs:
                raise Mistake("a job was begun twice")
    return {
        "seconds": {str(workers): round(seconds, 2) for workers, seconds in took.items()},
        "speedup": {str(workers): round(took[1] / took[workers], 2) for workers in (2, 4)},
        "asleep seconds of the work": round(jobs * steps * step_s, 1),
    }
