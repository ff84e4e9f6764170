"""Jobs whose client has hung up: what keeps them, for how long, and that nothing else does."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

from engine.protocol import Cancelled
from gateway.jobs.job import Job, State
from gateway.jobs.origin import Origin
from gateway.service.service import JobService, ServiceOptions
from tests.support.service import ME, request, service_in, until

ATTACHED = Origin("me", "sdapi", True)
NEVER = ServiceOptions(abandon_grace_s=3600.0)
SHORT = ServiceOptions(abandon_grace_s=0.2)
SLOW = {"step_seconds": 0.05}


async def drawing(service: JobService, steps: int = 100) -> Job:
    """A job whose first step is drawn."""
    job = await service.submit(request(steps=steps), ATTACHED)
    await until(lambda: (seen := service.events.progress(job.id)) is not None and seen.step > 0)
    return job


async def wait_for_end(service: JobService, job: Job) -> Job:
    """The job at its end, for which nobody waits here: a waiter would keep it."""
    async with asyncio.timeout(20):
        while (seen := await service.get(job.id)).state in (State.QUEUED, State.RUNNING):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return seen


async def abandon(service: JobService, job: Job) -> None:
    """The client of the job has left, and the service has seen it."""
    service.abandon(job)
    await asyncio.sleep(0.01)


async def test_drawing_is_stopped_without_any_grace(tmp_path: Path) -> None:
    async with service_in(tmp_path, script=SLOW, options=NEVER) as service:
        job = await drawing(service)
        service.abandon(job)
        assert (await wait_for_end(service, job)).events[-1].fact == Cancelled(reason="client_gone")


async def test_job_continues_while_it_is_watched_and_stops_with_its_last_watcher(tmp_path: Path) -> None:
    async with service_in(tmp_path, script=SLOW, options=ServiceOptions(abandon_grace_s=0.0)) as service:
        job = await drawing(service)
        async with aclosing(service.watch(job.id)) as first, aclosing(service.watch(job.id)) as second:
            await anext(first)
            await anext(second)
            await abandon(service, job)
            await first.aclose()
            for _ in range(4):
                await anext(second)
            assert (await service.get(job.id)).state is State.RUNNING
        assert (await wait_for_end(service, job)).state is State.CANCELLED


async def test_watcher_that_resumes_its_stream_in_time_keeps_the_job(tmp_path: Path) -> None:
    async with service_in(tmp_path, script=SLOW, options=ServiceOptions(abandon_grace_s=0.4)) as service:
        job = await drawing(service, 30)
        for _ in range(3):
            async with aclosing(service.watch(job.id)) as events:
                await anext(events)
                await abandon(service, job)
            await asyncio.sleep(0.05)
        assert (await service.ended(job.id)).state is State.SUCCEEDED


async def test_job_that_nobody_resumes_stops_after_the_grace(tmp_path: Path) -> None:
    async with service_in(tmp_path, script=SLOW, options=SHORT) as service:
        job = await drawing(service)
        async with aclosing(service.watch(job.id)) as events:
            await anext(events)
            service.abandon(job)
        assert (await wait_for_end(service, job)).state is State.CANCELLED


# ---- a model that is being loaded ------------------------------------------------------------------


async def loading(service: JobService) -> Job:
    job = await service.submit(request(steps=100), ATTACHED)
    await until(lambda: (seen := service.events.progress(job.id)) is not None and seen.phase == "loading")
    return job


async def test_request_that_is_sent_again_while_its_model_is_loaded_gets_that_load(tmp_path: Path) -> None:
    loaded = tmp_path / "loaded"
    script = {"load_until_path": str(loaded), **SLOW}
    async with service_in(tmp_path, script=script, options=NEVER) as service:
        first = await loading(service)
        pid = service.engine.pid
        service.abandon(first)
        again = await service.submit(request(), ATTACHED)
        loaded.touch()
        assert (await wait_for_end(service, first)).state is State.CANCELLED
        assert (await wait_for_end(service, again)).state is State.SUCCEEDED
        assert service.engine.pid == pid, "the load was not begun anew"


async def test_model_that_nobody_requests_again_is_loaded_and_no_image_is_drawn(tmp_path: Path) -> None:
    loaded = tmp_path / "loaded"
    async with service_in(tmp_path, script={"load_until_path": str(loaded), **SLOW}, options=NEVER) as service:
        job = await loading(service)
        service.abandon(job)
        loaded.touch()
        stopped = await wait_for_end(service, job)
        assert (stopped.state, len(stopped.images)) == (State.CANCELLED, 0)
        assert service.engine.loaded_model == "toy"


async def test_load_stops_after_the_grace(tmp_path: Path) -> None:
    async with service_in(tmp_path, script={"load_seconds": 3600.0}, options=SHORT) as service:
        job = await loading(service)
        service.abandon(job)
        assert (await wait_for_end(service, job)).state is State.CANCELLED


async def test_load_that_delays_another_job_stops_at_once(tmp_path: Path) -> None:
    async with service_in(tmp_path, script={"load_seconds": 3600.0}, options=NEVER) as service:
        job = await loading(service)
        other = await service.submit(request(), ME)
        service.abandon(job)
        assert (await wait_for_end(service, job)).state is State.CANCELLED
        await service.cancel(other.id, ME.owner)


async def test_load_for_nobody_is_cancelled_at_once_by_its_owner(tmp_path: Path) -> None:
    async with service_in(tmp_path, script={"load_seconds": 3600.0}, options=NEVER) as service:
        job = await loading(service)
        service.abandon(job)
        assert (await service.cancel(job.id, "me")).state is State.CANCELLED


async def test_abandoned_jobs_do_not_delay_the_stop_of_the_gateway(tmp_path: Path) -> None:
    async with service_in(tmp_path, script={"load_seconds": 3600.0}, options=NEVER) as service:
        service.abandon(await loading(service))
