"""Stopping work needs no write: it stops though nothing can be stored, and is stored later, once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.protocol import Cancelled
from gateway.jobs.job import Job, State
from gateway.service.service import JobService
from gateway.store.sqlite import SqliteStore
from tests.support.service import ME, request, service_in, until


def unlinked(folder: Path, _: JobService) -> Callable[[], None]:
    file, kept = folder / "data" / "jobs.sqlite3", folder / "data" / "kept"
    os.link(file, kept)
    file.unlink()
    return lambda: kept.rename(file)


def read_only(_: Path, service: JobService) -> Callable[[], None]:
    store = service._store
    assert isinstance(store, SqliteStore)
    store._database._write_db.execute("PRAGMA query_only=1")
    return lambda: store._database._write_db.execute("PRAGMA query_only=0") and None


FAULTS = pytest.mark.parametrize("break_", [unlinked, read_only])


def ends(job: Job) -> list[str]:
    return [event.fact.kind for event in job.events if event.fact.kind in ("succeeded", "failed", "cancelled")]


@FAULTS
async def test_jobs_stop_while_storage_is_not_writable_and_are_recorded_once_later(
    tmp_path: Path, break_: Callable[[Path, JobService], Callable[[], None]]
) -> None:
    async with service_in(tmp_path, script={"step_seconds": 0.1}) as service:
        running, waiting, other = [await service.submit(request(steps=50), ME) for _ in range(2)] + [
            await service.submit(request(), ME)
        ]
        await until(lambda: (found := service.events.progress(running.id)) is not None and found.step > 0)
        heard: list[str] = []
        service.events.listen(lambda job, event: heard.append(f"{job.id} {event.fact.kind}"))
        attached = asyncio.create_task(service.ended(running.id))
        undo = break_(tmp_path, service)
        for job in (waiting, running):
            stopped = await service.cancel(job.id, ME.owner)
            assert (stopped.state, service.is_stored(stopped)) == (State.CANCELLED, False)
            again = await service.get(job.id)
            assert (again.state, again.seconds) == (State.CANCELLED, stopped.seconds)
            assert job is waiting or 0 < (again.seconds or 0) < 30
        assert (await attached).state is State.CANCELLED, "who waits on the connection is told at once"
        assert [job.id for job in await service.list_jobs(states=(State.QUEUED, State.RUNNING))] == [other.id]
        await until(lambda: service.engine.state == "ready", 5)
        undo()
        assert (await service.ended(other.id)).state is State.SUCCEEDED
        await until(lambda: all(service.is_stored(job) for job in (running, waiting)))
        for job in (running, waiting):
            assert ends(await service._store.get(job.id)) == ["cancelled"]
            assert heard.count(f"{job.id} cancelled") == 1
        assert f"{waiting.id} started" not in heard


@FAULTS
async def test_job_is_stopped_on_client_disconnect_while_storage_is_not_writable(
    tmp_path: Path, break_: Callable[[Path, JobService], Callable[[], None]]
) -> None:
    async with service_in(tmp_path, script={"step_seconds": 0.1}) as service:
        job = await service.submit(request(steps=100), ME)
        await until(lambda: (found := service.events.progress(job.id)) is not None and found.step > 0)
        undo = break_(tmp_path, service)
        service.abandon(job)
        await until(lambda: service.engine.state == "ready")
        undo()
        assert (await service.ended(job.id)).state is State.CANCELLED
        await until(lambda: service.is_stored(job))
        assert (await service._store.get(job.id)).events[-1].fact == Cancelled(reason="client_gone")


@FAULTS
async def test_skip_ends_the_image_while_storage_is_not_writable(
    tmp_path: Path, break_: Callable[[Path, JobService], Callable[[], None]]
) -> None:
    async with service_in(tmp_path, script={"step_seconds": 0.05}) as service:
        job = await service.submit(request(steps=100), ME)
        await until(lambda: (found := service.events.progress(job.id)) is not None and found.step > 0)
        undo = break_(tmp_path, service)
        service.skip(job.id)
        await until(lambda: service.engine.state == "ready")
        assert (found := service.events.progress(job.id)) is not None
        assert found.step < 90
        undo()
        await service.cancel(job.id, ME.owner)


@FAULTS
async def test_job_is_not_lost_when_the_gateway_stops_meanwhile(
    tmp_path: Path, break_: Callable[[Path, JobService], Callable[[], None]]
) -> None:
    """A stop that could not be stored is forgotten with the process: the job may run again."""
    async with service_in(tmp_path, script={"step_seconds": 0.05}) as service:
        job = await service.submit(request(steps=20), ME)
        await until(lambda: service.running() is not None)
        undo = break_(tmp_path, service)
        assert (await service.cancel(job.id, ME.owner)).state is State.CANCELLED
    undo() if break_ is unlinked else None
    async with service_in(tmp_path) as service:
        assert (await service.ended(job.id)).state is State.SUCCEEDED
