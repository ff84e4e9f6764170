"""The life of jobs, played against the fake engine: what runs when, what is told, what survives."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from engine.protocol import StepDone, Succeeded
from gateway.errors import JobNotFound, ModelNotFound, ModelNotOnDisk
from gateway.events.bus import ProgressEvent
from gateway.jobs.facts import CancelRequested, ImageDone, Queued, Started
from gateway.jobs.job import Job, JobEvent, Priority, State
from gateway.jobs.origin import Origin
from gateway.service.service import ServiceOptions
from tests.support.service import ME, request, service_in, until


def kinds(job: Job) -> list[type]:
    return [type(event.fact) for event in job.events]


async def test_a_job_runs_from_queued_to_succeeded_and_its_pictures_lie_in_the_output_folder(tmp_path: Path) -> None:
    async with service_in(tmp_path) as service:
        job = await service.submit(request(count=2, seed=5), ME)
        assert job.state is State.QUEUED
        ended = await service.ended(job.id)
        assert kinds(ended) == [Queued, Started, ImageDone, ImageDone, Succeeded]
        assert [image.seed for image in ended.images] == [5, 6]
        for image in ended.images:
            png = service.output.read(image.file)
            assert png is not None
            assert png.startswith(b"\x89PNG")
        assert not list((tmp_path / "data" / "spool").iterdir())


async def test_a_watcher_sees_every_state_event_once_and_progress_between(tmp_path: Path) -> None:
    async with service_in(tmp_path, script={"step_seconds": 0.02}) as service:
        job = await service.submit(request(count=2), ME)
        events = [event async for event in service.watch(job.id)]
        states = [event for event in events if isinstance(event, JobEvent)]
        assert [event.seq for event in states] == [1, 2, 3, 4, 5]
        steps = [e for e in events if isinstance(e, ProgressEvent) and isinstance(e.fact, StepDone)]
        assert steps
        fractions = [event.progress.fraction for event in steps]
        assert fractions == sorted(fractions)


async def test_a_watch_cut_at_any_event_and_resumed_has_no_gap_and_no_duplicate(tmp_path: Path) -> None:
    """R-08."""
    async with service_in(tmp_path, script={"step_seconds": 0.01}) as service:
        job = await service.submit(request(count=3), ME)
        seen: list[int] = []
        for _ in range(10):
            async for event in service.watch(job.id, after=seen[-1] if seen else 0):
                if isinstance(event, JobEvent):
                    seen.append(event.seq)
                    break
        assert seen == [1, 2, 3, 4, 5, 6]
        assert service.events.watchers(job.id) == 0


async def test_the_order_is_by_class_and_then_by_submission(tmp_path: Path) -> None:
    async with service_in(tmp_path, script={"step_seconds": 0.05}) as service:
        first = await service.submit(request(steps=100), ME)
        await until(lambda: service.running() is not None)
        low = await service.submit(request(), Origin("me", "native", False, Priority.LOW))
        normal = await service.submit(request(), ME)
        high = await service.submit(request(), Origin("me", "native", False, Priority.HIGH))
        jobs = [first, high, normal, low]
        assert [await service.queue.position(job.id) for job in jobs] == [0, 1, 2, 3]
        await service.cancel(first.id, ME.owner)
        ended = [await service.ended(job.id) for job in jobs]
        starts = [job.started_at for job in ended]
        assert starts == sorted(starts, key=lambda at: at or 0)


async def test_the_same_plan_draws_the_same_pixels_again(tmp_path: Path) -> None:
    async def drawn() -> list[bytes | None]:
        async with service_in(tmp_path) as service:
            jobs = [await service.submit(request(seed=s), ME) for s in (5, 5, 6)]
            ended = [await service.ended(job.id) for job in jobs]
            return [service.output.read(job.images[0].file) for job in ended]

    first, again, other = await drawn()
    after_restart = (await drawn())[0]
    assert first == again == after_restart
    assert first != other


async def test_cancelling_a_queued_job_ends_it_at_once_without_the_engine(tmp_path: Path) -> None:
    async with service_in(tmp_path, script={"step_seconds": 0.1}) as service:
        running = await service.submit(request(), ME)
        await until(lambda: service.running() is not None)
        queued = await service.submit(request(), ME)
        ended = await service.cancel(queued.id, ME.owner)
        assert (ended.state, ended.attempt) == (State.CANCELLED, 0)
        assert (await service.ended(running.id)).state is State.SUCCEEDED


async def test_cancelling_a_running_job_keeps_its_pictures_and_the_engine(tmp_path: Path) -> None:
    async with service_in(tmp_path, script={"step_seconds": 0.05}) as service:
        job = await service.submit(request(count=10), ME)
        async for event in service.watch(job.id):
            if isinstance(event, JobEvent) and isinstance(event.fact, ImageDone):
                break
        pid = service.engine.pid
        ended = await service.cancel(job.id, ME.owner)
        assert ended.state is State.CANCELLED
        assert CancelRequested in kinds(ended)
        assert 1 <= len(ended.images) < 10
        after = await service.ended((await service.submit(request(), ME)).id)
        assert after.state is State.SUCCEEDED
        assert service.engine.pid == pid


async def test_cancelling_an_ended_job_returns_it_unchanged(tmp_path: Path) -> None:
    async with service_in(tmp_path) as service:
        job = await service.submit(request(), ME)
        await service.ended(job.id)
        assert (await service.cancel(job.id, ME.owner)).state is State.SUCCEEDED


async def test_an_abandoned_job_is_cancelled_without_other_watchers_and_idempotency_key(tmp_path: Path) -> None:
    """R-09."""
    attached = Origin("me", "sdapi", True)
    async with service_in(tmp_path, script={"step_seconds": 0.1}) as service:
        alone = await service.submit(request(count=5), attached)
        queued = await service.submit(request(), attached)
        keyed = await service.submit(request(), Origin("me", "sdapi", True, idempotency_key="k"))
        watched = await service.submit(request(), attached)
        await until(lambda: service.running() is not None)
        watcher = asyncio.create_task(service.ended(watched.id))
        await until(lambda: service.events.watchers(watched.id) == 1)
        for job in (alone, queued, keyed, watched):
            service.abandon(job)
        assert (await watcher).state is State.SUCCEEDED
        ends = [(await service.get(job.id)).state for job in (alone, queued, keyed)]
        assert ends == [State.CANCELLED, State.CANCELLED, State.SUCCEEDED]


async def test_events_published_out_of_order_reach_the_watcher_in_order(tmp_path: Path) -> None:
    async with service_in(tmp_path, script={"step_seconds": 0.05}) as service:
        job = await service.submit(request(count=2), ME)
        publish = service._bus.publish
        held: list[JobEvent] = []

        def late(job: Job, event: JobEvent) -> None:
            if isinstance(event.fact, ImageDone):
                held.append(event)
            else:
                publish(job, event)
                for image in held:
                    publish(job, image)

        service._bus.publish = late  # type: ignore[method-assign]
        seen = [event.seq async for event in service.watch(job.id) if isinstance(event, JobEvent)]
        assert seen == [1, 2, 3, 4, 5]


async def test_an_invalid_request_is_refused_at_submit_and_stores_no_job(tmp_path: Path) -> None:
    async with service_in(tmp_path) as service:
        with pytest.raises(ModelNotFound) as refused:
            await service.submit(request(model="../etc"), ME)
        assert "flux2-tiny" in refused.value.details["available_models"]
        with pytest.raises(ModelNotFound, match="Flux1 models removed"):
            await service.submit(request(model="schnell"), ME)
        with pytest.raises(ModelNotOnDisk):
            await service.submit(request(model="flux2-klein-9b"), ME)
        assert await service.list_jobs(owner=None) == []


async def test_a_job_is_hidden_from_other_owners(tmp_path: Path) -> None:
    async with service_in(tmp_path) as service:
        job = await service.submit(request(), ME)
        with pytest.raises(JobNotFound):
            await service.get(job.id, "you")
        await service.ended(job.id)


async def test_loading_a_model_is_a_job_too(tmp_path: Path) -> None:
    async with service_in(tmp_path) as service:
        ended = await service.ended((await service.submit_load("toy", ME)).id)
        assert ended.state is State.SUCCEEDED
        assert service.engine.loaded_model == "toy"


async def test_retention_forgets_ended_jobs_and_their_inputs_but_not_their_pictures(tmp_path: Path) -> None:
    options = ServiceOptions(retention_s=-1.0)
    async with service_in(tmp_path, options=options) as service:
        ended = await service.ended((await service.submit(request(), ME)).id)
        await service.retain_once()
        with pytest.raises(JobNotFound):
            await service.get(ended.id)
        assert service.output.read(ended.images[0].file) is not None


async def test_images_over_the_quota_are_removed_oldest_first(tmp_path: Path) -> None:
    async with service_in(tmp_path) as service:
        files = []
        for _ in range(2):
            files.append((await service.ended((await service.submit(request(), ME)).id)).images[0].file)
        service.output.shrink(len(service.output.read(files[1]) or b""))
        assert service.output.read(files[0]) is None
        assert service.output.read(files[1]) is not None
