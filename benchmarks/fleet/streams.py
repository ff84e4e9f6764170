"""Event streams through a gateway that did not take the job, over kills of workers and of the gateway that sends."""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.fleet.processes import Fleet, Mistake, Process, runner
from benchmarks.fleet.speed import submit
from tests.support.postgres import Server

ENDS = ("complete", "error", "cancelled")


@dataclass
class Reader:
    """A client that reads a job's stream to its end, at the next gateway after each lost connection."""

    job_id: str
    gateways: list[Process]
    ids: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    progress: list[float] = field(default_factory=list)
    connections: int = 0

    def run(self, within_s: float) -> None:
        end = time.monotonic() + within_s
        while (not self.names or self.names[-1] not in ENDS) and time.monotonic() < end:
            with contextlib.suppress(httpx.HTTPError):
                self._read(self.gateways[self.connections % len(self.gateways)].url)
            self.connections += 1
            time.sleep(0.2)

    def _read(self, url: str) -> None:
        headers = {"Last-Event-ID": self.ids[-1]} if self.ids else {}
        path = f"{url}/api/v1/jobs/{self.job_id}/stream?images=false"
        with httpx.stream("GET", path, headers=headers, timeout=httpx.Timeout(10, read=30)) as answer:
            answer.raise_for_status()
            event: dict[str, str] = {}
            for line in answer.iter_lines():
                name, _, value = line.partition(":")
                if line:
                    event[name] = value.strip()
                    continue
                self._take(event)
                event = {}

    def _take(self, event: dict[str, str]) -> None:
        if "id" in event:
            self.ids.append(event["id"])
            self.names.append(event["event"])
        elif event.get("event") == "progress":
            self.progress.append(json.loads(event["data"])["progress"])


def streams(folder: Path, server: Server, *, jobs: int, seed: int = 1) -> dict[str, Any]:
    """Submit at one gateway, read at the other; the worker that draws is killed, or the gateway that is read.

    Raises: Mistake where a reader misses an event, gets one twice, or gets no progress.
    """
    chance = random.Random(seed)
    kills = {"worker": 0, "gateway": 0, "none": 0}
    mistakes, events, most = [], 0, 0
    with Fleet(folder, server, workers=2, script={"step_seconds": 0.1}) as fleet, httpx.Client(timeout=60) as http:
        for n in range(jobs):
            taker, other = fleet.gateways[n % 2], fleet.gateways[(n + 1) % 2]
            reader = Reader(submit(http, taker.url, steps=30), [other, taker])
            thread = threading.Thread(target=reader.run, args=(90,))
            thread.start()
            time.sleep(chance.uniform(0.5, 1.5))
            kind = ("worker", "gateway", "none", "worker")[n % 4]
            kills[kind] += 1
            if kind != "none":
                target = other if kind == "gateway" else runner(fleet, reader.job_id)
                target.kill()
                target.start()
            thread.join()
            fleet.wait_ready()
            stored = [str(row[0]) for row in fleet.query(IDS, (reader.job_id,))]
            events += len(stored)
            most = max(most, reader.connections)
            if reader.ids != stored:
                mistakes.append(f"{kind}: read {list(zip(reader.ids, reader.names, strict=True))}, stored {stored}")
            if not reader.progress:
                mistakes.append(f"{kind}: no progress of {reader.job_id}")
    if mistakes:
        raise Mistake("; ".join(mistakes[:5]))
    return {"jobs": jobs, "kills": kills, "events": events, "missing": 0, "twice": 0, "most connections": most}


IDS = "SELECT job_id || ':' || seq FROM events WHERE job_id = %s ORDER BY seq"
