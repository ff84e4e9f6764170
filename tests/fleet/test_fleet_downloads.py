"""Downloads of a fleet: a model that no node has is downloaded by one on which its jobs fit, once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.catalog import CATALOG
from gateway.errors import ModelNotOnDisk
from gateway.events.bus import ProgressEvent
from gateway.jobs.job import State
from gateway.jobs.plans import Download
from gateway.service.service import ServiceOptions
from tests.support.fleet import fleet_in
from tests.support.service import ME, request, until
from tests.support.toy_hub import ToyHub, toy_hub

ABSENT = "flux2-klein-4b"
SPEC = next(spec for spec in CATALOG if spec.name == ABSENT)
REPO = SPEC.repo or ""
BIG = "transformer/model.safetensors"
SIZE = 400_000
FILES = {
    BIG: bytes(SIZE),
    "vae/model.safetensors": b"v" * 1000,
    "text_encoder/model.safetensors": b"t" * 1000,
    "tokenizer/tokenizer.json": b"{}",
}
GB = 10**9
AUTO = ServiceOptions(abandon_grace_s=0.05, auto_download=True, places_every_s=0.05)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ToyHub]:
    with toy_hub({REPO: dict(FILES)}, commits={REPO: SPEC.revision or "a" * 40}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        yield hub


async def test_absent_model_is_downloaded_once_by_the_worker_that_its_job_fits_on(hub: ToyHub, tmp_path: Path) -> None:
    hub.hold_at[BIG] = SIZE // 2
    async with fleet_in(tmp_path) as fleet:
        gateway = await fleet.start("gateway", lanes=(), models=(), options=AUTO)
        other = await fleet.start("gateway 2", lanes=(), models=(), options=AUTO)
        small = await fleet.start("worker", memory_bytes=GB, options=AUTO)
        large = await fleet.start("worker 2", memory_bytes=500 * GB, options=AUTO)
        await until(lambda: gateway.fleet is not None and len(gateway.fleet.roster.with_lane("engine")) == 2)
        jobs = [await gateway.submit(request(model=ABSENT), ME) for _ in range(2)]
        present = await gateway.submit(request(steps=1), ME)
        assert (await asyncio.wait_for(gateway.ended(present.id), 20)).state is State.SUCCEEDED, (
            "it waits for no download"
        )
        async with asyncio.timeout(20):
            async for event in other.watch(jobs[0].id):
                if isinstance(event, ProgressEvent):
                    assert event.progress.phase == "downloading"
                    break
        hub.go_on.set()
        ended = [await asyncio.wait_for(other.ended(job.id), 30) for job in jobs]
        assert [job.state for job in ended] == [State.SUCCEEDED] * 2, ended[0].failure
        downloads = [job for job in await gateway.list_jobs(owner=None) if isinstance(job.plan, Download)]
        assert [job.state for job in downloads] == [State.SUCCEEDED]
        spec = gateway.library.find(ABSENT)
        has = [service.library.on_disk(spec) for service in (gateway, other, small, large)]
        assert has == [False, False, False, True]


async def test_absent_model_that_may_not_come_is_refused(tmp_path: Path) -> None:
    async with fleet_in(tmp_path) as fleet:
        gateway = await fleet.start("gateway", lanes=(), models=())
        await fleet.start("worker")
        await until(lambda: gateway.fleet is not None and bool(gateway.fleet.roster.with_lane("engine")))
        with pytest.raises(ModelNotOnDisk):
            await gateway.submit(request(model=ABSENT), ME)
