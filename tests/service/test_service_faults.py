"""What goes wrong around jobs, played against the fake engine: deaths, full disks, stops. Nothing is lost."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.client import EngineStatus
from gateway.errors import StorageFull, Unavailable
from gateway.jobs.facts import ImageDone, Requeued
from gateway.jobs.job import JobEvent, State
from gateway.lanes import base as runner
from gateway.service.options import ServiceOptions
from gateway.store.base import Bounds, WorkerInfo
from gateway.store.sqlite import SqliteStore
from tests.support import a_job, a_plan
from tests.support.service import ME, request, service_in, until


async def test_after_an_engine_crash_the_job_continues_at_the_first_undrawn_seed(tmp_path: Path) -> None:
    """R-01."""
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


async def test_a_second_engine_crash_fails_the_job_and_the_next_job_runs(tmp_path: Path) -> None:
    """R-01."""
    script = {"crash_at_step": 2, "crash_times": 2, "counter_path": str(tmp_path / "crashes")}
    async with service_in(tmp_path, script=script) as service:
        poison, innocent = await service.submit(request(), ME), await service.submit(request(), ME)
        failed = await service.ended(poison.id)
        assert failed.failure is not None
        assert (failed.state, failed.failure.code, failed.attempt) == (State.FAILED, "engine_crash", 2)
        assert (await service.ended(innocent.id)).state is State.SUCCEEDED


async def test_a_hung_engine_is_replaced_and_the_job_fails_the_second_time(tmp_path: Path) -> None:
    """R-15."""
    limits = {"first_step_s": 0.3, "step_floor_s": 0.3, "term_grace_s": 0.1}
    async with service_in(tmp_path, script={"hang_in": "step"}, **limits) as service:
        failed = await service.ended((await service.submit(request(), ME)).id)
        assert failed.failure is not None
        assert (failed.failure.code, failed.attempt) == ("engine_timeout", 2)


async def test_an_engine_whose_memory_grows_is_replaced_between_jobs(tmp_path: Path) -> None:
    """B4: caches leak, and only a new process gives all of it back."""
    async with service_in(tmp_path, script={"memory_growth_bytes": 2**30}) as service:
        pids = set()
        for _ in range(3):
            job = await service.submit(request(), ME)
            async for _ in service.watch(job.id):
                pids.add(service.engine.pid)
            assert (await service.get(job.id)).state is State.SUCCEEDED
        assert len(pids - {None}) > 1


async def test_a_failing_store_ends_neither_the_lane_nor_the_job(tmp_path: Path, monkeypatch: Any) -> None:
    """R-05: what must be written is tried again until it is."""
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


async def test_a_full_disk_puts_the_job_back_and_fails_no_job(tmp_path: Path, monkeypatch: Any) -> None:
    """R-05: the place is at fault, not the job; it is drawn once there is room."""
    async with service_in(tmp_path) as service:
        keep = service.output.keep
        full = iter([True])

        def faltering(*arguments: Any) -> None:
            if next(full, False):
                raise StorageFull
            keep(*arguments)

        monkeypatch.setattr(service.output, "keep", faltering)
        first, second = [await service.submit(request(), ME) for _ in range(2)]
        ended = [await service.ended(job.id) for job in (first, second)]
        assert [job.state for job in ended] == [State.SUCCEEDED] * 2
        back = next(job for job in ended if job.attempt == 2)
        assert Requeued(reason="storage_fault") in [event.fact for event in back.events]
        assert back.crashes == 0
        assert not list((tmp_path / "data" / "spool").iterdir())


async def test_a_job_that_repeatedly_reports_a_full_disk_that_is_not_full_fails_and_the_next_job_runs(
    tmp_path: Path, monkeypatch: Any
) -> None:
    """R-05: a disk that takes everything but this one picture does not keep the queue for ever."""
    monkeypatch.setattr(runner, "PUT_BACK_MOST", 2)
    async with service_in(tmp_path) as service:
        keep = service.output.keep
        first = await service.submit(request(), ME)

        def faltering(spooled: Path, name: str, *arguments: Any) -> None:
            if name.startswith(first.id):
                raise StorageFull
            keep(spooled, name, *arguments)

        monkeypatch.setattr(service.output, "keep", faltering)
        second = await service.submit(request(), ME)
        failed = await service.ended(first.id)
        assert failed.failure is not None
        assert (failed.failure.code, failed.attempt, failed.crashes) == ("disk_full", 3, 0)
        assert (await service.ended(second.id)).state is State.SUCCEEDED
        await until(lambda: not list((tmp_path / "data" / "spool").iterdir()))


async def test_the_job_database_is_backed_up_at_each_start(tmp_path: Path) -> None:
    """R-06."""

    def copies() -> list[Path]:
        return list((tmp_path / "data" / "backups").glob("*.sqlite3"))

    options = ServiceOptions(backup_every_s=3600.0)
    async with service_in(tmp_path, options=options) as service:
        await until(lambda: len(copies()) == 1)
        await service.ended((await service.submit(request(), ME)).id)
    async with service_in(tmp_path, options=options):
        await until(lambda: len(copies()) == 2)


async def test_a_disk_with_too_little_space_refuses_new_jobs_only(tmp_path: Path) -> None:
    """R-05."""
    async with service_in(tmp_path, script={"step_seconds": 0.1}) as service:
        job = await service.submit(request(), ME)
        service._options = replace(service._options, min_free_bytes=2**80)
        with pytest.raises(StorageFull):
            await service.submit(request(), ME)
        assert [listed.id for listed in await service.list_jobs(owner=None)] == [job.id]
        assert (await service.cancel(job.id, ME.owner)).state is State.CANCELLED


async def test_stopping_requeues_the_running_job_and_the_next_gateway_finishes_it(tmp_path: Path) -> None:
    """R-13."""
    async with service_in(tmp_path, script={"step_seconds": 0.1}) as service:
        running = await service.submit(request(count=2), ME)
        waiting = await service.submit(request(), ME)
        await until(lambda: (service.events.progress(running.id) or running) is not running)
    async with service_in(tmp_path) as service:
        for job in (running, waiting):
            ended = await service.ended(job.id)
            assert (ended.state, ended.crashes) == (State.SUCCEEDED, 0)


async def test_a_stop_during_a_model_load_counts_as_no_crash(tmp_path: Path) -> None:
    """R-18."""
    async with service_in(tmp_path, script={"load_seconds": 30.0}) as service:
        job = await service.submit(request(), ME)
        await until(lambda: (progress := service.events.progress(job.id)) is not None and progress.phase == "loading")
    async with service_in(tmp_path) as service:
        ended = await service.ended(job.id)
        assert (ended.state, ended.crashes) == (State.SUCCEEDED, 0)


async def test_a_stopping_gateway_takes_no_more_jobs_and_ends_its_streams(tmp_path: Path) -> None:
    async with service_in(tmp_path, script={"step_seconds": 0.2}) as service:
        job = await service.submit(request(), ME)
        waiter = asyncio.create_task(service.ended(job.id))
        await until(lambda: service.events.watchers(job.id) == 1)
        service.begin_stop()
        with pytest.raises(Unavailable):
            await waiter
        with pytest.raises(Unavailable):
            await service.submit(request(), ME)


async def test_an_image_file_without_a_row_is_removed_at_the_next_start(tmp_path: Path) -> None:
    """R-03: a crash between the file and the row."""
    (tmp_path / "output").mkdir()
    store = SqliteStore(tmp_path / "data")
    await store.open()
    job = (await store.submit(a_job(plan=a_plan(model="toy")), Bounds())).job
    await store.claim(WorkerInfo(id="w"))
    await store.close()
    orphan = tmp_path / "output" / f"{job.id}.1.0.png"
    orphan.write_bytes(b"no row knows me")
    half = tmp_path / "output" / f".{job.id}.1.1.png.0123abcd.tmp"
    half.write_bytes(b"\x89PNG")
    async with service_in(tmp_path) as service:
        ended = await service.ended(job.id)
        assert [f.name for f in (tmp_path / "output").iterdir()] == [ended.images[0].file]
        assert not orphan.exists()


@pytest.mark.parametrize("state", ["down", "starting"])
async def test_job_waits_in_the_queue_while_the_engine_of_an_idle_gateway_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """An idle lane claims a job with its submit only where the job can begin."""
    async with service_in(tmp_path) as service:
        await until(lambda: service._lane._is_idle)
        with monkeypatch.context() as broken:
            broken.setattr(type(service._engine), "status", EngineStatus(state, "fake"))  # type: ignore[arg-type]
            job = await service.submit(request(), ME)
            await asyncio.sleep(0.05)
            assert [event.fact.kind for event in (await service.get(job.id)).events] == ["queued"]
            assert await service._store.position(job.id) == 0
            assert service._store.running("engine") == 0
        service._engine._notify()
        ended = await service.ended(job.id)
        assert [event.fact.kind for event in ended.events] == ["queued", "started", "image_done", "succeeded"]
