"""LoRAs that the settings name on the hub: fetched at the first request, by the real client against a small hub."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.sdapi.loras import lora_rows
from engine.catalog import HubFiles
from engine.client import Engine, EngineOptions
from engine.protocol import Lora
from gateway.downloads.lists import bring_lists
from gateway.errors import InvalidRequest, ModelIsDownloading, ModelNotOnDisk
from gateway.events.bus import ProgressEvent
from gateway.images.output import OutputFolder
from gateway.jobs.facts import ModelDownloading
from gateway.jobs.job import State
from gateway.jobs.origin import Origin
from gateway.jobs.plans import Download
from gateway.jobs.resolve import GenerationRequest
from gateway.models.library import Library
from gateway.models.lora_repositories import HubCollection, HubEntry, HubLora
from gateway.models.loras import LoraLibrary
from gateway.service.service import JobService, ServiceOptions
from gateway.store.sqlite import SqliteStore
from tests.support.lora import KLEIN_4B, TINY, save_lora
from tests.support.service import until
from tests.support.toy_hub import ToyHub, toy_hub

ME = Origin(owner="me", protocol="native", attached=False)
IMPATIENT = replace(ME, waits=False)
HUB = {
    "ink": HubLora("someone/ink", "weights/ink.safetensors", "flux2-tiny"),
    "wrong": HubLora("someone/ink", "wrong.safetensors", "flux2-tiny"),
    "large": HubLora("someone/ink", "wrong.safetensors", "flux2-klein-4b"),
    "gone": HubLora("someone/gone", "x.safetensors", "flux2-tiny"),
}
PENS = {"pens": HubCollection("someone/pens", "flux2-tiny", revision="c" * 40)}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ToyHub]:
    ink, wrong = (save_lora(tmp_path / "made", str(len(shapes)), shapes).read_bytes() for shapes in (TINY, KLEIN_4B))
    files = {"weights/ink.safetensors": ink, "wrong.safetensors": wrong, "other.safetensors": ink, "x.bin": b"x"}
    pens = {"fine.safetensors": ink, "sets/thick [v2].safetensors": wrong, "old.ckpt": b"x", 'a"b.safetensors': ink}
    with toy_hub({"someone/ink": files, "someone/pens": pens}, commits={"someone/pens": "c" * 40}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        yield hub


@asynccontextmanager
async def service_in(
    folder: Path, *, auto: bool = True, hub: Mapping[str, HubEntry] = HUB
) -> AsyncIterator[JobService]:
    output = OutputFolder(folder / "output")
    output.prepare()
    models = folder / "models"
    service = JobService(
        store=SqliteStore(folder / "data"),
        engine=Engine(EngineOptions(backend="fake", fake_script=json.dumps({"step_seconds": 0}), backoff_s=(0.0,))),
        library=Library(models, default="flux2-tiny", loras=LoraLibrary([], hub=hub, models_dir=models, may_come=auto)),
        output=output,
        spool=folder / "data" / "spool",
        options=ServiceOptions(auto_download=auto),
    )
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


def asked(lora: str) -> GenerationRequest:
    return GenerationRequest(prompt="x", width_px=64, height_px=64, steps=2, loras=(Lora(name=lora),))


async def fetched(service: JobService) -> None:
    """Until every download has ended."""
    for job in await service.list_jobs(owner=None):
        if isinstance(job.plan, Download):
            await service.ended(job.id)


async def test_download_client_that_does_not_wait_gets_retry_or_failure_reason(hub: ToyHub, tmp_path: Path) -> None:
    async with service_in(tmp_path) as service:
        for _ in range(2):
            with pytest.raises(ModelIsDownloading) as coming:
                await service.submit(asked("ink"), IMPATIENT)
            assert (coming.value.param, coming.value.retry_after_s) == ("loras", 60)
        await fetched(service)
        assert {seen.path.rpartition("/")[2] for seen in hub.bodies()} <= {"ink.safetensors"}
        for expected in (ModelIsDownloading, ModelNotOnDisk, ModelIsDownloading):
            with pytest.raises(expected):
                await service.submit(asked("gone"), IMPATIENT)
            await fetched(service)
    async with service_in(tmp_path) as service:
        job = await service.ended((await service.submit(asked("ink"), IMPATIENT)).id)
        assert (job.state, job.plan.loras) == (State.SUCCEEDED, (Lora(name="ink"),))  # type: ignore[union-attr]


async def test_job_waits_for_its_lora_while_other_jobs_of_model_run(hub: ToyHub, tmp_path: Path) -> None:
    hub.hold_at["weights/ink.safetensors"] = 100

    async def before() -> str:
        async with service_in(tmp_path) as service:
            first, second = [await service.submit(asked("ink"), ME) for _ in range(2)]
            await until(hub.held.is_set)
            plain = await service.submit(GenerationRequest(prompt="x", width_px=64, height_px=64, steps=2), ME)
            assert (await service.ended(plain.id)).state is State.SUCCEEDED
            assert (await service.cancel(second.id, ME.owner)).state is State.CANCELLED
            waiting = service.downloads.progress.waits(await service.get(first.id))
            assert waiting is not None
            assert waiting.phase == "downloading"
            return first.id

    async def after(job_id: str) -> None:
        """The next start takes it up."""
        async with service_in(tmp_path) as service:
            wrong, gone = [await service.submit(asked(name), ME) for name in ("wrong", "gone")]
            told = []
            async for event in service.watch(job_id):
                if isinstance(event, ProgressEvent) and isinstance(event.fact, ModelDownloading):
                    told.append(event.fact.model)
                    hub.go_on.set()
            assert (await service.get(job_id)).state is State.SUCCEEDED
            assert set(told) == {"lora:ink"}
            for job, code, reason in ((wrong, "bad_input", "does not fit"), (gone, "model_missing", "no repository")):
                failure = (await service.ended(job.id)).failure
                assert failure is not None
                assert (failure.code, reason in failure.message) == (code, True)
            assert service.downloads.held_jobs() == frozenset()

    await after(await before())


async def test_lora_of_hub_for_another_model_is_refused_without_download(hub: ToyHub, tmp_path: Path) -> None:
    async with service_in(tmp_path) as service:
        with pytest.raises(InvalidRequest, match="it is for flux2-klein-4b"):
            await service.submit(asked("large"), ME)
        assert hub.seen == []


async def test_lora_of_hub_is_not_downloaded_without_permission(hub: ToyHub, tmp_path: Path) -> None:
    async with service_in(tmp_path, auto=False) as service:
        with pytest.raises(InvalidRequest, match="is not on this machine"):
            await service.submit(asked("ink"), ME)
        assert hub.seen == []


async def test_lora_collection_is_listed_after_index_download_and_fetched_per_member(
    hub: ToyHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def members(service: JobService) -> dict[str, bool]:
        loras = service.library.loras.all()
        return {lora.name: lora.file is not None for lora in loras if lora.name.startswith("pens/")}

    async with service_in(tmp_path, hub=PENS) as service:
        await until(lambda: bool(members(service)))
        assert {"pens/fine", "pens/sets/thick [v2]"} <= {row["name"] for row in lora_rows(service.library.loras)}
        assert members(service) == {"pens/fine": False, "pens/sets/thick [v2]": False}
        assert hub.bodies() == []
        for name in ("pens/other", "pens/old", "pens"):
            with pytest.raises(InvalidRequest, match="not"):
                await service.submit(asked(name), ME)
        assert await service.list_jobs(owner=None) == []
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    seen = len(hub.seen)
    async with service_in(tmp_path, hub=PENS) as service:
        assert members(service) == {"pens/fine": False, "pens/sets/thick [v2]": False}
    assert len(hub.seen) == seen
    monkeypatch.delenv("HF_HUB_OFFLINE")
    async with service_in(tmp_path, hub=PENS) as service:
        job = await service.ended((await service.submit(asked("fine"), ME)).id)
        assert (job.state, job.plan.loras) == (State.SUCCEEDED, (Lora(name="pens/fine"),))  # type: ignore[union-attr]
        assert members(service) == {"pens/fine": True, "pens/sets/thick [v2]": False}
        job = await service.ended((await service.submit(asked("pens/sets/thick [v2].safetensors"), ME)).id)
        assert job.failure is not None
        assert "does not fit flux2-tiny" in job.failure.message
        with pytest.raises(InvalidRequest, match="does not fit flux2-tiny"):
            await service.submit(asked("pens/sets/thick [v2]"), ME)
    files = (tmp_path / "models" / "someone--pens").rglob("*.safetensors")
    assert {file.name for file in files} == {"fine.safetensors", "thick [v2].safetensors"}


async def test_hub_file_list_is_requested_again_on_failure_and_logged(
    hub: ToyHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub.refusals["someone/pens"] = (403, "GatedRepo")
    library = LoraLibrary([], hub=PENS, models_dir=tmp_path)

    def unlisted() -> list[HubFiles]:
        if caplog.messages:
            hub.refusals.clear()
        return library.unlisted()

    await bring_lists(tmp_path, unlisted, pauses_s=(0.0,))
    assert "accept its licence" in caplog.text
    assert library.find("pens/fine") is not None
