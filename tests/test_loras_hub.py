"""LoRAs that the settings name on the hub: fetched at the first request, by the real client against a small hub."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine.client import Engine, EngineOptions
from engine.protocol import Download, Lora
from gateway.errors import InvalidRequest, ModelComing, ModelNotOnDisk
from gateway.job import State
from gateway.library import Library
from gateway.lora_hub import HubCollection, HubLora
from gateway.loras import LoraLibrary
from gateway.pictures import Pictures
from gateway.request import GenerationRequest
from gateway.service import JobService, Origin, ServiceOptions
from gateway.store.sqlite import SqliteStore
from tests.lora_support import KLEIN_4B, TINY, save_lora
from tests.service_support import until
from tests.support import run
from tests.toy_hub import ToyHub, toy_hub

ME = Origin(owner="me", protocol="native", attached=False)
HUB = {
    "ink": HubLora("someone/ink", "weights/ink.safetensors", "flux2-tiny"),
    "wrong": HubLora("someone/ink", "wrong.safetensors", "flux2-tiny"),
    "large": HubLora("someone/ink", "wrong.safetensors", "flux2-klein-4b"),
    "gone": HubLora("someone/gone", "x.safetensors", "flux2-tiny"),
    "pens": HubCollection("someone/pens", "flux2-tiny", revision="c" * 40),
}


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
async def service_in(folder: Path, *, auto: bool = True) -> AsyncIterator[JobService]:
    pictures = Pictures(folder / "output")
    pictures.prepare()
    models = folder / "models"
    service = JobService(
        store=SqliteStore(folder / "data"),
        engine=Engine(EngineOptions(backend="fake", fake_script=json.dumps({"step_seconds": 0}), backoff_s=(0.0,))),
        library=Library(models, default="flux2-tiny", loras=LoraLibrary([], hub=HUB, models_dir=models)),
        pictures=pictures,
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


def test_the_first_request_fetches_it_and_the_next_one_draws(hub: ToyHub, tmp_path: Path) -> None:
    async def story() -> None:
        async with service_in(tmp_path) as service:
            for _ in range(2):
                with pytest.raises(ModelComing) as coming:
                    await service.submit(asked("ink"), ME)
                assert (coming.value.param, coming.value.retry_after_s) == ("loras", 60)
            await fetched(service)
            job = await service.ended((await service.submit(asked("ink"), ME)).id)
            assert job.state is State.SUCCEEDED
            assert {seen.path.rpartition("/")[2] for seen in hub.bodies()} <= {"ink.safetensors"}
        async with service_in(tmp_path) as service:
            assert (await service.submit(asked("ink"), ME)).plan.loras == (Lora(name="ink"),)  # type: ignore[union-attr]

    run(story())


def test_another_file_of_the_same_repository_is_fetched_beside_and_judged_once_it_is_here(
    hub: ToyHub, tmp_path: Path
) -> None:
    async def story() -> None:
        async with service_in(tmp_path) as service:
            for name in ("ink", "wrong"):
                with pytest.raises(ModelComing):
                    await service.submit(asked(name), ME)
                await fetched(service)
            await asyncio.to_thread(service.library.loras.file, "ink")
            with pytest.raises(InvalidRequest, match="does not fit flux2-tiny"):
                await service.submit(asked("wrong"), ME)

    run(story())


def test_a_download_that_fails_is_told_to_the_next_request_and_tried_again_by_the_one_after(
    hub: ToyHub, tmp_path: Path
) -> None:
    async def story() -> None:
        async with service_in(tmp_path) as service:
            for expected in (ModelComing, ModelNotOnDisk, ModelComing):
                with pytest.raises(expected):
                    await service.submit(asked("gone"), ME)
                await fetched(service)

    run(story())


def test_one_for_another_model_is_refused_and_not_fetched(hub: ToyHub, tmp_path: Path) -> None:
    async def story() -> None:
        async with service_in(tmp_path) as service:
            with pytest.raises(InvalidRequest, match="it is for flux2-klein-4b"):
                await service.submit(asked("large"), ME)
            assert hub.seen == []

    run(story())


def test_without_leave_nothing_is_fetched(hub: ToyHub, tmp_path: Path) -> None:
    async def story() -> None:
        async with service_in(tmp_path, auto=False) as service:
            with pytest.raises(InvalidRequest, match="is not on this machine"):
                await service.submit(asked("ink"), ME)
            assert hub.seen == []

    run(story())


def test_a_collection_is_listed_once_its_list_is_here_and_fetched_member_by_member(
    hub: ToyHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def members(service: JobService) -> dict[str, bool]:
        loras = service.library.loras.all()
        return {lora.name: lora.file is not None for lora in loras if lora.name.startswith("pens/")}

    async def story() -> None:
        async with service_in(tmp_path) as service:
            await until(lambda: bool(members(service)))
            assert members(service) == {"pens/fine": False, "pens/sets/thick [v2]": False}
            assert hub.bodies() == []
            for name in ("pens/other", "pens/old", "pens"):
                with pytest.raises(InvalidRequest, match="not"):
                    await service.submit(asked(name), ME)
            assert await service.list_jobs(owner=None) == []
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        seen = len(hub.seen)
        async with service_in(tmp_path) as service:
            assert members(service) == {"pens/fine": False, "pens/sets/thick [v2]": False}
        assert len(hub.seen) == seen
        monkeypatch.delenv("HF_HUB_OFFLINE")
        async with service_in(tmp_path) as service:
            with pytest.raises(ModelComing):
                await service.submit(asked("pens/fine"), ME)
            await fetched(service)
            assert members(service) == {"pens/fine": True, "pens/sets/thick [v2]": False}
            job = await service.ended((await service.submit(asked("fine"), ME)).id)
            assert (job.state, job.plan.loras) == (State.SUCCEEDED, (Lora(name="pens/fine"),))  # type: ignore[union-attr]
            with pytest.raises(ModelComing):
                await service.submit(asked("pens/sets/thick [v2].safetensors"), ME)
            await fetched(service)
            with pytest.raises(InvalidRequest, match="does not fit flux2-tiny"):
                await service.submit(asked("pens/sets/thick [v2]"), ME)
        files = (tmp_path / "models" / "someone--pens").rglob("*.safetensors")
        assert {file.name for file in files} == {"fine.safetensors", "thick [v2].safetensors"}

    run(story())
