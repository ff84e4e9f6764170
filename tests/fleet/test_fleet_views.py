"""What a fleet shows: its nodes through any gateway, forecasts over all of them, and a drain of one."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.jobs.job import State
from gateway.service.service import JobService
from tests.support.fleet import fleet_in
from tests.support.service import ME, request, until

SLOW = {"step_seconds": 0.05}


async def names(gateway: JobService) -> list[str]:
    return [view.node.name for view in await gateway.workers.views("me")]


async def test_two_workers_are_seen_through_a_gateway_with_the_jobs_that_they_run(tmp_path: Path) -> None:
    async with fleet_in(tmp_path) as fleet:
        gateway = await fleet.start("gateway", lanes=(), models=())
        await fleet.start("worker a", script=SLOW)
        await fleet.start("worker b", script=SLOW)
        assert await names(gateway) == ["gateway", "worker a", "worker b"]
        jobs = [await gateway.submit(request(steps=20), ME) for _ in range(2)]

        running: set[str] = set()
        while running != {job.id for job in jobs}:
            await asyncio.sleep(0.05)
            running = {job for view in await gateway.workers.views("me") for job in view.jobs}
        assert all(not view.jobs for view in await gateway.workers.views("you"))
        for job in jobs:
            assert (await gateway.ended(job.id)).state is State.SUCCEEDED


async def test_forecasts_count_all_workers_by_what_they_have_learned(tmp_path: Path) -> None:
    async with fleet_in(tmp_path) as fleet:
        gateway = await fleet.start("gateway", lanes=(), models=())
        workers = [await fleet.start(name, script=SLOW) for name in ("worker a", "worker b")]
        for _ in range(3):
            for job in [await gateway.submit(request(steps=20), ME) for _ in range(2)]:
                await gateway.ended(job.id)
        await until(lambda: all("step" in one.node.costs for one in gateway._reports.nodes() if one.node.lanes))
        assert gateway._forecaster.costs_text == "{}", "a gateway without lanes learns nothing itself"
        await gateway.queue.pause("me")
        jobs = [await gateway.submit(request(steps=20), ME) for _ in range(4)]
        waits = [forecast.wait_s for job in jobs if (forecast := gateway.events.forecast(job)) is not None]
        assert len(waits) == 4
        assert waits[1] < 0.5
        assert waits[3] - waits[2] < 0.5
        assert 0.7 < waits[2] < 4
        assert len(workers) == 2
        await gateway.queue.resume("me")
        for job in jobs:
            await gateway.ended(job.id)


async def test_a_drained_worker_takes_no_job_and_without_another_there_is_no_forecast(tmp_path: Path) -> None:
    async with fleet_in(tmp_path) as fleet:
        gateway = await fleet.start("gateway", lanes=(), models=())
        worker = await fleet.start("worker")
        assert (await gateway.workers.drain("worker", "me")).is_draining
        await until(lambda: worker.fleet is not None and worker.fleet.is_draining)
        job = await gateway.submit(request(), ME)
        await asyncio.sleep(0.2)
        assert (await gateway.get(job.id)).state is State.QUEUED
        assert gateway.events.forecast(job) is None
        assert gateway.events.waits_for(job) == "No worker takes jobs now."
        await gateway.workers.resume("worker", "me")
        assert (await asyncio.wait_for(gateway.ended(job.id), 20)).state is State.SUCCEEDED
