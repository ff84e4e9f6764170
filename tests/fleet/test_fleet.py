"""A fleet of gateways and workers on one job store, as several services on one event loop."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.errors import InsufficientMemory, StorageFault
from gateway.events.bus import ProgressEvent
from gateway.jobs.facts import Requeued
from gateway.jobs.job import Job, JobEvent, State
from gateway.jobs.origin import Origin
from gateway.service.retention import Turn
from gateway.service.service import JobService
from gateway.store.base import Lease
from tests.support.fleet import LEASE_S, fleet_in
from tests.support.service import ME, request, until

SLOW = {"step_seconds": 0.05}
GB = 10**9
ATTACHED = Origin(owner="me", protocol="native", attached=True)


async def _submit(gateway: JobService, **said: object) -> Job:
    return await gateway.submit(request(**said), ME)


async def _state(gateway: JobService, job: Job) -> State | None:
    return (await gateway.get(job.id)).state


async def _runs(service: JobService, job: Job) -> None:
    """Wait until this process knows that the job runs, and a step of it is done."""
    await until(lambda: (progress := service.events.progress(job.id)) is not None and progress.step > 0)


async def _pixels(service: JobService, job: Job) -> list[bytes]:
    return [(service.output.folder / image.file).read_bytes()[-400:] for image in job.images]


async def _end(gateway: JobService, job: Job) -> Job:
    return await asyncio.wait_for(gateway.ended(job.id), 20)


async def test_worker_draws_what_a_gateway_without_lanes_accepted(tmp_path: Path) -> None:
    async with fleet_in(tmp_path) as fleet:
        gateway = await fleet.start("gateway", lanes=(), models=())
        worker = await fleet.start("worker")
        ended = await _end(gateway, await _submit(gateway))
        assert ended.state is State.SUCCEEDED, ended.failure
        assert (worker.output.folder / ended.images[0].file).exists()
        assert gateway.engine.pid is None


async def test_gateway_without_lanes_accepts_no_job_while_the_shared_place_of_images_is_at_fault(
    tmp_path: Path,
) -> None:
    async with fleet_in(tmp_path) as fleet:
        gateway = await fleet.start("gateway", lanes=(), models=())
        place, aside = tmp_path / "output", tmp_path / "aside"
        place.rename(aside)
        place.write_text("no folder")
        gateway.storage.doubt()
        with pytest.raises(StorageFault):
            await _submit(gateway)
        place.unlink()
        aside.rename(place)
        gateway.storage.doubt()
        assert await _state(gateway, await _submit(gateway)) is State.QUEUED


async def test_job_accepted_before_any_worker_is_there_waits_for_one(tmp_path: Path) -> None:
    async with fleet_in(tmp_path) as fleet:
        gateway = await fleet.start("gateway", lanes=(), models=())
        job = await _submit(gateway)
        assert gateway.events.waits_for(job) == "No worker takes jobs now."
        assert await gateway.health.engine_fault() == "No worker is there."
        await fleet.start("worker")
        assert (await _end(gateway, job)).state is State.SUCCEEDED


async def test_stream_of_another_gateway_has_every_event_once_and_the_progress(tmp_path: Path) -> None:
    async with fleet_in(tmp_path) as fleet:
        gateway = await fleet.start("gateway", lanes=(), models=())
        other = await fleet.start("gateway 2", lanes=(), models=())
        await fleet.start("worker", script=SLOW)
        job = await _submit(gateway, seeds=(1, 2), steps=6, previews=2)
        seqs, steps, previews = [], [], 0
        async for event in other.watch(job.id):
            if isinstance(event, JobEvent):
                seqs.append(event.seq)
            elif isinstance(event, ProgressEvent):
                steps.append((event.progress.image, event.progress.step))
                previews += event.fact.kind == "preview"
                assert event.progress.images == 2
        assert seqs == list(range(1, len(seqs) + 1))
        assert len(set(steps)) > 4
        assert steps == sorted(steps)
        assert previews
        assert other.events.progress(job.id) is None
        progress = [text for text in fleet.stores["worker"].messages if '"progress"' in text]
        assert len(progress) < 20


async def test_cancel_through_the_other_gateway_stops_the_job_within_one_step(tmp_path: Path) -> None:
    async with fleet_in(tmp_path) as fleet:
        gateway = await fleet.start("gateway", lanes=(), models=())
        other = await fleet.start("gateway 2", lanes=(), models=())
        worker = await fleet.start("worker", script=SLOW)
        job = await _submit(gateway, steps=100)
        await _runs(other, job)
        ended = await asyncio.wait_for(other.cancel(job.id, "me"), 5)
        assert ended.state is State.CANCELLED
        assert await _state(gateway, job) is State.CANCELLED
        assert worker.engine.deaths == 0
        assert (await _end(gateway, await _submit(gateway))).state is State.SUCCEEDED, "no stop is left over"


async def test_skip_through_a_gateway_finishes_the_image_on_the_worker(tmp_path: Path) -> None:
    async with fleet_in(tmp_path) as fleet:
        gateway = await fleet.start("gateway", lanes=(), models=())
        await fleet.start("worker", script=SLOW)
        job = await _submit(gateway, steps=100, seeds=(1, 2))
        await _runs(gateway, job)
        gateway.skip(job.id)
        await until(lambda: (at := gateway.events.progress(job.id)) is not None and at.image == 1)
        gateway.skip(job.id)
        ended = await _end(gateway, job)
        assert [image.cut_short for image in ended.images] == [True, True]


async def test_running_job_shown_is_the_own_one_of_this_protocol_first(tmp_path: Path) -> None:
    async with fleet_in(tmp_path) as fleet:
        gateway = await fleet.start("gateway", lanes=(), models=())
        for name in ("worker", "worker 2"):
            await fleet.start(name, script=SLOW)
        first = await _submit(gateway, steps=100)
        await _runs(gateway, first)
        mine = await gateway.submit(request(steps=100), Origin(owner="you", protocol="sdapi", attached=False))
        await _runs(gateway, mine)
        shown = [gateway.running(*who) for who in (("you", "sdapi"), ("you", "native"), ("me", "native"), ("they", ""))]
        assert [job.id if job else None for job in shown] == [mine.id, mine.id, first.id, first.id]
        assert len(gateway.engines.running_jobs()) == 2


async def test_unload_through_a_gateway_frees_the_model_of_the_worker(tmp_path: Path) -> None:
    async with fleet_in(tmp_path) as fleet:
        gateway = await fleet.start("gateway", lanes=(), models=())
        worker = await fleet.start("worker")
        await _end(gateway, await _submit(gateway))
        await until(lambda: gateway.engines.loaded_models == ("toy",))
        assert gateway.engine.loaded_model == "toy"
        assert await gateway.models.unload("me", "toy")
        await until(lambda: worker.engine.loaded_model is None)
        await until(lambda: gateway.engines.loaded_models == ())
        assert not await gateway.models.unload("me", "toy")


async def test_pause_of_one_gateway_holds_for_all_workers_and_ends_at_once(tmp_path: Path) -> None:
    async with fleet_in(tmp_path) as fleet:
        gateway = await fleet.start("gateway", lanes=(), models=())
        other = await fleet.start("gateway 2", lanes=(), models=())
        await fleet.start("worker", report_s=60.0)
        await gateway.queue.pause("me")
        job = await _submit(gateway)
        await until(lambda: other.events.waits_for(job) == "The queue is paused.")
        await other.queue.resume("me")
        assert (await _end(gateway, job)).state is State.SUCCEEDED


# ---- leases ----------------------------------------------------------------------------------------


async def test_lease_is_renewed_while_a_job_runs_longer_than_it(tmp_path: Path) -> None:
    async with fleet_in(tmp_path) as fleet:
        gateway = await fleet.start("gateway", lanes=(), models=())
        await fleet.start("worker", script={"step_seconds": 0.3})
        job = await _end(gateway, await _submit(gateway, steps=5))
        assert (job.state, job.attempt) == (State.SUCCEEDED, 1)
        assert fleet.stores["worker"].renewals > 2


async def test_job_of_a_silent_worker_is_drawn_by_another_and_filed_once(tmp_path: Path) -> None:
    async with fleet_in(tmp_path) as fleet:
        gateway = await fleet.start("gateway", lanes=(), models=())
        silent = await fleet.start("worker", script={"step_seconds": 0.1})
        job = await _submit(gateway, steps=25, seeds=(1, 2))
        await _runs(gateway, job)
        fleet.stores["worker"].is_away = True
        (tmp_path / "output" / f"{job.id}.1.7.png").write_bytes(b"what a kill before the commit leaves")
        await fleet.start("worker 2")
        ended = await _end(gateway, job)
        assert (ended.state, ended.attempt) == (State.SUCCEEDED, 2)
        assert [event.fact.kind for event in ended.events].count("image_done") == 2
        fleet.stores["worker"].is_away = False
        await until(lambda: silent.fleet is not None and not silent.fleet.leases.job_ids)
        assert (await _state(gateway, job)) is State.SUCCEEDED
        files = [file.name for file in (tmp_path / "output").iterdir() if file.suffix == ".png"]
        assert sorted(files) == sorted(image.file for image in ended.images), "the silent one has filed nothing"
        assert silent.engine.deaths == 0


async def test_worker_that_has_lost_its_lease_stops_and_draws_the_next_job(tmp_path: Path) -> None:
    async with fleet_in(tmp_path) as fleet:
        gateway = await fleet.start("gateway", lanes=(), models=())
        worker = await fleet.start("worker", script=SLOW)
        job = await _submit(gateway, steps=100)
        await _runs(gateway, job)
        await gateway.queue.pause("me")
        assert worker.fleet is not None
        leases = worker.fleet.leases
        await fleet.stores["gateway"].release(Lease(await gateway.get(job.id), ""), "lease_expired")
        await until(lambda: not leases.job_ids)
        await gateway.queue.resume("me")
        await until(lambda: gateway.running() is not None)
        assert (await gateway.get(job.id)).attempt == 2
        await gateway.cancel(job.id, "me")


async def test_image_is_filed_after_the_store_was_away_longer_than_the_lease(tmp_path: Path) -> None:
    async with fleet_in(tmp_path) as fleet:
        gateway = await fleet.start("gateway", lanes=(), models=())
        await fleet.start("worker", script={"step_seconds": 0.1})
        job = await _submit(gateway, steps=12)
        await _runs(gateway, job)
        for view in fleet.stores.values():
            view.is_away = True
        await asyncio.sleep(1.5 * LEASE_S)
        for view in fleet.stores.values():
            view.is_away = False
        ended = await _end(gateway, job)
        assert (ended.state, ended.attempt) == (State.SUCCEEDED, 1)


# ---- who runs what ---------------------------------------------------------------------------------


async def test_worker_claims_only_jobs_of_models_on_its_disk(tmp_path: Path) -> None:
    async with fleet_in(tmp_path) as fleet:
        gateway = await fleet.start("gateway", lanes=(), models=())
        one = await fleet.start("worker", models=("toy",))
        two = await fleet.start("worker 2", models=("other",))
        jobs = [await _submit(gateway, model=model) for model in ("toy", "other", "other", "toy")]
        assert {(await _end(gateway, job)).state for job in jobs} == {State.SUCCEEDED}
        assert (one.engine.loaded_model, two.engine.loaded_model) == ("toy", "other")
        assert [job.attempt for job in [await gateway.get(job.id) for job in jobs]] == [1, 1, 1, 1]


async def test_job_claimed_before_it_was_placed_goes_back_to_the_worker_that_can_run_it(tmp_path: Path) -> None:
    async with fleet_in(tmp_path) as fleet:
        gateway = await fleet.start("gateway", lanes=(), models=())
        able = await fleet.start("worker 2", models=("other",))
        hasty = await fleet.start("worker", models=("toy",))
        assert hasty.fleet is not None
        assert able.fleet is not None
        await fleet.stores["gateway"].drain("worker 2", True)
        await until(lambda: able.fleet is not None and able.fleet.is_draining)
        on_event, seen = hasty.fleet._placement.on_event, []
        hasty._bus._listeners.remove(on_event)

        def late(job: Job, event: JobEvent) -> None:
            """The first event, of the job's submit, comes too late."""
            seen.append(event)
            if len(seen) > 1:
                on_event(job, event)

        hasty._bus._listeners.insert(0, late)
        job = await _submit(gateway, model="other")
        await until(lambda: len(seen) >= 3)
        await fleet.stores["gateway"].drain("worker 2", False)
        ended = await _end(gateway, job)
        assert ended.state is State.SUCCEEDED, ended.failure
        facts = [event.fact for event in ended.events]
        assert Requeued(reason="released") in facts
        assert facts.count(Requeued(reason="released")) == 1


async def test_job_too_large_for_one_worker_waits_for_the_one_that_it_fits(tmp_path: Path) -> None:
    async with fleet_in(tmp_path) as fleet:
        gateway = await fleet.start("gateway", lanes=(), models=())
        small = await fleet.start("worker", memory_bytes=GB, script=SLOW)
        large = await fleet.start("worker 2", memory_bytes=200 * GB)
        job = await _submit(gateway, width_px=1024, height_px=1024)
        ended = await _end(gateway, job)
        assert (ended.state, ended.attempt) == (State.SUCCEEDED, 1), ended.failure
        assert (small.engine.loaded_model, large.engine.loaded_model) == (None, "toy")


async def test_job_that_fits_no_worker_is_refused_at_submit(tmp_path: Path) -> None:
    async with fleet_in(tmp_path) as fleet:
        gateway = await fleet.start("gateway", lanes=(), models=())
        await fleet.start("worker", memory_bytes=GB)
        await until(lambda: gateway.fleet is not None and gateway.fleet.roster.memory_bytes == GB)
        with pytest.raises(InsufficientMemory):
            await _submit(gateway, width_px=1024, height_px=1024)


async def test_worker_prefers_the_model_in_its_memory_within_the_lookahead(tmp_path: Path) -> None:
    async with fleet_in(tmp_path, lookahead=2) as fleet:
        gateway = await fleet.start("gateway", lanes=(), models=())
        worker = await fleet.start("worker", models=("toy", "other"))
        await _end(gateway, await _submit(gateway, model="toy"))
        await gateway.queue.pause("me")
        jobs = [await _submit(gateway, model=model) for model in ("other", "toy", "toy", "toy")]
        await until(lambda: worker.queue.depth("engine") == 4 and not worker._held("engine"))
        await gateway.queue.resume("me")
        starts = [(await _end(gateway, job)).started_steady or 0.0 for job in jobs]
        assert sorted(range(4), key=lambda n: starts[n]) == [1, 2, 0, 3]


# ---- leaving ---------------------------------------------------------------------------------------


async def test_draining_worker_ends_its_job_and_claims_no_more(tmp_path: Path) -> None:
    async with fleet_in(tmp_path) as fleet:
        gateway = await fleet.start("gateway", lanes=(), models=())
        worker = await fleet.start("worker", script=SLOW)
        running, waiting = await _submit(gateway, steps=10), await _submit(gateway)
        await _runs(gateway, running)
        await asyncio.wait_for(worker.drain(), 10)
        assert await _state(gateway, running) is State.SUCCEEDED
        assert await _state(gateway, waiting) is State.QUEUED
        await fleet.start("worker 2")
        assert (await _end(gateway, waiting)).state is State.SUCCEEDED


async def test_operator_drains_a_worker_and_lets_it_go_on(tmp_path: Path) -> None:
    async with fleet_in(tmp_path) as fleet:
        gateway = await fleet.start("gateway", lanes=(), models=())
        worker = await fleet.start("worker")
        await fleet.stores["gateway"].drain("worker", True)
        await until(lambda: worker.fleet is not None and worker.fleet.is_draining)
        job = await _submit(gateway)
        await asyncio.sleep(0.3)
        assert await _state(gateway, job) is State.QUEUED
        await fleet.stores["gateway"].drain("worker", False)
        assert (await _end(gateway, job)).state is State.SUCCEEDED


async def test_stopped_worker_puts_its_job_back_for_another(tmp_path: Path) -> None:
    async with fleet_in(tmp_path) as fleet:
        gateway = await fleet.start("gateway", lanes=(), models=())
        await fleet.start("worker", script={"step_seconds": 0.1})
        job = await _submit(gateway, steps=12, seeds=(1, 2))
        await _runs(gateway, job)
        await fleet.stop("worker")
        assert await _state(gateway, job) is State.QUEUED
        await fleet.start("worker 2")
        ended = await _end(gateway, job)
        assert (ended.state, ended.attempt, len(ended.images)) == (State.SUCCEEDED, 2, 2)


async def test_death_of_a_gateway_cancels_its_attached_jobs_only(tmp_path: Path) -> None:
    async with fleet_in(tmp_path) as fleet:
        gateway = await fleet.start("gateway", lanes=(), models=())
        other = await fleet.start("gateway 2", lanes=(), models=())
        await other.queue.pause("me")
        attached = await gateway.submit(request(), ATTACHED)
        kept = await gateway.submit(request(), ME)
        others = await other.submit(request(), ATTACHED)
        fleet.stores["gateway"].is_away = True
        assert (await _end(other, attached)).state is State.CANCELLED
        assert {await _state(other, job) for job in (kept, others)} == {State.QUEUED}
        fleet.stores["gateway"].is_away = False


async def test_clean_up_is_done_by_one_process_in_each_period(tmp_path: Path) -> None:
    async with fleet_in(tmp_path) as fleet:
        for name in ("gateway", "gateway 2", "gateway 3"):
            await fleet.start(name, lanes=(), models=())
        turns = [Turn(store) for store in fleet.stores.values()]
        await fleet.stores["gateway"].save_state("retention", "")
        taken = await asyncio.gather(*(turn.take(60.0) for turn in turns))
        assert sum(taken) == 1
        assert not any(await asyncio.gather(*(turn.take(60.0) for turn in turns)))
        assert sum(await asyncio.gather(*(turn.take(0.1) for turn in turns))) == 1, "the next period"
