"""The queue as a client meets it: pause, reorder, retry, places, and one stream for all jobs of an owner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from engine.protocol import StepDone, Succeeded
from gateway.errors import JobNotEnded, JobNotFound, JobNotWaiting, OwnerQueueFull, QueueFull
from gateway.events.bus import Event, PlaceEvent, ProgressEvent, Snapshot
from gateway.jobs.facts import ImageDone, Queued, Started
from gateway.jobs.job import Job, JobEvent, Priority, State
from gateway.jobs.origin import Origin
from gateway.service.service import JobService, ServiceOptions
from gateway.store.base import Bounds
from gateway.store.sqlite import SqliteStore
from tests.support.service import ME, request, service_in, until

YOU = Origin(owner="you", protocol="native", attached=False)
AT_ONCE = ServiceOptions(places_every_s=0.0)


async def submitted(service: JobService, count: int, origin: Origin = ME) -> list[Job]:
    return [await service.submit(request(), origin) for _ in range(count)]


async def line(service: JobService) -> list[str]:
    return [job.id for job in await service.queue.waiting()]


async def starts(service: JobService, jobs: list[Job]) -> list[str]:
    """Their ids in the order in which they began, once all have ended."""
    ended = [await service.ended(job.id) for job in jobs]
    return [job.id for job in sorted(ended, key=lambda job: job.started_at or 0.0)]


async def test_a_paused_queue_begins_no_job_also_after_a_restart_until_resume(tmp_path: Path) -> None:
    async with service_in(tmp_path, script={"step_seconds": 0.05}) as service:
        running = await service.submit(request(), ME)
        await until(lambda: service.running() is not None)
        await service.queue.pause(ME.owner)
        waiting = await service.submit(request(), ME)
        assert (await service.ended(running.id)).state is State.SUCCEEDED
        assert service.queue.paused
        assert (await service.get(waiting.id)).state is State.QUEUED
    async with service_in(tmp_path) as service:
        assert service.queue.paused
        more = await service.submit(request(), ME)
        assert await service.queue.position(more.id) == 1
        await service.queue.resume(ME.owner)
        assert not service.queue.paused
        assert (await service.ended(waiting.id)).attempt == 1
        assert (await service.ended(more.id)).state is State.SUCCEEDED


async def test_a_job_is_moved_before_another_to_the_front_to_the_end_and_to_a_position(tmp_path: Path) -> None:
    async with service_in(tmp_path) as service:
        await service.queue.pause(ME.owner)
        a, b, c, d = [job.id for job in await submitted(service, 4)]
        await service.queue.move(d, to="front")
        assert await line(service) == [d, a, b, c]
        await service.queue.move(a, to="end")
        assert await line(service) == [d, b, c, a]
        await service.queue.move(a, before=c)
        assert await line(service) == [d, b, a, c]
        await service.queue.move(d, position=2)
        order = await line(service)
        assert order == [b, a, d, c]
        assert [await service.queue.position(job) for job in order] == [0, 1, 2, 3]
        await service.queue.resume(ME.owner)
        assert await starts(service, [await service.get(job) for job in (a, b, c, d)]) == order


async def test_a_reorder_does_not_move_jobs_of_other_owners(tmp_path: Path) -> None:
    async with service_in(tmp_path) as service:
        await service.queue.pause(ME.owner)
        mine, yours = await submitted(service, 3), await submitted(service, 3, YOU)
        assert await line(service) == [j.id for pair in zip(mine, yours, strict=True) for j in pair]
        before = [await service.queue.position(job.id) for job in yours]
        await service.queue.move(mine[2].id, to="front", owner="me")
        assert await line(service) == [
            mine[2].id,
            yours[0].id,
            mine[0].id,
            yours[1].id,
            mine[1].id,
            yours[2].id,
        ]
        assert [await service.queue.position(job.id) for job in yours] == before
        for job_id, before_id in ((mine[0].id, yours[0].id), (yours[0].id, mine[0].id)):
            with pytest.raises(JobNotFound):
                await service.queue.move(job_id, before=before_id, owner="me")


async def test_only_a_waiting_job_can_be_moved(tmp_path: Path) -> None:
    async with service_in(tmp_path) as service:
        ended = await service.ended((await service.submit(request(), ME)).id)
        await service.queue.pause(ME.owner)
        waiting = await service.submit(request(), ME)
        with pytest.raises(JobNotWaiting):
            await service.queue.move(ended.id, to="front")
        with pytest.raises(JobNotWaiting):
            await service.queue.move(waiting.id, before=ended.id)
        with pytest.raises(JobNotFound):
            await service.queue.move(waiting.id, before="0" * 32)


async def test_a_retry_is_a_new_job_of_the_same_plan(tmp_path: Path) -> None:
    async with service_in(tmp_path) as service:
        first = await service.ended((await service.submit(request(), ME)).id)
        again = await service.retry(first.id, "me")
        assert again.id != first.id
        assert (again.plan, again.owner, again.attached) == (first.plan, "me", False)
        ended = await service.ended(again.id)
        pixels = [service.output.read(job.images[0].file) for job in (first, ended)]
        assert pixels[0] == pixels[1]
        with pytest.raises(JobNotFound):
            await service.retry(first.id, "you")
        await service.queue.pause(ME.owner)
        waiting = await service.submit(request(), ME)
        with pytest.raises(JobNotEnded):
            await service.retry(waiting.id)


async def test_the_stream_of_a_waiting_job_has_every_new_position(tmp_path: Path) -> None:
    async with service_in(tmp_path, options=AT_ONCE) as service:
        await service.queue.pause(ME.owner)
        first, second, third = await submitted(service, 3)
        seen: list[Event] = []

        async def follow() -> None:
            async for event in service.watch(third.id):
                seen.append(event)

        def places() -> list[int]:
            return [event.position for event in seen if isinstance(event, PlaceEvent)]

        watcher = asyncio.create_task(follow())
        await until(lambda: places()[-1:] == [2])
        await service.cancel(first.id, ME.owner)
        await until(lambda: places()[-1:] == [1])
        high = await service.submit(request(), Origin("me", "native", False, Priority.HIGH))
        await until(lambda: places()[-1:] == [2])
        await service.queue.move(third.id, to="front")
        await until(lambda: places()[-1:] == [0])
        await service.queue.resume(ME.owner)
        await watcher
        for job in (second, high):
            await service.ended(job.id)


async def test_one_stream_has_all_jobs_of_an_owner_and_of_no_other(tmp_path: Path) -> None:
    async with service_in(tmp_path, script={"step_seconds": 0.01}) as service:
        await service.queue.pause(ME.owner)
        waiting = await service.submit(request(), ME)
        await service.submit(request(), YOU)
        seen: list[Snapshot | Event] = []

        async def follow() -> None:
            async for event in service.events.watch_all("me"):
                seen.append(event)
                if sum(isinstance(e, JobEvent) and isinstance(e.fact, Succeeded) for e in seen) == 2:
                    return

        watcher = asyncio.create_task(follow())
        await until(lambda: bool(seen))
        snapshot = seen[0]
        assert isinstance(snapshot, Snapshot)
        assert [job.id for job in snapshot.jobs] == [waiting.id]
        assert [event.job_id for event in snapshot.newest] == [waiting.id]
        late = await service.submit(request(), ME)
        await service.queue.resume(ME.owner)
        await watcher
        states = [event for event in seen if isinstance(event, JobEvent)]
        assert {event.job_id for event in states} == {waiting.id, late.id}
        assert [type(e.fact) for e in states if e.job_id == late.id] == [Queued, Started, ImageDone, Succeeded]


async def test_the_stream_of_all_jobs_cut_at_any_event_and_resumed_has_no_gap_and_no_duplicate(tmp_path: Path) -> None:
    """R-08."""
    async with service_in(tmp_path) as service:
        first = [event async for event in ends(service, None, 0)]
        cursor = first[0].number if isinstance(first[0], Snapshot) else 0
        begun = cursor
        jobs = [*await submitted(service, 3), *await submitted(service, 2, YOU)]
        seen: list[JobEvent] = []
        while len(seen) < 12:
            async for event in ends(service, cursor, 1):
                if isinstance(event, JobEvent):
                    seen.append(event)
                    cursor = event.number
        for job in jobs:
            await service.ended(job.id)
        stored = [event for job in jobs[:3] for event in (await service.get(job.id)).events]
        assert seen == sorted(stored, key=lambda event: event.number)
        assert all(event.number > begun for event in seen)


async def ends(service: JobService, after: int | None, states: int) -> AsyncGenerator[Snapshot | Event, None]:
    """The stream of all jobs of "me" until it has told of so many state events; 0 is the first thing it says."""
    async for event in service.events.watch_all("me", after):
        yield event
        if states == 0 or isinstance(event, JobEvent):
            return


async def test_a_cursor_older_than_forgotten_jobs_begins_with_a_snapshot(tmp_path: Path) -> None:
    async with service_in(tmp_path, options=ServiceOptions(retention_s=-1.0)) as service:
        ended = await service.ended((await service.submit(request(), ME)).id)
        await service.retain_once()
        for after in (ended.events[0].number, 10**9):
            opening = [event async for event in ends(service, after, 0)]
            assert [type(event) for event in opening] == [Snapshot]


# ---- forecasts -----------------------------------------------------------------------------------


SLOW = {"step_seconds": 0.1, "decode_seconds": 0.1}


async def test_a_forecast_counts_the_jobs_before_and_is_stored_for_the_next_start(
    tmp_path: Path,
) -> None:
    async with service_in(tmp_path, script=SLOW) as service:
        for job in await submitted(service, 3):
            await service.ended(job.id)
        assert service.events.forecast(await service.get(job.id)) is None
        assert service.events.forecast_record.count == 3
    async with service_in(tmp_path, script=SLOW) as service:
        assert service.events.forecast_record.count == 3
        await service.queue.pause(ME.owner)
        jobs = await submitted(service, 3)
        told = [service.events.forecast(job) for job in jobs]
        assert all(forecast is not None and forecast.is_paused for forecast in told)
        ends = [forecast.expected_s for forecast in told if forecast is not None]
        begins = [forecast.wait_s for forecast in told if forecast is not None]
        assert begins[0] < ends[0] <= begins[1] + 1 < ends[1] + 1 <= begins[2] + 2
        alone = ends[2] - begins[2]
        assert 0.3 < alone < 30
        await service.queue.resume(ME.owner)
        for job in jobs:
            await service.ended(job.id)
        assert service.events.forecast_record.count == 3  # what was told while it was paused is not held against it


async def test_a_running_jobs_progress_has_a_forecast_by_its_own_steps(tmp_path: Path) -> None:
    async with service_in(tmp_path, script=SLOW) as service:
        job = await service.submit(request(steps=6), ME)
        lefts = [
            (event.progress.step, event.progress.seconds_left)
            async for event in service.watch(job.id)
            if isinstance(event, ProgressEvent) and isinstance(event.fact, StepDone)
        ]
        assert all(left is not None and left > 0 for _, left in lefts)
        assert lefts[-1] == min(lefts, key=lambda pair: pair[1] or 0.0)


async def test_a_published_position_has_a_forecast(tmp_path: Path) -> None:
    async with service_in(tmp_path, options=AT_ONCE) as service:
        await service.queue.pause(ME.owner)
        job = await service.submit(request(), ME)
        async for event in service.watch(job.id):
            if isinstance(event, PlaceEvent):
                assert event.forecast.is_paused
                assert event.forecast.expected_s > event.forecast.wait_s
                await service.queue.resume(ME.owner)
                break
        await service.ended(job.id)


async def test_a_full_queue_answers_with_retry_after(tmp_path: Path) -> None:
    options = ServiceOptions(bounds=Bounds(waiting=3, waiting_per_owner=2))
    async with service_in(tmp_path, script={"step_seconds": 1.0}, options=options) as service:
        first = await service.submit(request(steps=8), ME)
        await until(lambda: service.running() is not None)
        await submitted(service, 2)
        with pytest.raises(OwnerQueueFull) as own:
            await service.submit(request(), ME)
        await service.submit(request(), YOU)
        with pytest.raises(QueueFull) as full:
            await service.submit(request(), YOU)
        left = service.events.forecast(first)
        assert left is not None
        for error in (own.value, full.value):
            assert error.retry_after_s is not None
            assert 1 <= error.retry_after_s <= left.expected_s + 10


async def test_a_damaged_forecast_record_is_discarded(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "data")
    await store.open()
    await store.save_state("forecast", "{broken")
    await store.close()
    async with service_in(tmp_path) as service:
        assert service.events.forecast_record.count == 0
        await service.ended((await service.submit(request(), ME)).id)
