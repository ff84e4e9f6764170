"""Jobs that wait for their model: one download for all of them, other models meanwhile, and every way it can end.

The download is real: the hub's client in its child against a small hub.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from engine.catalog import CATALOG
from engine.client import Engine, EngineOptions
from engine.protocol import Failed
from gateway.downloads import client, fetch
from gateway.downloads.sources import remove, sources_of
from gateway.downloads.wire import Fetch, Fetched
from gateway.errors import ModelIsDownloading, ModelKept, ModelNotOnDisk
from gateway.events.bus import PlaceEvent, ProgressEvent
from gateway.images.output import OutputFolder
from gateway.jobs.facts import ModelDownloading
from gateway.jobs.job import Job, State
from gateway.jobs.origin import Origin
from gateway.jobs.plans import Download
from gateway.jobs.resolve import GenerationRequest
from gateway.models.folders import RECORD, Entry, Record, folder_of, staging_of
from gateway.models.library import Library, LocalModel
from gateway.service.service import JobService, ServiceOptions
from gateway.store.sqlite import SqliteStore
from tests.support.toy_hub import ToyHub, toy_hub

ME = Origin(owner="me", protocol="native", attached=False)
ABSENT, QUANTISED = "flux2-klein-4b", "flux2-klein-4b-8-bit"
SPEC = next(spec for spec in CATALOG if spec.name == ABSENT)
REPO = SPEC.repo or ""
BIG = "transformer/model.safetensors"
SIZE = 2_000_000
WEIGHTS = Entry(path=BIG, size=1, digest="0" * 64)
FILES = {
    BIG: random.Random(2).randbytes(SIZE),
    "vae/model.safetensors": b"v" * 1000,
    "text_encoder/model.safetensors": b"t" * 1000,
    "tokenizer/tokenizer.json": b"{}",
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ToyHub]:
    with toy_hub({REPO: dict(FILES)}, commits={REPO: SPEC.revision or "a" * 40}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        yield hub


@asynccontextmanager
async def service_in(folder: Path, *, auto: bool = True) -> AsyncIterator[JobService]:
    weights = folder / "model" / "transformer"
    weights.mkdir(parents=True, exist_ok=True)
    (weights / "x.safetensors").touch()
    output = OutputFolder(folder / "output")
    output.prepare()
    service = JobService(
        store=SqliteStore(folder / "data"),
        engine=Engine(EngineOptions(backend="fake", fake_script=json.dumps({"step_seconds": 0}), backoff_s=(0.0,))),
        library=Library(folder / "models", default="toy", local={"toy": LocalModel(folder / "model", ABSENT)}),
        output=output,
        spool=folder / "data" / "spool",
        options=ServiceOptions(abandon_grace_s=0.05, auto_download=auto, places_every_s=0.05),
    )
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


def asked(model: str | None = ABSENT) -> GenerationRequest:
    return GenerationRequest(prompt="x", width_px=64, height_px=64, steps=2, model=model)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def came(folder: Path) -> int:
    """Bytes of the large file that are on disk."""
    partial = staging_of(folder / "models", REPO) / f"{BIG}.incomplete"
    return partial.stat().st_size if partial.exists() else 0


async def downloads_of(service: JobService) -> list[Job]:
    return [job for job in await service.list_jobs(owner=None) if isinstance(job.plan, Download)]


async def test_jobs_wait_for_shared_download_while_jobs_of_other_models_run(hub: ToyHub, tmp_path: Path) -> None:
    hub.hold_at[BIG] = SIZE // 2
    async with service_in(tmp_path) as service:
        first = await service.submit(asked(), ME)
        second = await service.submit(asked(QUANTISED), ME)
        loads = await service.submit_load(ABSENT, ME)
        await until(hub.held.is_set)
        other = await service.ended((await service.submit(asked("toy"), ME)).id)
        assert other.state is State.SUCCEEDED
        waiting = await service.get(first.id)
        assert waiting.state is State.QUEUED
        assert service.downloads.progress.waits(waiting) is not None
        assert not service.library.on_disk(service.library.find(ABSENT))
        assert not folder_of(tmp_path / "models", REPO).exists()
        hub.go_on.set()
        for job in (first, second, loads):
            assert (await service.ended(job.id)).state is State.SUCCEEDED
        (download,) = await downloads_of(service)
        assert (download.state, download.owner) == (State.SUCCEEDED, "gateway")
        assert service.library.on_disk(service.library.find(QUANTISED))
        assert service.downloads.claimable() is None
    assert len(hub.bodies()) == len(FILES) + 1  # the large one is sent on to the other host


async def test_download_bytes_and_remaining_time_are_sent_to_waiting_job_watchers(hub: ToyHub, tmp_path: Path) -> None:
    hub.hold_at[BIG] = SIZE // 2
    async with service_in(tmp_path) as service:
        job = await service.submit(asked(QUANTISED), ME)
        await until(hub.held.is_set)
        coming: list[ModelDownloading] = []
        expected = []
        async for event in service.watch(job.id):
            if isinstance(event, ProgressEvent) and isinstance(event.fact, ModelDownloading):
                coming.append(event.fact)
                assert event.progress.phase == "downloading"
                hub.go_on.set()
            if isinstance(event, PlaceEvent):
                expected.append(event.forecast.expected_s)
        total = sum(map(len, FILES.values()))
        assert {(fact.model, fact.total_bytes) for fact in coming} == {(QUANTISED, total)}
        assert all(0 <= fact.done_bytes <= total for fact in coming)
        assert expected
        assert min(expected) > 0


async def test_download_client_that_does_not_wait_gets_retry_or_failure_reason(hub: ToyHub, tmp_path: Path) -> None:
    impatient = Origin(owner="me", protocol="openai", attached=True, waits=False)
    hub.refusals[REPO] = (403, "GatedRepo")
    async with service_in(tmp_path) as service:
        with pytest.raises(ModelIsDownloading) as caught:
            await service.submit(asked(), impatient)
        assert caught.value.retry_after_s == 60
        (download,) = await downloads_of(service)
        assert (await service.ended(download.id)).state is State.FAILED
        hub.refusals.clear()
        with pytest.raises(ModelNotOnDisk, match="accept its licence"):
            await service.submit(asked(), impatient)
        with pytest.raises(ModelIsDownloading):
            await service.submit(asked(), impatient)
        for download in await downloads_of(service):
            await service.ended(download.id)
        job = await service.submit(asked(), impatient)
        assert (await service.ended(job.id)).state is State.SUCCEEDED


async def test_download_disabled_refusal_names_next_step_and_pull_downloads_model(hub: ToyHub, tmp_path: Path) -> None:
    async with service_in(tmp_path, auto=False) as service:
        with pytest.raises(ModelNotOnDisk, match=f"mflux-gateway models pull {ABSENT}"):
            await service.submit(asked(), ME)
        assert hub.seen == []
        pulled = await service.models.pull(ABSENT, ME)
        waiting = await service.submit(asked(), ME)  # it comes anyway
        assert (await service.models.pull(QUANTISED, ME)).id == pulled.id
        assert (await service.ended(waiting.id)).state is State.SUCCEEDED
        assert (await service.ended(pulled.id)).state is State.SUCCEEDED
        again = await service.ended((await service.models.pull(ABSENT, ME)).id)
        assert again.state is State.SUCCEEDED
    assert sum(one.path.endswith("/model.safetensors?signed=yes") for one in hub.bodies()) == 1


async def test_download_is_refused_at_once_in_offline_mode(
    hub: ToyHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    async with service_in(tmp_path) as service:
        with pytest.raises(ModelNotOnDisk, match="HF_HUB_OFFLINE is set"):
            await service.submit(asked(), ME)
        assert (await service.ended((await service.submit(asked("toy"), ME)).id)).state is State.SUCCEEDED


async def test_download_failure_fails_waiting_jobs_with_same_error(hub: ToyHub, tmp_path: Path) -> None:
    hub.refusals[REPO] = (403, "GatedRepo")
    async with service_in(tmp_path) as service:
        jobs = [await service.submit(asked(model), ME) for model in (ABSENT, QUANTISED)]
        for job in jobs:
            ended = await service.ended(job.id)
            assert ended.failure is not None
            assert ended.failure.code == "model_missing"
            assert "accept its licence" in ended.failure.message
        hub.refusals.clear()
        again = await service.submit(asked(), ME)
        assert (await service.ended(again.id)).state is State.SUCCEEDED


async def test_download_resumes_from_partial_file_after_cancel(hub: ToyHub, tmp_path: Path) -> None:
    hub.hold_at[BIG] = 1_500_000
    async with service_in(tmp_path) as service:
        job = await service.submit(asked(), ME)
        (download,) = await downloads_of(service)
        await until(lambda: came(tmp_path) > 1_000_000)
        assert (await service.cancel(download.id, ME.owner)).state is State.CANCELLED
        ended = await service.ended(job.id)
        assert ended.failure == Failed(code="model_missing", message=f"The download of {ABSENT} was cancelled.")
        hub.hold_at.clear()
        assert (await service.ended((await service.models.pull(ABSENT, ME)).id)).state is State.SUCCEEDED
    ranges = [one.headers["range"] for one in hub.bodies() if "range" in one.headers]
    assert ranges
    assert int(ranges[0].removeprefix("bytes=").rstrip("-")) > 1_000_000


async def test_job_cancelled_while_waiting_releases_the_download(hub: ToyHub, tmp_path: Path) -> None:
    hub.hold_at[BIG] = 10
    async with service_in(tmp_path) as service:
        job = await service.submit(asked(), ME)
        await until(hub.held.is_set)
        assert (await service.cancel(job.id, ME.owner)).state is State.CANCELLED
        hub.go_on.set()
        (download,) = await downloads_of(service)
        assert (await service.ended(download.id)).state is State.SUCCEEDED


async def test_download_child_is_restarted_once_after_death(
    hub: ToyHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.hold_at[BIG] = 1_500_000
    pids: list[int] = []
    listen = client.log_stderr

    async def noted(child: asyncio.subprocess.Process, log: object) -> None:
        pids.append(child.pid)
        await listen(child, client.log)

    monkeypatch.setattr(client, "log_stderr", noted)
    async with service_in(tmp_path) as service:
        job = await service.submit(asked(), ME)
        await until(hub.held.is_set)
        hub.hold_at.clear()
        os.kill(pids[0], signal.SIGKILL)
        assert (await service.ended(job.id)).state is State.SUCCEEDED
        (download,) = await downloads_of(service)
        assert (download.attempt, len(pids)) == (2, 2)


@pytest.mark.parametrize("percent", [10, 99])
async def test_download_child_killed_leaves_nothing_listed_and_next_download_resumes(
    hub: ToyHub, tmp_path: Path, percent: int
) -> None:
    hub.hold_at[BIG] = SIZE * percent // 100
    library = Library(tmp_path / "models", default="flux2-tiny")
    asked = Fetch(models_dir=str(library.models_dir), sources=sources_of(SPEC))
    async with aclosing(client.fetched(asked)) as answers:
        async for _ in answers:
            if came(tmp_path) > SIZE * percent // 100 - 300_000:
                break
    assert not library.on_disk(SPEC)
    had = came(tmp_path)
    hub.hold_at.clear()
    async with aclosing(client.fetched(asked)) as answers:
        assert [answer async for answer in answers][-1] == Fetched()
    assert library.on_disk(SPEC)
    last = [one.headers.get("range") for one in hub.bodies() if one.host == "other"][-1]
    assert last == (f"bytes={had}-" if had else None)


async def test_download_interrupted_resumes_at_next_start(hub: ToyHub, tmp_path: Path) -> None:
    hub.hold_at[BIG] = 1_500_000

    async def before() -> str:
        async with service_in(tmp_path) as service:
            job = await service.submit(asked(), ME)
            await until(lambda: came(tmp_path) > 1_000_000)
            return job.id

    async def after(job_id: str) -> None:
        async with service_in(tmp_path) as service:
            assert (await service.ended(job_id)).state is State.SUCCEEDED

    job_id = await before()
    hub.hold_at.clear()
    await after(job_id)
    assert any("range" in one.headers for one in hub.bodies())


async def test_model_removal_deletes_downloaded_files_only(hub: ToyHub, tmp_path: Path) -> None:
    async with service_in(tmp_path) as service:
        job = await service.submit(asked(), ME)
        with pytest.raises(ModelKept, match="being downloaded"):
            await service.models.remove(ABSENT, ME.owner)
        assert (await service.ended(job.id)).state is State.SUCCEEDED
        with pytest.raises(ModelKept, match="in memory"):
            await service.models.remove(QUANTISED, ME.owner)
        await service.models.unload(ME.owner)
        await service.queue.pause(ME.owner)
        waiting = await service.submit(asked(QUANTISED), ME)
        with pytest.raises(ModelKept, match="Jobs wait"):
            await service.models.remove(ABSENT, ME.owner)
        await service.cancel(waiting.id, ME.owner)
        folder, copies = service.library.folder(SPEC), service.residency.copies
        copy = copies.finish(copies.begin(SPEC, folder, 3), folder)
        await service.models.remove(ABSENT, ME.owner)
        assert not folder.exists()
        assert not copy.exists()
        assert not service.library.on_disk(service.library.find(QUANTISED))
        with pytest.raises(ModelNotOnDisk):
            await service.models.remove(ABSENT, ME.owner)
        with pytest.raises(ModelKept, match="yours"):
            await service.models.remove("toy", ME.owner)


def test_model_files_needed_by_another_model_stay_until_its_removal(tmp_path: Path) -> None:
    small, large = (next(spec for spec in CATALOG if spec.name == f"seedvr2-{size}b") for size in (3, 7))
    files = {pattern: pattern.encode() for spec in (small, large) for pattern in spec.files}
    library = Library(tmp_path, default="flux2-tiny")
    with toy_hub({small.repo or "": files}, commits={small.repo: small.revision}) as hub:
        for spec in (small, large):
            fetch.Download(Fetch(models_dir=str(tmp_path), sources=sources_of(spec)), endpoint=hub.url).run()
    folder = library.folder(large)
    assert library.folder(small) == folder
    remove(library, large)
    assert (library.on_disk(small), library.on_disk(large)) == (True, False)
    assert {file.name for file in folder.glob("*.safetensors")} == set(small.files)
    with pytest.raises(ModelNotOnDisk):
        remove(library, large)
    remove(library, small)
    assert not folder.exists()


def test_model_used_by_another_is_removed_after_it(tmp_path: Path) -> None:
    plain, controlled = (
        next(spec for spec in CATALOG if spec.name == name) for name in ("flux1-dev", "flux1-dev-controlnet-canny")
    )
    library = Library(tmp_path, default="flux2-tiny")
    for source in sources_of(controlled):
        record = Record(repo=source.repo, revision="a" * 40, patterns=source.patterns, files=(WEIGHTS,))
        weights = folder_of(tmp_path, source.repo) / WEIGHTS.path
        weights.parent.mkdir(parents=True)
        weights.write_bytes(b"x" * WEIGHTS.size)
        (folder_of(tmp_path, source.repo) / RECORD).write_text(record.model_dump_json())
    with pytest.raises(ModelKept, match="canny needs the files"):
        remove(library, plain)
    remove(library, controlled)
    assert (library.on_disk(plain), library.on_disk(controlled)) == (True, False)
    remove(library, plain)
    assert not library.on_disk(plain)


async def test_model_folder_placed_by_operator_needs_no_download(hub: ToyHub, tmp_path: Path) -> None:
    own = tmp_path / "models" / ABSENT / "transformer"
    own.mkdir(parents=True)
    (own / "model.safetensors").touch()
    async with service_in(tmp_path) as service:
        assert (await service.ended((await service.submit(asked(), ME)).id)).state is State.SUCCEEDED
        await service.models.unload(ME.owner)
        with pytest.raises(ModelKept, match="yours"):
            await service.models.remove(ABSENT, ME.owner)
    assert hub.seen == []
    assert not staging_of(tmp_path / "models", REPO).exists()


async def test_hub_token_is_in_no_log_and_no_event(
    hub: ToyHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub.refusals[REPO] = (403, "")
    caplog.set_level("DEBUG")
    async with service_in(tmp_path) as service:
        job = await service.ended((await service.submit(asked(), ME)).id)
        told = repr(job) + "".join(repr(one.events) for one in await downloads_of(service))
        assert "hf_secret" not in told + caplog.text
    assert any(one.headers.get("authorization") == "Bearer hf_secret" for one in hub.seen)
