"""Faults made on purpose: a stopped worker, one that is cut off, and a database or a storage that is away."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from benchmarks.fleet.processes import Fleet, Mistake, runner, until, wait_attempt
from benchmarks.fleet.proxy import Proxy, State
from benchmarks.fleet.traffic import PROMPTS, SEEDS, Account, Traffic, body
from benchmarks.fleet.verdict import Verdict, figures, judge
from tests.support.postgres import Server

SLOW: Mapping[str, Any] = {"step_seconds": 0.1}


def stopped(folder: Path, server: Server, *, rounds: int, lease_s: float = 2.0) -> dict[str, Any]:
    """SIGSTOP of a worker with a job, past its lease, and SIGCONT: another draws the job, which is filed once."""
    account = Account()
    with Fleet(folder, server, workers=2, lease_s=lease_s, script=SLOW) as fleet, httpx.Client(timeout=60) as http:
        for n in range(rounds):
            job_id = acknowledged(http, fleet, account, n)
            worker = runner(fleet, job_id)
            worker.signal(signal.SIGSTOP)
            wait_attempt(fleet, job_id, 2)
            time.sleep((n % 3) * 0.5)
            worker.signal(signal.SIGCONT)
            fleet.wait_ended([job_id])
            until(lambda worker=worker: worker.name in fleet.ready_names(), 30, lambda: "the worker is lost")  # type: ignore[misc]
        _next_job(http, fleet, account, rounds)
        verdict = judge(fleet, account)
    return _with_fences(verdict, rounds, "lease_expired")


def partition(
    folder: Path, server: Server, *, rounds: int, lease_s: float = 2.0, states: tuple[State, ...] = ("cut", "silent")
) -> dict[str, Any]:
    """A worker with a job loses the database, while the engine draws on: another draws the job, which is filed once."""
    account = Account()
    with Proxy(server.folder) as proxy:
        fleet = Fleet(folder, server, workers=2, lease_s=lease_s, script=SLOW)
        fleet.reach("worker-1", proxy.url(fleet.url))
        with fleet, httpx.Client(timeout=60) as http:
            other = fleet.workers[1]
            for n in range(rounds):
                other.signal(signal.SIGSTOP)
                job_id = acknowledged(http, fleet, account, n)
                wait_attempt(fleet, job_id, 1)
                proxy.become(states[n % len(states)])
                other.signal(signal.SIGCONT)
                wait_attempt(fleet, job_id, 2)
                fleet.wait_ended([job_id])
                proxy.become("open")
                fleet.wait_ready()
            _next_job(http, fleet, account, rounds)
            verdict = judge(fleet, account)
    return _with_fences(verdict, rounds, "lease_expired")


def database_gone(folder: Path, server: Server, *, seconds: float) -> dict[str, Any]:
    """PostgreSQL is away for so long under traffic: submits are refused with Retry-After, running images are filed."""
    with Fleet(folder, server, script=SLOW) as fleet, httpx.Client(timeout=60) as http:
        account = Account()
        running = [acknowledged(http, fleet, account, n, steps=40) for n in range(4)]
        until(lambda: _states(fleet, running) == {"running"}, 60, lambda: "the jobs do not start")
        with Traffic([gateway.url for gateway in fleet.gateways], account=account):
            time.sleep(1)
            server.kill_all()
            began, refusals, slowest = time.monotonic(), 0, 0.0
            while time.monotonic() < began + seconds:
                sent = time.monotonic()
                answer = http.post(f"{fleet.gateways[refusals % 2].url}/api/v1/generate", json=body("a red circle", 1))
                slowest = max(slowest, time.monotonic() - sent)
                if answer.status_code != 503 or "retry-after" not in answer.headers:
                    raise Mistake(f"a submit was answered {answer.status_code}, {answer.text[:200]}")
                for gateway in fleet.gateways:
                    http.get(f"{gateway.url}/health/live").raise_for_status()
                refusals += 1
                time.sleep(0.5)
            server.start()
            fleet.wait_ended(running)
            fleet.wait_ready()
            again = time.monotonic()
            until(lambda: _answer(http, fleet, account) == 200, 30, lambda: "submits are refused for 30 s more")
            back_s = time.monotonic() - again
        verdict = judge(fleet, account)
        attempts = [row[0] for row in fleet.query("SELECT attempt FROM jobs WHERE id = ANY(%s)", (running,))]
    return {
        "refusals with Retry-After": refusals,
        "slowest refusal, s": round(slowest, 2),
        "accepted again after s": round(back_s, 2),
        "running jobs filed without a second attempt": f"{attempts.count(1)} of {len(attempts)}",
        **figures(verdict),
    }


def _answer(http: httpx.Client, fleet: Fleet, account: Account) -> int:
    answer = http.post(f"{fleet.gateways[0].url}/api/v1/generate", json=body(PROMPTS[0], 0))
    if answer.status_code == 200:
        account.acknowledge(answer.json()["job_id"], PROMPTS[0], 0)
    return answer.status_code


def acknowledged(http: httpx.Client, fleet: Fleet, account: Account, n: int, *, steps: int = 10) -> str:
    """Submit a job of two images, each of so many slow steps; the account knows it."""
    prompt, seed = PROMPTS[n % len(PROMPTS)], n % SEEDS
    job = body(prompt, seed, steps=steps, num_images=2)
    job_id = str(
        http.post(f"{fleet.gateways[n % 2].url}/api/v1/generate", json=job).raise_for_status().json()["job_id"]
    )
    account.acknowledge(job_id, prompt, seed, 2)
    return job_id


def _next_job(http: httpx.Client, fleet: Fleet, account: Account, n: int) -> None:
    """One more job for each worker: none of them is lost to the queue."""
    for k in range(2 * len(fleet.workers)):
        acknowledged(http, fleet, account, n + k, steps=5)
    busy = "SELECT count(DISTINCT worker) FROM jobs WHERE state = 'running'"
    until(lambda: fleet.query(busy)[0][0] == len(fleet.workers), 60, lambda: "a worker takes no more jobs")


def _states(fleet: Fleet, job_ids: list[str]) -> set[str]:
    return {row[0] for row in fleet.query("SELECT state FROM jobs WHERE id = ANY(%s)", (job_ids,))}


def _with_fences(verdict: Verdict, rounds: int, reason: str) -> dict[str, Any]:
    if verdict.requeued.get(reason, 0) < rounds:
        verdict.mistakes.append(f"{verdict.requeued} of {rounds} jobs were taken over")
    return {"rounds": rounds, **figures(verdict)}
