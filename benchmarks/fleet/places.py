"""Faults of places and clocks: a storage of images that is away, and machines whose clocks are an hour apart."""

from __future__ import annotations

import signal
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from benchmarks.fleet.faults import SLOW, acknowledged
from benchmarks.fleet.processes import Fleet, Mistake, runner, until
from benchmarks.fleet.traffic import Account, body
from benchmarks.fleet.verdict import figures, judge
from tests.support.postgres import Server
from tests.support.s3 import gate, new_bucket, settings_of, storage

HOUR_S = 3600.0


class BucketFleet(Fleet):
    """A fleet whose images are in a bucket of moto's, behind a gate."""

    def __init__(self, folder: Path, server: Server, endpoint: str, **options: Any) -> None:
        self._bucket = new_bucket()
        super().__init__(folder, server, config={"files": settings_of(endpoint, self._bucket)}, **options)

    def image_names(self) -> set[str]:
        listing = httpx.get(f"{storage()}/{self._bucket}?list-type=2&max-keys=1000").text
        keys = {part.partition("</Key>")[0] for part in listing.split("<Key>")[1:]}
        return {key.rpartition("/")[2] for key in keys if "/images/" in key}

    def image(self, name: str) -> bytes | None:
        answer = httpx.get(f"{storage()}/{self._bucket}/mflux/images/{name}")
        return answer.content if answer.status_code == 200 else None


def files_gone(folder: Path, server: Server, *, seconds: float, state: str = "closed") -> dict[str, Any]:
    """The bucket is away while images are filed: the jobs end when it is back, none is lost."""
    account = Account()
    with gate() as way:
        fleet = BucketFleet(folder, server, way.url, workers=2, script=SLOW)
        with fleet, httpx.Client(timeout=60) as http:
            for n in range(4):
                acknowledged(http, fleet, account, n)
            running = "SELECT count(*) FROM jobs WHERE state = 'running'"
            until(lambda: fleet.query(running)[0][0] == 2, 60, lambda: "the jobs do not start")
            way.set(state)
            refused, began = 0, time.monotonic()
            while time.monotonic() < began + seconds:
                answer = http.post(f"{fleet.gateways[0].url}/api/v1/generate", json=body("a red circle", 1))
                if answer.status_code == 200:
                    account.acknowledge(answer.json()["job_id"], "a red circle", 1)
                elif answer.status_code == 503 and "retry-after" in answer.headers:
                    refused += 1
                else:
                    raise Mistake(f"a submit was answered {answer.status_code}, {answer.text[:200]}")
                time.sleep(1.0)
            ended = fleet.query("SELECT count(*) FROM jobs WHERE state = 'succeeded'")[0][0]
            way.set("open")
            verdict = judge(fleet, account)
    return {"refusals": refused, "ended while it was away": ended, **figures(verdict)}


def clocks(folder: Path, server: Server, *, jobs: int) -> dict[str, Any]:
    """A gateway and a worker an hour ahead, a worker an hour behind: order, leases, dates and forecasts agree.

    Raises: Mistake.
    """
    account = Account()
    ahead = {"gateway-2": HOUR_S, "worker-1": HOUR_S, "worker-2": -HOUR_S}
    with Fleet(folder, server, workers=2, script=SLOW, ahead_s=ahead) as fleet, httpx.Client(timeout=60) as http:
        first, second = (gateway.url for gateway in fleet.gateways)
        http.post(f"{first}/api/v1/queue/pause").raise_for_status()
        ids = [acknowledged(http, fleet, account, n) for n in range(jobs)]  # by turns at both gateways
        orders = [_whole_queue(http, url, jobs) for url in (first, second)]
        http.post(f"{second}/api/v1/queue/resume").raise_for_status()
        fleet.wait_ended(ids)
        started = [row[0] for row in fleet.query("SELECT id FROM jobs ORDER BY started_steady")]
        etas = [
            http.get(f"{url}/api/v1/jobs/{acknowledged(http, fleet, account, n)}").json()
            for n, url in enumerate((first, second))
        ]
        if not orders[0] == orders[1] == ids or started != ids:
            raise Mistake(f"submitted {ids}, listed {orders}, started {started}")
        fleet.wait_ended(list(account.jobs))
        stopped = acknowledged(http, fleet, account, 0)
        silent = runner(fleet, stopped)
        time.sleep(0.5)
        silent.signal(signal.SIGSTOP)
        began = time.monotonic()
        taken = "SELECT attempt FROM jobs WHERE id = %s"
        until(lambda: fleet.query(taken, (stopped,))[0][0] == 2, 60, lambda: "the job is not taken over")
        over_s = time.monotonic() - began
        silent.signal(signal.SIGCONT)
        verdict = judge(fleet, account)
        dates = [
            datetime.fromisoformat(http.get(f"{url}/api/v1/jobs/{stopped}?images=false").json()["created_at"])
            for url in (first, second)
        ]
        apart_s = max(abs(date.timestamp() - time.time()) for date in dates)
        spans = fleet.query("SELECT max(finished_at - created_at), min(finished_at - started_at) FROM jobs")[0]
    expected = [float(job["eta_seconds"]) for job in etas if job.get("eta_seconds") is not None]
    if apart_s > HOUR_S / 2 or spans[0] > HOUR_S / 2 or spans[1] < 0 or any(not 0 <= s < 60 for s in expected):
        verdict.mistakes.append(f"dates {dates}, spans {spans}, forecasts {expected}")
    if verdict.requeued != {"lease_expired": 1}:
        verdict.mistakes.append(f"jobs were taken over without need: {verdict.requeued}")
    return {"taken over after s": round(over_s, 1), "forecasts s": expected, **figures(verdict)}


def _whole_queue(http: httpx.Client, url: str, count: int) -> list[str]:
    """The waiting jobs of this client in the order in which a gateway lists them, once it lists them all."""

    def listed() -> list[str]:
        ids = [job["job_id"] for job in http.get(f"{url}/api/v1/queue").raise_for_status().json()["queued"]]
        return ids if len(ids) == count else []

    return until(listed, 10, lambda: "a gateway lists fewer jobs")
