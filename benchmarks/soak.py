"""Long runs of tests that CI runs in slices: python -m benchmarks.soak sdapi

Each soak starts a gateway of its own, prints what it counted, and ends with an error at the first mistake.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from benchmarks.hours import hours
from tests.service.test_kill_loops import kill_the_gateway
from tests.store.test_store_machine import StoreMachine
from tests.support.damage import strain
from tests.support.live import Live
from tests.support.sdapi import SMALL
from tests.support.sdapi_mutations import Sent, changed, outcome, send

TINY = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 1}
STORY = 12
"""Maximum number of operations in one sequence on the store."""


@dataclass(frozen=True, slots=True)
class Soak:
    """One kind of load: `run` gets a folder of its own, a number of repetitions, and a seed."""

    run: Callable[[Path, int, int], None]
    count: int
    about: str


def sdapi(folder: Path, count: int, number: int) -> None:
    """Valid requests with random changes, one after the other."""
    gateway = Live(folder).start()
    outcomes, paths, slowest = Counter[str](), Counter[str](), 0.0
    try:
        assert gateway.process is not None
        process = psutil.Process(gateway.process.pid)
        at_first = process.memory_info().rss
        with httpx.Client(base_url=f"{gateway.url}/sdapi/v1/") as client:

            @seed(number)
            @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            @given(changed())
            def strain(request: Sent) -> None:
                nonlocal slowest
                began = time.perf_counter()
                result = outcome(send(client, request))
                slowest = max(slowest, time.perf_counter() - began)
                outcomes[result] += 1
                paths[request.path] += 1

            strain()
            assert client.post("txt2img", json=SMALL, timeout=60).status_code == 200, "the next request does not work"
        grown = (process.memory_info().rss - at_first) / 2**20
    finally:
        gateway.stop()
    say("requests", outcomes.total())
    for name, many in [*sorted(outcomes.items()), *sorted(paths.items())]:
        say(f"  {name}", many)
    say("slowest answer, seconds", round(slowest, 2))
    say("gateway grown by, MB", round(grown, 1))


def store(folder: Path, count: int, number: int) -> None:
    """Sequences of a dozen operations on a store, each with its own database, compared with a model at every step."""
    told = Counter[str]()

    class Counted(StoreMachine):
        def check_invariants(self, *said: Any, **also: Any) -> None:
            told["operations"] += 1
            super().check_invariants(*said, **also)

        def teardown(self) -> None:
            told["stories"] += 1
            super().teardown()

    tempfile.tempdir = str(folder)
    seed(number)(Counted)
    run_state_machine_as_test(
        Counted,
        settings=settings(
            max_examples=count,
            stateful_step_count=STORY,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
    for name, many in told.items():
        say(name, many)


def jobs(folder: Path, count: int, number: int) -> None:
    """Small jobs through HTTP, some of them followed on a stream, while the gateway's memory and open files are
    checked.
    """
    gateway = Live(folder, config={"generation": {"previews": False}}).start()
    try:
        assert gateway.process is not None
        process = psutil.Process(gateway.process.pid)
        marks: list[tuple[int, int, int]] = []
        with httpx.Client(base_url=f"{gateway.url}/api/v1", timeout=60) as client:
            for n in range(1, count + 1):
                job_id = client.post("/generate", json={**TINY, "seed": number + n}).json()["job_id"]
                if n % 10 == 0:
                    with client.stream("GET", f"/jobs/{job_id}/stream?images=false") as answer:
                        assert b"event: complete" in answer.read()
                if n % (count // 10) == 0:
                    marks.append((n, process.memory_info().rss, process.num_fds()))
    finally:
        gateway.stop()
    for n, rss, fds in marks:
        say(f"MB, open files after {n} jobs", f"{rss / 2**20:.1f}, {fds}")
    (n0, rss0, _), (n1, rss1, _) = marks[len(marks) // 2 - 1], marks[-1]
    say("MB in 10,000 jobs, second half", round((rss1 - rss0) / 2**20 * 10_000 / (n1 - n0), 2))


def kills(folder: Path, count: int, number: int) -> None:
    """kill -9 of the gateway at random times, while a client submits jobs."""
    say("kills", count)
    say("jobs acknowledged, each drawn once", kill_the_gateway(folder, count, number))


def damage(folder: Path, count: int, number: int) -> None:
    """Flipped bytes, zeroed pages, truncated files and journals, altered rows: each ends in a start or a refusal."""
    began = time.perf_counter()
    for how, many in sorted(strain(folder, count, number).items()):
        say(how, many)
    say("rounds", count)
    say("seconds", round(time.perf_counter() - began))


SOAKS = {
    "damage": Soak(damage, 1000, "R-06: a damaged job database starts without its damaged records, or names its copy"),
    "jobs": Soak(jobs, 10_000, "R-20: small jobs one after the other: memory and open files stay as they are"),
    "kills": Soak(kills, 200, "R-02: kill -9 of the gateway: no acknowledged job is lost, none drawn twice"),
    "store": Soak(store, 100_000, "R-12: submits, claims, ends, cancels, moves, pauses and restarts in any order"),
    "sdapi": Soak(sdapi, 4000, "random changes of valid /sdapi/v1 requests: no 5xx of our own, no hang"),
}


def say(what: str, value: float | str) -> None:
    print(f"{what:40} {value:>10}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="soak", required=True)
    for name, soak in SOAKS.items():
        command = commands.add_parser(name, help=soak.about, description=soak.about)
        command.add_argument("--count", type=int, default=soak.count)
        command.add_argument("--seed", type=int, default=1)
    about = "R-20: three requests a second of all protocols: memory, open files, threads, WAL and log over time"
    long = commands.add_parser("hours", help=about, description=about)
    long.add_argument("--hours", type=float, default=24.0)
    long.add_argument("--minutes", type=float, help="instead of hours")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.soak == "hours":
            return hours(Path(folder), 60 * (arguments.minutes or 60 * arguments.hours), say)
        SOAKS[arguments.soak].run(Path(folder), arguments.count, arguments.seed)


if __name__ == "__main__":
    main()
