"""kill -9 of a random worker, gateway or PostgreSQL, again and again, under traffic of all protocols."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.fleet.processes import Fleet, Mistake
from benchmarks.fleet.traffic import Traffic
from benchmarks.fleet.verdict import figures, judge
from tests.support.postgres import Server


def kills(
    folder: Path,
    server: Server,
    *,
    rounds: int,
    minutes: float = 60.0,
    gateways: int = 2,
    workers: int = 4,
    pause_s: float = 3.0,
    seed: int,
) -> dict[str, Any]:
    """Kill so often, or for so long; returns the figures. Raises: Mistake.

    What has ended is started again at once, or some kills later. `pause_s` is the longest time between two kills.
    """
    chance = random.Random(seed)
    killed = Counter[str]()
    end = time.monotonic() + 60 * minutes
    with Fleet(folder, server, gateways=gateways, workers=workers) as fleet:
        with Traffic([gateway.url for gateway in fleet.gateways], seed=seed) as traffic:
            time.sleep(min(2.0, pause_s))
            for number in range(1, rounds + 1):
                if time.monotonic() > end:
                    break
                what = chance.choice(("worker", "gateway", "PostgreSQL"))
                if what == "PostgreSQL":
                    server.kill_all()
                    time.sleep(chance.uniform(0.0, 1.0))
                    server.start()
                else:
                    chance.choice(fleet.workers if what == "worker" else fleet.gateways).kill()
                killed[what] += 1
                for process in fleet.all:  # as launchd or systemd does, also after a start without a database
                    if not process.is_alive and chance.random() < 0.7:
                        process.start()
                time.sleep(chance.uniform(0.2, pause_s))
                if number % 10 == 0:
                    jobs = len(traffic.account.jobs)
                    print(f"{number} kills, {jobs} jobs acknowledged", file=sys.stderr, flush=True)
            for process in fleet.all:
                if not process.is_alive:
                    process.start()
            fleet.wait_ready()
            time.sleep(min(2.0, pause_s))
        verdict = judge(fleet, traffic.account)
        for process in fleet.all:
            if not process.is_alive:
                raise Mistake(f"{process.name} has ended by itself: {process.log()[-2000:]}")
        tracebacks = {process.name: process.log().count("Traceback") for process in fleet.all}
    return {"kills": dict(killed), "tracebacks in logs": sum(tracebacks.values()), **figures(verdict)}
