"""Memory, copies and models set aside, played through the service against the fake engine."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.client import Engine, EngineOptions
from engine.protocol import Run
from gateway.errors import InsufficientMemory, ModelUnavailable
from gateway.images.output import OutputFolder
from gateway.jobs.job import Job, State
from gateway.jobs.origin import Origin
from gateway.jobs.resolve import GenerationRequest
from gateway.models.library import Library, LocalModel
from gateway.residency import ResidencyOptions
from gateway.service.service import JobService, ServiceOptions
from gateway.store.sqlite import SqliteStore

ME = Origin(owner="me", protocol="native", attached=False)
GB = 10**9


@asynccontextmanager
async def service_in(
    folder: Path, *, options: ServiceOptions | None = None, script: dict[str, Any] | None = None, **residency: Any
) -> AsyncIterator[JobService]:
    """Models that the fake engine takes: toy, other, and whole, whose VAE decodes the whole picture at once."""
    names = {"toy": "flux2-klein-base-4b", "other": "flux2-klein-base-4b", "whole": "flux1-dev"}
    for name in names:
        weights = folder / name / "transformer"
        weights.mkdir(parents=True, exist_ok=True)
        if not (weights / "x.safetensors").exists():
            (weights / "x.safetensors").touch()
    output = OutputFolder(folder / "output")
    output.prepare()
    counted = {"counter_path": str(folder / "count"), **(script or {})}
    service = JobService(
        store=SqliteStore(folder / "data"),
        engine=Engine(EngineOptions(backend="fake", fake_script=json.dumps(counted), backoff_s=(0.0,))),
        library=Library(
            folder / "models",
            default="toy",
            local={name: LocalModel(folder / name, like) for name, like in names.items()},
        ),
        output=output,
        spool=folder / "data" / "spool",
        options=options or ServiceOptions(),
        residency=ResidencyOptions(models_dir=folder / "models", **residency),
    )
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


async def submit(service: JobService, **said: Any) -> Job:
    request = {"prompt": "x", "width_px": 64, "height_px": 64, "steps": 4, **said}
    return await service.submit(GenerationRequest(**request), ME)


async def drawn(service: JobService, **said: Any) -> Job:
    return await service.ended((await submit(service, **said)).id)


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


# ---- memory --------------------------------------------------------------------------------------


async def test_job_that_cannot_fit_memory_is_refused_at_submit_and_others_run(tmp_path: Path) -> None:
    async with service_in(tmp_path, script={"memory_limit_bytes": 2 * GB}) as service:
        await until(lambda: service.engine.memory_limit_bytes == 2 * GB)
        with pytest.raises(InsufficientMemory) as caught:
            await submit(service, width_px=1024, height_px=1024, model="whole", low_ram=False)
        assert caught.value.details["suggestion"] == "Set low_ram=true"
        job = await drawn(service, width_px=512, height_px=512, low_ram=True)
        assert job.state is State.SUCCEEDED
        spared = await submit(service, width_px=1024, height_px=1024, model="whole")
        assert spared.plan.low_ram
        assert [told.param for told in spared.adjustments] == ["low_ram"]


def aborts(limit_gb: float, **script: Any) -> dict[str, Any]:
    """R-14: the engine aborts at step 3 with most of the memory in use."""
    abort = {"crash_at_step": 3, "crash_with": "SIGABRT", "crash_times": 2, "peak_bytes": int(9.5 * GB)}
    return {**abort, "memory_limit_bytes": int(limit_gb * GB), **script}


async def test_memory_full_abort_is_retried_once_then_reported_with_advice(tmp_path: Path) -> None:
    async with service_in(tmp_path, script=aborts(10)) as service:
        failed, other = [await submit(service) for _ in range(2)]
        ended = await service.ended(failed.id)
        assert ended.failure is not None
        assert ended.failure.code == "engine_oom"
        assert ended.failure.message.startswith("Insufficient memory. ")
        assert ended.attempt == 2
        assert (await service.ended(other.id)).state is State.SUCCEEDED


async def test_memory_abort_is_not_retried_when_estimate_exceeds_limit(tmp_path: Path) -> None:
    async with service_in(tmp_path, script=aborts(9), memory_is_set=True) as service:
        ended = await drawn(service)
        assert ended.failure is not None
        assert (ended.failure.code, ended.attempt) == ("engine_oom", 1)
        with pytest.raises(InsufficientMemory):
            await submit(service, low_ram=False)


async def test_engine_abort_with_little_memory_in_use_is_a_crash(tmp_path: Path) -> None:
    async with service_in(tmp_path, script=aborts(100)) as service:
        ended = await drawn(service)
        assert ended.failure is not None
        assert ended.failure.code == "engine_crash"


async def test_memory_exhausted_in_a_step_is_retried_once_in_the_same_process(tmp_path: Path) -> None:
    async with service_in(tmp_path, script={"oom_at_step": 2, "crash_times": 1}) as service:
        await until(lambda: service.engine.pid is not None)
        pid = service.engine.pid
        ended = await drawn(service)
        assert (ended.state, ended.attempt) == (State.SUCCEEDED, 2)
        assert service.engine.pid == pid


async def test_memory_measurements_are_kept_after_restart(tmp_path: Path) -> None:
    script = {"active_bytes": 3 * GB, "peak_bytes": 5 * GB}
    async with service_in(tmp_path, script=script) as service:
        job = await drawn(service)
        await until(lambda: service.residency.admission.footprint(job.plan, service.library.find("toy")).peak == 5 * GB)
    async with service_in(tmp_path) as service:
        assert service.residency.admission.footprint(job.plan, service.library.find("toy")).peak == 5 * GB


async def test_memory_low_ram_defaults_to_the_setting(tmp_path: Path) -> None:
    async with service_in(tmp_path, options=ServiceOptions(low_ram=True)) as service:
        assert [(await submit(service, low_ram=said)).plan.low_ram for said in (None, False)] == [True, False]


# ---- loading and unloading -----------------------------------------------------------------------


async def test_model_idle_is_unloaded_and_reloaded_for_next_job(tmp_path: Path) -> None:
    async with service_in(tmp_path, idle_unload_s=0.05) as service:
        await drawn(service)
        await until(lambda: service.engine.works and service.engine.loaded_model is None)
        assert (await drawn(service)).state is State.SUCCEEDED


async def test_model_stays_loaded_by_default(tmp_path: Path) -> None:
    async with service_in(tmp_path) as service:
        loads = loads_of(service)
        await drawn(service)
        await drawn(service)
        assert len(loads) == 1
        await service.models.unload(ME.owner)
        await drawn(service)
        assert len(loads) == 2


def loads_of(service: JobService) -> list[bool]:
    """Grows with every load from now on: whether it was from a copy."""
    loads, note = [], service.residency.note_loaded

    async def noted(run: Run, *, from_copy: bool) -> bool:
        loads.append(from_copy)
        return await note(run, from_copy=from_copy)

    service.residency.note_loaded = noted  # type: ignore[method-assign]
    return loads


# ---- quantised copies ----------------------------------------------------------------------------

IN_4_BITS = ServiceOptions(quantize=4)


def copies_in(folder: Path) -> list[Path]:
    return sorted((folder / "models" / "quantized").glob("*"))


async def test_model_is_quantised_once_saved_after_image_and_loaded_from_copy(tmp_path: Path) -> None:
    async with service_in(tmp_path, options=IN_4_BITS) as service:
        loads = loads_of(service)
        await drawn(service)
        await until(lambda: copies_in(tmp_path) and copies_in(tmp_path)[0].name.endswith("4-bit-" + place(tmp_path)))
        await drawn(service)
        assert loads == [False], "saving it leaves it loaded"
    async with service_in(tmp_path, options=IN_4_BITS) as service:
        loads = loads_of(service)
        await drawn(service)
        assert loads == [True]


def place(folder: Path) -> str:
    import hashlib

    return hashlib.sha256(str((folder / "toy").resolve()).encode()).hexdigest()[:8]


async def test_quantised_copy_is_saved_before_model_is_swapped_out(tmp_path: Path) -> None:
    async with service_in(tmp_path, options=IN_4_BITS) as service:
        await service.queue.pause(ME.owner)
        loads = loads_of(service)
        jobs = [await submit(service, model=model) for model in ("toy", "other", "toy")]
        await service.queue.resume(ME.owner)
        await service.ended(jobs[-1].id)
        assert loads == [False, False, True]


async def test_quantised_copy_that_fails_to_load_is_rebuilt_without_failing_a_job(tmp_path: Path) -> None:
    async with service_in(tmp_path, options=IN_4_BITS) as service:
        await drawn(service)
        await until(lambda: service.residency.copies.find(service.library.find("toy"), tmp_path / "toy", 4))
    (tmp_path / "models" / "quantized").joinpath(copies_in(tmp_path)[0], "transformer", "0.safetensors").unlink()
    async with service_in(tmp_path, options=IN_4_BITS) as service:
        loads = loads_of(service)
        assert (await drawn(service)).state is State.SUCCEEDED
        assert loads == [False]
        await until(lambda: (copies_in(tmp_path)[0] / "transformer" / "0.safetensors").exists())


async def test_engine_crash_during_save_leaves_no_copy_and_fails_no_job(tmp_path: Path) -> None:
    script = {"crash_in": "save", "crash_times": 1}
    async with service_in(tmp_path, options=IN_4_BITS, script=script) as service:
        first = await drawn(service)
        second = await drawn(service)
        assert (first.state, second.state, second.attempt) == (State.SUCCEEDED, State.SUCCEEDED, 1)
        await until(lambda: service.residency.copies.find(service.library.find("toy"), tmp_path / "toy", 4))


# ---- models set aside ----------------------------------------------------------------------------

DEADLY = {"crash_in": "load", "crash_times": 2}


async def test_model_that_crashes_engine_twice_is_quarantined_and_others_run(tmp_path: Path) -> None:
    async with service_in(tmp_path, script=DEADLY) as service:
        first, waiting = [await submit(service) for _ in range(2)]
        failed, refused = [await service.ended(job.id) for job in (first, waiting)]
        assert failed.failure is not None
        assert refused.failure is not None
        assert (failed.failure.code, refused.failure.code) == ("engine_crash", "model_unavailable")
        with pytest.raises(ModelUnavailable) as caught:
            await submit(service)
        assert (caught.value.status, caught.value.code) == (503, "model_unavailable")
        assert str(tmp_path) not in caught.value.message
        assert (await drawn(service, model="other")).state is State.SUCCEEDED
    async with service_in(tmp_path) as service:
        with pytest.raises(ModelUnavailable):
            await submit(service)
        os.utime(tmp_path / "toy" / "transformer" / "x.safetensors", ns=(1, 1))
        assert (await drawn(service)).state is State.SUCCEEDED


async def test_model_cleared_by_operator_is_tried_again(tmp_path: Path) -> None:
    async with service_in(tmp_path, script=DEADLY) as service:
        await drawn(service)
        folder = service.library.folder(service.library.find("toy"))
        assert service.residency.is_set_aside(folder)
        assert await service.residency.clear(folder)
        assert (await drawn(service)).state is State.SUCCEEDED


async def test_engine_death_at_model_load_is_forgotten_after_successful_load(tmp_path: Path) -> None:
    async with service_in(tmp_path, script={"crash_in": "load", "crash_times": 1}) as service:
        job = await drawn(service)
        assert (job.state, job.attempt) == (State.SUCCEEDED, 2)
        assert not service.residency.is_set_aside(tmp_path / "toy")
        assert not await service.residency.clear(tmp_path / "toy")
