"""The last image of a job, decoded while the next job runs, as clients and the store see it: nothing is lost, and
nothing is filed twice.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.protocol import StepDone
from gateway.events.bus import ProgressEvent
from gateway.jobs.facts import ImageDone, Requeued
from gateway.jobs.job import Job, JobEvent, State
from gateway.residency import ResidencyOptions
from gateway.service.service import JobService
from tests.support.live import live
from tests.support.native import client_of, ended, events, submit
from tests.support.service import ME, request, service_in, until

SCRIPT = {"step_seconds": 0.05, "decode_seconds": 0.5}
BESIDE = {"engine": {"decode_beside": True}}


@asynccontextmanager
async def warm(folder: Path, *, script: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[JobService]:
    """A service that decodes beside, and has run its first job, which runs alone."""
    residency = ResidencyOptions(models_dir=folder, decode_beside=True)
    async with service_in(folder, script=script or SCRIPT, residency=residency, **options) as service:
        assert (await service.ended((await service.submit(request(), ME)).id)).state is State.SUCCEEDED
        yield service


async def began_beside(service: JobService, former: Job, latter: Job) -> None:
    """Wait until the second job denoises while the first one's image is decoded."""
    async for event in service.watch(latter.id):
        if isinstance(event, ProgressEvent) and isinstance(event.fact, StepDone):
            break
    progress = service.events.progress(former.id)
    assert progress is not None, "the former job has ended"
    assert progress.phase == "decoding"


def filed(folder: Path, job: Job) -> list[str]:
    return sorted(file.name for file in (folder / "output").glob(f"{job.id}*.png"))


async def test_jobs_overlap_and_each_one_has_its_own_events_in_order(tmp_path: Path) -> None:
    async with warm(tmp_path) as service:
        jobs = [await service.submit(request(seed=n, count=n), ME) for n in (1, 2, 1)]
        await began_beside(service, jobs[0], jobs[1])
        running = service.running()
        assert running is not None
        assert running.id == jobs[1].id, "the progress is of the job that is denoised"
        for job, images in zip(jobs, (1, 2, 1), strict=True):
            done = await service.ended(job.id)
            assert [event.seq for event in done.events] == list(range(1, len(done.events) + 1))
            kinds = [event.fact.kind for event in done.events]
            assert kinds == ["queued", "started", *["image_done"] * images, "succeeded"]
            assert len(filed(tmp_path, job)) == images
        assert service.running() is None


async def test_one_job_at_most_begins_beside_a_decoding(tmp_path: Path) -> None:
    async with warm(tmp_path, script={"step_seconds": 0.01, "decode_seconds": 0.6}) as service:
        jobs = [await service.submit(request(), ME) for _ in range(4)]
        most = 0
        while (await service.get(jobs[-1].id)).state is not State.SUCCEEDED:
            most = max(most, len(service._lane._at_work))
            await asyncio.sleep(0.02)
        assert most == 2


async def test_files_are_those_of_jobs_one_after_the_other(tmp_path: Path) -> None:
    async def drawn(folder: Path, beside: bool) -> list[str | None]:
        residency = ResidencyOptions(models_dir=folder, decode_beside=beside)
        async with service_in(folder, script={"decode_seconds": 0.1}, residency=residency) as service:
            jobs = [await service.submit(request(seed=n), ME) for n in range(4)]
            return [image.sha256 for job in jobs for image in (await service.ended(job.id)).images]

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert await drawn(tmp_path / "a", beside=True) == await drawn(tmp_path / "b", beside=False)


@pytest.mark.parametrize("which", ["former", "latter"])
async def test_cancel_of_either_job_is_at_once_and_leaves_the_other(which: str, tmp_path: Path) -> None:
    script = {"step_seconds": 0.1, "decode_seconds": 1.5}
    async with warm(tmp_path, script=script, cancel_answer_s=60.0) as service:
        former, latter = [await service.submit(request(steps=8), ME) for _ in range(2)]
        pid = service.engine.pid
        await began_beside(service, former, latter)
        target, other = (former, latter) if which == "former" else (latter, former)
        began = time.monotonic()
        cancelled = await service.cancel(target.id, ME.owner)
        assert time.monotonic() - began < 1.2, "it waited for the decoding"
        assert (cancelled.state, cancelled.images) == (State.CANCELLED, ())
        assert (await service.ended(other.id)).state is State.SUCCEEDED
        assert service.engine.pid == pid
        assert filed(tmp_path, target) == []
        assert len(filed(tmp_path, other)) == 1


async def test_job_whose_former_is_alone_on_the_engine_is_the_running_one_again(tmp_path: Path) -> None:
    script = {"step_seconds": 0.1, "decode_seconds": 1.5}
    async with warm(tmp_path, script=script) as service:
        former, latter = [await service.submit(request(steps=8), ME) for _ in range(2)]
        await began_beside(service, former, latter)
        await service.cancel(latter.id, ME.owner)
        running = service.running()
        assert running is not None
        assert running.id == former.id


async def test_death_of_the_engine_with_two_jobs_loses_neither_and_blames_neither(tmp_path: Path) -> None:
    async with warm(tmp_path) as service:
        former, latter = [await service.submit(request(seed=n), ME) for n in (1, 2)]
        await began_beside(service, former, latter)
        assert service.engine.pid is not None
        os.kill(service.engine.pid, signal.SIGKILL)
        for job in (former, latter):
            done = await service.ended(job.id)
            assert (done.state, done.attempt, done.crashes) == (State.SUCCEEDED, 2, 0)
            assert [event.fact for event in done.events].count(Requeued(reason="released")) == 1
            assert len([event for event in done.events if isinstance(event.fact, ImageDone)]) == 1
            assert len(filed(tmp_path, job)) == 1
        assert service.engine.deaths == 1


async def test_job_that_kills_the_engine_takes_no_other_with_it(tmp_path: Path) -> None:
    """The poison has five steps, and crashes in the last one each time; the others have three."""
    script = {**SCRIPT, "crash_at_step": 5}
    async with warm(tmp_path, script=script, circuit_failures=1000) as service:
        before, poison, after = [await service.submit(request(steps=steps), ME) for steps in (3, 5, 3)]
        failed = await service.ended(poison.id)
        assert failed.failure is not None
        assert (failed.failure.code, failed.crashes) == ("engine_crash", 1)
        for innocent in (before, after):
            done = await service.ended(innocent.id)
            assert (done.state, done.crashes) == (State.SUCCEEDED, 0)
            assert len(filed(tmp_path, innocent)) == 1


async def test_job_that_is_out_of_memory_beside_another_is_tried_alone(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_bytes(b".")
    script = {**SCRIPT, "oom_at_step": 2, "crash_times": 1, "counter_path": str(counter)}
    async with warm(tmp_path, script=script) as service:
        former, latter = [await service.submit(request(), ME) for _ in range(2)]
        await until(lambda: (one := service.events.progress(former.id)) is not None and one.phase == "decoding")
        counter.unlink()
        done = await service.ended(latter.id)
        assert (done.state, done.attempt, done.crashes) == (State.SUCCEEDED, 2, 0)
        assert (await service.ended(former.id)).attempt == 1


async def test_stop_puts_both_jobs_back_and_the_next_gateway_finishes_them(tmp_path: Path) -> None:
    async with warm(tmp_path) as service:
        former, latter = [await service.submit(request(), ME) for _ in range(2)]
        await began_beside(service, former, latter)
    async with service_in(tmp_path) as service:
        for job in (former, latter):
            done = await service.ended(job.id)
            assert (done.state, done.crashes) == (State.SUCCEEDED, 0)
            assert len(filed(tmp_path, job)) == 1


def test_kill_of_the_gateway_with_two_jobs_on_the_engine_loses_none(tmp_path: Path) -> None:
    script = {"step_seconds": 0.1, "decode_seconds": 1.5}
    with live(tmp_path, fake_script=script, config=BESIDE) as gateway, client_of(gateway.url) as client:
        ended(client, submit(client)["job_id"])
        jobs = [submit(client)["job_id"] for _ in range(3)]
        wait_for_two(client, jobs)
        gateway.stop(signal.SIGKILL)
        gateway.start()
        for job in jobs:
            done = ended(client, job)
            assert done["status"] == "completed"
            assert len(done["result"]["images"]) == 1
            assert len(list((tmp_path / "output").glob(f"{job}*.png"))) == 1
            assert [event["event"] for event in events(client, job, last="0")].count("complete") == 1


def test_progress_of_every_protocol_is_of_the_job_that_is_denoised(tmp_path: Path) -> None:
    script = {"step_seconds": 0.1, "decode_seconds": 1.5}
    with live(tmp_path, fake_script=script, config=BESIDE) as gateway, client_of(gateway.url) as client:
        ended(client, submit(client)["job_id"])
        former, latter = (submit(client, steps=steps)["job_id"] for steps in (3, 8))
        wait_for_two(client, [former, latter])
        active = client.get("/queue").json()["active"]
        assert active["job_id"] == latter
        progress = httpx.get(f"{gateway.url}/sdapi/v1/progress", timeout=30).json()
        assert progress["state"]["sampling_steps"] == 8
        assert progress["state"]["job_count"] == 1
        for job in (former, latter):
            assert ended(client, job)["status"] == "completed"


def wait_for_two(client: httpx.Client, jobs: list[str]) -> None:
    """Wait until two of the jobs run, the second in a step."""
    while True:
        states = [client.get(f"/jobs/{job}").json() for job in jobs]
        running = [state for state in states if state["status"] == "generating"]
        if len(running) == 2 and running[1].get("progress_detail", {}).get("step"):
            return
        assert any(state["status"] != "completed" for state in states), "two jobs never ran at once"
        time.sleep(0.02)


async def test_events_of_both_jobs_reach_their_watchers(tmp_path: Path) -> None:
    async with warm(tmp_path) as service:
        jobs = [await service.submit(request(seed=n), ME) for n in (1, 2)]

        async def watched(job: Job) -> list[str]:
            return [event.fact.kind async for event in service.watch(job.id) if isinstance(event, JobEvent)]

        for kinds in await asyncio.gather(*(watched(job) for job in jobs)):
            assert kinds[-2:] == ["image_done", "succeeded"]
