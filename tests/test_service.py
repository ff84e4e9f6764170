"""The life of jobs, played against the fake engine: what runs when, what is told, what survives."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.client import Engine, EngineOptions
from engine.protocol import CancelRequested, ImageDone, Queued, Requeued, Started, StepDone, Succeeded
from gateway.errors import JobNotFound, ModelNotFound, ModelNotOnDisk, StorageFull, Unavailable
from gateway.hub import ProgressEvent
from gateway.job import Job, JobEvent, Priority, State
from gateway.library import Library
from gateway.pictures import Pictures
from gateway.request import GenerationRequest
from gateway.service import JobService, Origin, ServiceOptions
from gateway.store.base import Bounds, WorkerInfo
from gateway.store.sqlite import SqliteStore
from gateway.user_models import LocalModel
from tests.support import a_job, a_plan, run

ME = Origin(owner="me", protocol="native", attached=False)


@asynccontextmanager
async def service_in(
    folder: Path, *, script: dict[str, Any] | None = None, options: ServiceOptions | None = None, **engine: Any
) -> AsyncIterator[JobService]:
    weights = folder / "model" / "transformer"
    weights.mkdir(parents=True, exist_ok=True)
    (weights / "x.safetensors").touch()
    pictures = Pictures(folder / "output")
    pictures.prepare()
    fake = EngineOptions(backend="fake", fake_script=json.dumps(script or {}), backoff_s=(0.0,), **engine)
    service = JobService(
        store=SqliteStore(folder / "data"),
        engine=Engine(fake),
        library=Library(folder, default="toy", local={"toy": LocalModel(folder / "model", "flux2-klein-base-4b")}),
        pictures=pictures,
        spool=folder / "data" / "spool",
        options=options or ServiceOptions(abandon_grace_s=0.05),
    )
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


def request(**said: Any) -> GenerationRequest:
    return GenerationRequest(**{"prompt": "x", "width_px": 64, "height_px": 64, "steps": 3, **said})


async def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def kinds(job: Job) -> list[type]:
    return [type(event.fact) for event in job.events]


def test_a_job_runs_from_queued_to_succeeded_and_its_pictures_lie_in_the_output_folder(tmp_path: Path) -> None:
    async def story() -> None:
        async with service_in(tmp_path) as service:
            job = await service.submit(request(count=2, seed=5), ME)
            assert job.state is State.QUEUED
            ended = await service.ended(job.id)
            assert kinds(ended) == [Queued, Started, ImageDone, ImageDone, Succeeded]
            assert [image.seed for image in ended.images] == [5, 6]
            for image in ended.images:
                png = service.pictures.read(image.file)
                assert png is not None
                assert png.startswith(b"\x89PNG")
            assert not list((tmp_path / "data" / "spool").iterdir())

    run(story())


def test_a_watcher_sees_every_state_event_once_and_progress_between(tmp_path: Path) -> None:
    async def story() -> None:
        async with service_in(tmp_path, script={"step_seconds": 0.02}) as service:
            job = await service.submit(request(count=2), ME)
            events = [event async for event in service.watch(job.id)]
            states = [event for event in events if isinstance(event, JobEvent)]
            assert [event.seq for event in states] == [1, 2, 3, 4, 5]
            steps = [e for e in events if isinstance(e, ProgressEvent) and isinstance(e.fact, StepDone)]
            assert steps
            fractions = [event.progress.fraction for event in steps]
            assert fractions == sorted(fractions)

    run(story())


def test_a_watch_cut_at_any_event_and_resumed_has_no_gap_and_no_duplicate(tmp_path: Path) -> None:
    """R-08."""

    async def story() -> None:
        async with service_in(tmp_path, script={"step_seconds": 0.01}) as service:
            job = await service.submit(request(count=3), ME)
            seen: list[int] = []
            for _ in range(10):
                async for event in service.watch(job.id, after=seen[-1] if seen else 0):
                    if isinstance(event, JobEvent):
                        seen.append(event.seq)
                        break
            assert seen == [1, 2, 3, 4, 5, 6]
            assert service.watchers(job.id) == 0

    run(story())


def test_the_order_is_by_class_and_then_by_submission(tmp_path: Path) -> None:
    async def story() -> None:
        async with service_in(tmp_path, script={"step_seconds": 0.05}) as service:
            first = await service.submit(request(steps=100), ME)
            await until(lambda: service.running() is not None)
            low = await service.submit(request(), Origin("me", "native", False, Priority.LOW))
            normal = await service.submit(request(), ME)
            high = await service.submit(request(), Origin("me", "native", False, Priority.HIGH))
            jobs = [first, high, normal, low]
            assert [await service.queue.position(job.id) for job in jobs] == [0, 1, 2, 3]
            await service.cancel(first.id)
            ended = [await service.ended(job.id) for job in jobs]
            starts = [job.started_at for job in ended]
            assert starts == sorted(starts, key=lambda at: at or 0)

    run(story())


def test_the_same_plan_draws_the_same_pixels_again(tmp_path: Path) -> None:
    async def story() -> list[bytes | None]:
        async with service_in(tmp_path) as service:
            jobs = [await service.submit(request(seed=s), ME) for s in (5, 5, 6)]
            ended = [await service.ended(job.id) for job in jobs]
            return [service.pictures.read(job.images[0].file) for job in ended]

    first, again, other = run(story())
    after_restart = run(story())[0]
    assert first == again == after_restart
    assert first != other


def test_cancelling_a_queued_job_ends_it_at_once_and_the_engine_never_hears_of_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with service_in(tmp_path, script={"step_seconds": 0.1}) as service:
            running = await service.submit(request(), ME)
            await until(lambda: service.running() is not None)
            queued = await service.submit(request(), ME)
            ended = await service.cancel(queued.id)
            assert (ended.state, ended.attempt) == (State.CANCELLED, 0)
            assert (await service.ended(running.id)).state is State.SUCCEEDED

    run(story())


def test_cancelling_a_running_job_keeps_its_pictures_and_the_engine(tmp_path: Path) -> None:
    async def story() -> None:
        async with service_in(tmp_path, script={"step_seconds": 0.05}) as service:
            job = await service.submit(request(count=10), ME)
            async for event in service.watch(job.id):
                if isinstance(event, JobEvent) and isinstance(event.fact, ImageDone):
                    break
            pid = service.engine.pid
            ended = await service.cancel(job.id)
            assert ended.state is State.CANCELLED
            assert CancelRequested in kinds(ended)
            assert 1 <= len(ended.images) < 10
            after = await service.ended((await service.submit(request(), ME)).id)
            assert after.state is State.SUCCEEDED
            assert service.engine.pid == pid

    run(story())


def test_cancelling_an_ended_job_tells_how_it_ended(tmp_path: Path) -> None:
    async def story() -> None:
        async with service_in(tmp_path) as service:
            job = await service.submit(request(), ME)
            await service.ended(job.id)
            assert (await service.cancel(job.id)).state is State.SUCCEEDED

    run(story())


def test_an_abandoned_job_dies_unless_somebody_else_watches_it_or_a_key_names_it(tmp_path: Path) -> None:
    """R-09."""

    async def story() -> None:
        attached = Origin("me", "sdapi", True)
        async with service_in(tmp_path, script={"step_seconds": 0.1}) as service:
            alone = await service.submit(request(count=5), attached)
            queued = await service.submit(request(), attached)
            keyed = await service.submit(request(), Origin("me", "sdapi", True, idempotency_key="k"))
            watched = await service.submit(request(), attached)
            await until(lambda: service.running() is not None)
            watcher = asyncio.create_task(service.ended(watched.id))
            await until(lambda: service.watchers(watched.id) == 1)
            for job in (alone, queued, keyed, watched):
                service.abandon(job)
            assert (await watcher).state is State.SUCCEEDED
            ends = [(await service.get(job.id)).state for job in (alone, queued, keyed)]
            assert ends == [State.CANCELLED, State.CANCELLED, State.SUCCEEDED]

    run(story())


def test_an_engine_that_dies_once_goes_on_at_the_first_undrawn_seed(tmp_path: Path) -> None:
    """R-01."""

    async def story() -> None:
        async with service_in(tmp_path, script={"step_seconds": 0.05}) as service:
            job = await service.submit(request(count=3), ME)
            async for event in service.watch(job.id):
                if isinstance(event, JobEvent) and isinstance(event.fact, ImageDone):
                    break
            assert service.engine.pid is not None
            os.kill(service.engine.pid, signal.SIGKILL)
            ended = await service.ended(job.id)
            assert ended.state is State.SUCCEEDED
            assert (ended.attempt, ended.crashes) == (2, 1)
            assert [image.image for image in ended.images] == [0, 1, 2]
            assert Requeued(reason="engine_crash") in [event.fact for event in ended.events]

    run(story())


def test_a_second_death_on_the_same_job_fails_it_and_the_next_job_runs(tmp_path: Path) -> None:
    """R-01."""

    async def story() -> None:
        script = {"crash_at_step": 2, "crash_times": 2, "counter_path": str(tmp_path / "crashes")}
        async with service_in(tmp_path, script=script) as service:
            poison, innocent = await service.submit(request(), ME), await service.submit(request(), ME)
            failed = await service.ended(poison.id)
            assert failed.failure is not None
            assert (failed.state, failed.failure.code, failed.attempt) == (State.FAILED, "engine_crash", 2)
            assert (await service.ended(innocent.id)).state is State.SUCCEEDED

    run(story())


def test_a_hung_engine_is_replaced_and_the_job_fails_the_second_time(tmp_path: Path) -> None:
    """R-15."""

    async def story() -> None:
        limits = {"first_step_s": 0.3, "step_floor_s": 0.3, "term_grace_s": 0.1}
        async with service_in(tmp_path, script={"hang_in": "step"}, **limits) as service:
            failed = await service.ended((await service.submit(request(), ME)).id)
            assert failed.failure is not None
            assert (failed.failure.code, failed.attempt) == ("engine_timeout", 2)

    run(story())


def test_an_engine_whose_memory_grows_is_replaced_between_jobs(tmp_path: Path) -> None:
    """B4: caches leak, and only a new process gives all of it back."""

    async def story() -> None:
        async with service_in(tmp_path, script={"memory_growth_bytes": 2**30}) as service:
            pids = set()
            for _ in range(3):
                job = await service.submit(request(), ME)
                async for _ in service.watch(job.id):
                    pids.add(service.engine.pid)
                assert (await service.get(job.id)).state is State.SUCCEEDED
            assert len(pids - {None}) > 1

    run(story())


def test_a_store_that_falters_costs_neither_the_lane_nor_the_job(tmp_path: Path, monkeypatch: Any) -> None:
    """R-05: what must be written is tried again until it is."""

    async def story() -> None:
        async with service_in(tmp_path) as service:
            faults = {"claim": 1, "commit": 2}

            def faltering(name: str) -> Any:
                method = getattr(SqliteStore, name)

                async def call(*arguments: Any) -> Any:
                    if faults[name]:
                        faults[name] -= 1
                        raise StorageFull
                    return await method(*arguments)

                return call

            for name in faults:
                monkeypatch.setattr(SqliteStore, name, faltering(name))
            jobs = [await service.submit(request(), ME) for _ in range(2)]
            assert [(await service.ended(job.id)).state for job in jobs] == [State.SUCCEEDED] * 2
            assert faults == {"claim": 0, "commit": 0}

    run(story())


def test_a_full_disk_fails_the_job_by_name_and_spares_the_next(tmp_path: Path, monkeypatch: Any) -> None:
    """R-05."""

    async def story() -> None:
        async with service_in(tmp_path) as service:
            keep = service.pictures.keep
            full = iter([True])

            def faltering(*arguments: Any) -> None:
                if next(full, False):
                    raise StorageFull
                keep(*arguments)

            monkeypatch.setattr(service.pictures, "keep", faltering)
            first, second = [await service.submit(request(), ME) for _ in range(2)]
            failed = await service.ended(first.id)
            assert failed.failure is not None
            assert failed.failure.code == "disk_full"
            assert (await service.ended(second.id)).state is State.SUCCEEDED
            assert not list((tmp_path / "data" / "spool").iterdir())

    run(story())


def test_a_disk_with_too_little_room_takes_no_new_job_and_all_else_goes_on(tmp_path: Path) -> None:
    """R-05."""

    async def story() -> None:
        async with service_in(tmp_path, script={"step_seconds": 0.1}) as service:
            job = await service.submit(request(), ME)
            service._options = replace(service._options, min_free_bytes=2**80)
            with pytest.raises(StorageFull):
                await service.submit(request(), ME)
            assert [listed.id for listed in await service.list_jobs(owner=None)] == [job.id]
            assert (await service.cancel(job.id)).state is State.CANCELLED

    run(story())


def test_events_published_out_of_order_reach_the_watcher_in_order(tmp_path: Path) -> None:
    async def story() -> None:
        async with service_in(tmp_path, script={"step_seconds": 0.05}) as service:
            job = await service.submit(request(count=2), ME)
            publish = service._hub.publish
            held: list[JobEvent] = []

            def late(job: Job, event: JobEvent) -> None:
                if isinstance(event.fact, ImageDone):
                    held.append(event)
                else:
                    publish(job, event)
                    for image in held:
                        publish(job, image)

            service._hub.publish = late  # type: ignore[method-assign]
            seen = [event.seq async for event in service.watch(job.id) if isinstance(event, JobEvent)]
            assert seen == [1, 2, 3, 4, 5]

    run(story())


def test_stopping_gives_the_running_job_back_and_the_next_gateway_finishes_it(tmp_path: Path) -> None:
    """R-13."""

    async def story() -> None:
        async with service_in(tmp_path, script={"step_seconds": 0.1}) as service:
            running = await service.submit(request(count=2), ME)
            waiting = await service.submit(request(), ME)
            await until(lambda: (service.progress(running.id) or running) is not running)
        async with service_in(tmp_path) as service:
            for job in (running, waiting):
                ended = await service.ended(job.id)
                assert (ended.state, ended.crashes) == (State.SUCCEEDED, 0)

    run(story())


def test_a_stop_while_the_model_loads_is_no_crash_and_the_next_gateway_draws(tmp_path: Path) -> None:
    """R-18."""

    async def story() -> None:
        async with service_in(tmp_path, script={"load_seconds": 30.0}) as service:
            job = await service.submit(request(), ME)
            await until(lambda: (progress := service.progress(job.id)) is not None and progress.phase == "loading")
        async with service_in(tmp_path) as service:
            ended = await service.ended(job.id)
            assert (ended.state, ended.crashes) == (State.SUCCEEDED, 0)

    run(story())


def test_a_stopping_gateway_takes_no_more_jobs_and_ends_its_streams(tmp_path: Path) -> None:
    async def story() -> None:
        async with service_in(tmp_path, script={"step_seconds": 0.2}) as service:
            job = await service.submit(request(), ME)
            waiter = asyncio.create_task(service.ended(job.id))
            await until(lambda: service.watchers(job.id) == 1)
            service.begin_stop()
            with pytest.raises(Unavailable):
                await waiter
            with pytest.raises(Unavailable):
                await service.submit(request(), ME)

    run(story())


def test_what_cannot_be_drawn_is_refused_at_submit_and_leaves_no_job(tmp_path: Path) -> None:
    async def story() -> None:
        async with service_in(tmp_path) as service:
            with pytest.raises(ModelNotFound) as refused:
                await service.submit(request(model="../etc"), ME)
            assert "flux2-tiny" in refused.value.details["available_models"]
            with pytest.raises(ModelNotFound, match="Flux1 models removed"):
                await service.submit(request(model="schnell"), ME)
            with pytest.raises(ModelNotOnDisk):
                await service.submit(request(model="flux2-klein-9b"), ME)
            assert await service.list_jobs(owner=None) == []

    run(story())


def test_a_job_is_hidden_from_other_owners(tmp_path: Path) -> None:
    async def story() -> None:
        async with service_in(tmp_path) as service:
            job = await service.submit(request(), ME)
            with pytest.raises(JobNotFound):
                await service.get(job.id, "you")
            await service.ended(job.id)

    run(story())


def test_loading_a_model_is_a_job_too(tmp_path: Path) -> None:
    async def story() -> None:
        async with service_in(tmp_path) as service:
            ended = await service.ended((await service.submit_load("toy", ME)).id)
            assert ended.state is State.SUCCEEDED
            assert service.engine.loaded_model == "toy"

    run(story())


def test_retention_forgets_ended_jobs_and_their_inputs_but_not_their_pictures(tmp_path: Path) -> None:
    async def story() -> None:
        options = ServiceOptions(retention_s=-1.0)
        async with service_in(tmp_path, options=options) as service:
            ended = await service.ended((await service.submit(request(), ME)).id)
            await service.retain_once()
            with pytest.raises(JobNotFound):
                await service.get(ended.id)
            assert service.pictures.read(ended.images[0].file) is not None

    run(story())


def test_pictures_over_the_quota_go_oldest_first(tmp_path: Path) -> None:
    async def story() -> None:
        async with service_in(tmp_path) as service:
            files = []
            for _ in range(2):
                files.append((await service.ended((await service.submit(request(), ME)).id)).images[0].file)
            service.pictures.shrink(len(service.pictures.read(files[1]) or b""))
            assert service.pictures.read(files[0]) is None
            assert service.pictures.read(files[1]) is not None

    run(story())


def test_a_picture_no_row_names_is_swept_at_the_next_start(tmp_path: Path) -> None:
    """R-03: a crash between the file and the row."""

    async def story() -> None:
        (tmp_path / "output").mkdir()
        store = SqliteStore(tmp_path / "data")
        await store.open()
        job = (await store.submit(a_job(plan=a_plan(model="toy")), Bounds())).job
        await store.claim(WorkerInfo(id="w"))
        await store.close()
        orphan = tmp_path / "output" / f"{job.id}.1.0.png"
        orphan.write_bytes(b"no row knows me")
        async with service_in(tmp_path) as service:
            ended = await service.ended(job.id)
            assert [f.name for f in (tmp_path / "output").iterdir()] == [ended.images[0].file]
            assert not orphan.exists()

    run(story())
