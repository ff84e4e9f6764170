"""kill -9 of either process, again and again: what was acknowledged is never lost (R-01, R-02).

benchmarks/soak.py kills the gateway two hundred times; this is a slice of it.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from pathlib import Path

import httpx
import psutil

from engine.protocol import StepDone
from gateway.events.bus import ProgressEvent
from gateway.jobs.job import Job, State
from tests.support.live import Live
from tests.support.service import ME, request, service_in

GATEWAY_KILLS = 12
PICTURES, STEPS = 2, 3


def test_no_acknowledged_job_is_lost_in_kills_of_the_gateway(tmp_path: Path) -> None:
    kill_the_gateway(tmp_path, GATEWAY_KILLS, seed=1)


def kill_the_gateway(folder: Path, kills: int, seed: int) -> int:
    """At random times, with a client that submits all along. How many jobs were acknowledged; each was drawn once."""
    chance = random.Random(seed)
    gateway = Live(folder, fake_script={"step_seconds": 0.02})
    acknowledged: set[str] = set()
    for _ in range(kills):
        gateway.start(ready=False)
        stop = threading.Event()
        client = threading.Thread(target=submit_until, args=(gateway.url, stop, acknowledged))
        client.start()
        time.sleep(chance.uniform(0.02, 0.5))
        children = psutil.Process(gateway.process.pid).children() if gateway.process else []
        gateway.stop(signal.SIGKILL)
        stop.set()
        client.join()
        _, alive = psutil.wait_procs(children, timeout=20)  # it hears of it once it has imported all it needs
        assert not alive, "the engine outlived its gateway"
    gateway.start()
    assert len(acknowledged) >= kills // 2
    for job_id in acknowledged:
        job = wait_until_ended(gateway.url, job_id)
        assert job["status"] == "completed"
        assert len(job["seeds"]) == len(job["image_urls"]) == 1
    assert gateway.stop() == 0
    pictures = [file.name for file in (folder / "output").iterdir()]
    assert sorted({name.split(".")[0] for name in pictures} & acknowledged) == sorted(acknowledged)
    assert len(pictures) == len({name.split(".")[0] for name in pictures}), "a picture was filed twice"
    return len(acknowledged)


def submit_until(url: str, stop: threading.Event, acknowledged: set[str]) -> None:
    with httpx.Client(base_url=url, timeout=5) as client:
        while not stop.is_set():
            with contextlib.suppress(httpx.TransportError):
                body = {"prompt": "x", "width": 64, "height": 64, "steps": 2}
                answer = client.post("/api/v1/generate", json=body)
                if answer.status_code == 200:
                    acknowledged.add(answer.json()["job_id"])
            time.sleep(0.05)


def wait_until_ended(url: str, job_id: str) -> dict[str, object]:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        answer = httpx.get(f"{url}/api/v1/jobs/{job_id}", params={"images": "false"}, timeout=30)
        assert answer.status_code == 200, "an acknowledged job is gone"
        job: dict[str, object] = answer.json()
        if job["status"] not in ("queued", "generating"):
            return job
        time.sleep(0.05)
    raise AssertionError("the job did not end")


async def test_a_kill_of_the_engine_at_any_step_loses_no_job(tmp_path: Path) -> None:
    async def drawn(job: Job) -> list[bytes]:
        return [(tmp_path / "output" / image.file).read_bytes() for image in job.images]

    async with service_in(tmp_path, script={"step_seconds": 0.02}, circuit_failures=1000) as service:
        expected = await drawn(await service.ended((await service.submit(request(seed=3, count=PICTURES), ME)).id))
        for kill_at in range(1, PICTURES * STEPS + 1):
            job = await service.submit(request(seed=3, count=PICTURES), ME)
            steps = 0
            async for event in service.watch(job.id):
                if isinstance(event, ProgressEvent) and isinstance(event.fact, StepDone):
                    steps += 1
                    if steps == kill_at and service.engine.pid is not None:
                        os.kill(service.engine.pid, signal.SIGKILL)
            ended = await service.get(job.id)
            assert (ended.state, ended.failure) == (State.SUCCEEDED, None)
            assert await drawn(ended) == expected
            assert [image.image for image in ended.images] == list(range(PICTURES))
