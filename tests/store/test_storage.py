"""What the gateway does while a place it writes to is at fault: no job fails, nothing is acknowledged, work stops."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest

from engine.protocol import Succeeded
from gateway.downloads import lane as downloads_lane
from gateway.downloads.wire import Fetch, Fetched, NotFetched
from gateway.errors import ImageDamaged, StorageFault, StorageFull
from gateway.images.output import UNKNOWN, Note
from gateway.jobs.facts import ImageDone, Requeued
from gateway.jobs.job import Job, JobEvent, State
from gateway.ocr.request import OcrRequest
from gateway.service.service import JobService
from gateway.store.database import Database
from gateway.store.sqlite import SqliteStore
from tests.support import ocr as ocr_support
from tests.support.service import ME, request, service_in, until
from tests.support.storage import Disk, disk
from tests.support.store import opened, submit

__all__ = ["disk"]

STEPS = {"step_seconds": 0.03}


def replaced_by_a_file(folder: Path) -> Callable[[], None]:
    """Nobody can write there, whoever they are; returns what undoes it."""
    folder.rename(folder.with_name("away"))
    folder.write_text("a file stands there")

    def undo() -> None:
        folder.unlink()
        folder.with_name("away").rename(folder)

    return undo


async def reason_of(service: JobService) -> str | None:
    fault = await service.health.storage_fault()
    return None if fault is None else fault.message


@pytest.mark.parametrize("place", ["output", "data/spool"])
async def test_storage_folder_missing_stops_the_lane_and_fails_no_job(tmp_path: Path, place: str) -> None:
    async with service_in(tmp_path, script=STEPS) as service:
        jobs = [await service.submit(request(), ME) for _ in range(12)]
        await until(lambda: service.running() is not None)
        undo = replaced_by_a_file(tmp_path / place)
        await until(lambda: "engine" in service.health.faults)
        with pytest.raises(StorageFault):
            await service.submit(request(), ME)
        assert await reason_of(service)
        undo()
        ended = [await service.ended(job.id) for job in jobs]
        assert {job.state for job in ended} == {State.SUCCEEDED}
        assert {job.crashes for job in ended} == {0}
        assert service.health.faults == {}
        assert await reason_of(service) is None
        assert (await service.ended((await service.submit(request(), ME)).id)).state is State.SUCCEEDED


@pytest.mark.parametrize("place", ["output", "data/spool"])
async def test_output_folder_removed_is_recreated_and_the_job_is_drawn(tmp_path: Path, place: str) -> None:
    async with service_in(tmp_path, script=STEPS) as service:
        jobs = [await service.submit(request(), ME) for _ in range(4)]
        await until(lambda: service.running() is not None)
        with suppress(FileNotFoundError):
            shutil.rmtree(tmp_path / place)
        ended = [await service.ended(job.id) for job in jobs]
        assert {job.state for job in ended} == {State.SUCCEEDED}


async def test_job_of_several_images_stops_at_the_first_that_cannot_be_stored(tmp_path: Path, monkeypatch: Any) -> None:
    """What follows could not be filed either; the pictures before are kept."""
    async with service_in(tmp_path, script={"step_seconds": 0.05}) as service:
        keep, full, tried = service.output.keep, True, []

        def faltering(spooled: Path, name: str, *arguments: Any) -> None:
            tried.append(name)
            if full and name.endswith(".1.png"):
                raise StorageFull
            keep(spooled, name, *arguments)

        monkeypatch.setattr(service.output, "keep", faltering)
        job = await service.submit(request(count=8), ME)
        await until(lambda: "engine" in service.health.faults)
        full = False
        ended = await service.ended(job.id)
        assert [image.image for image in ended.images] == list(range(8))
        assert not [name for name in tried if name.startswith(f"{job.id}.1.") and name.endswith(".7.png")]
        assert len(list((tmp_path / "output").iterdir())) == 8


# ---- models, text and downloads --------------------------------------------------------------------


async def test_a_model_whose_share_is_unmounted_keeps_its_jobs_waiting(tmp_path: Path, disk: Disk) -> None:
    """A model that was removed fails its jobs; one whose disk went with it is there again some time."""
    (disk.folder / "model").mkdir()
    (tmp_path / "model").symlink_to(disk.folder / "model")
    async with service_in(tmp_path, script=STEPS) as service:
        assert (await service.ended((await service.submit(request(), ME)).id)).state is State.SUCCEEDED
        jobs = [await service.submit(request(), ME) for _ in range(3)]
        await until(lambda: service.running() is not None)
        disk.unmount()
        await until(lambda: "engine" in service.health.faults)
        assert "mounted" in service.health.faults["engine"]
        disk.mount()
        assert {(await service.ended(job.id)).state for job in jobs} == {State.SUCCEEDED}
        await service.queue.pause(ME.owner)
        job = await service.submit(request(), ME)
        shutil.rmtree(disk.folder / "model")
        await service.queue.resume(ME.owner)
        failed = await service.ended(job.id)
        assert failed.failure is not None
        assert failed.failure.code == "model_missing"


async def read_once_put_back(service: JobService) -> Job:
    job = await service.submit_ocr(OcrRequest(), ocr_support.script("page", "page"), ME)
    ended = await service.ended(job.id)
    assert Requeued(reason="storage_fault") in [event.fact for event in ended.events]
    assert (ended.state, ended.crashes, len(ended.pages)) == (State.SUCCEEDED, 0, 2)
    return ended


async def test_ocr_job_is_requeued_when_its_page_cannot_be_stored(tmp_path: Path, monkeypatch: Any) -> None:
    async with ocr_support.service_in(tmp_path) as service:
        record, faults = SqliteStore.record, iter([False, True])

        async def faltering(self: SqliteStore, *arguments: Any) -> Any:
            if next(faults, False):
                raise StorageFull
            return await record(self, *arguments)

        monkeypatch.setattr(SqliteStore, "record", faltering)
        await read_once_put_back(service)


async def test_ocr_job_is_requeued_when_no_process_can_be_started(tmp_path: Path, monkeypatch: Any) -> None:
    """Too many open files are the gateway's fault, and no crash of the job."""
    async with ocr_support.service_in(tmp_path) as service:
        start = asyncio.create_subprocess_exec
        faults = iter([False, True])  # the first one counts the pages

        async def faltering(*command: Any, **options: Any) -> Any:
            if "tests.support.ocr_child" in command and next(faults, False):
                raise OSError(errno.EMFILE, "Too many open files")
            return await start(*command, **options)

        monkeypatch.setattr(asyncio, "create_subprocess_exec", faltering)
        await read_once_put_back(service)


async def test_ocr_job_is_requeued_when_the_input_folder_is_missing(tmp_path: Path) -> None:
    async with ocr_support.service_in(tmp_path) as service:
        first = await service.submit_ocr(OcrRequest(), ocr_support.script("sleep"), ME)
        await until(lambda: service.events.progress(first.id) is not None)
        job = await service.submit_ocr(OcrRequest(), ocr_support.script("page"), ME)
        undo = replaced_by_a_file(tmp_path / "data" / "blobs")
        with pytest.raises(StorageFault):
            await service.submit_ocr(OcrRequest(), ocr_support.script("page", "page"), ME)
        await service.cancel(first.id, ME.owner)
        await until(lambda: "cpu" in service.health.faults)
        undo()
        assert (await service.ended(job.id)).state is State.SUCCEEDED


async def test_download_job_is_requeued_when_the_models_folder_has_a_fault(tmp_path: Path, monkeypatch: Any) -> None:
    async with service_in(tmp_path) as service:
        answers = iter(
            [
                NotFetched(code="disk_full", message="The disk is full.", is_of_the_disk=True),
                NotFetched(code="model_missing", message="It cannot be written.", is_of_the_disk=True),
                Fetched(),
            ]
        )

        async def fetched(_: Fetch, notes: Path | None) -> Any:
            yield next(answers)

        monkeypatch.setattr(downloads_lane, "fetched", fetched)
        ended = await service.ended((await service.models.pull("flux2-klein-4b", ME)).id)
        assert [event.fact.kind for event in ended.events].count("requeued") == 2
        assert (ended.state, ended.crashes) == (State.SUCCEEDED, 0)


async def test_download_job_waits_until_the_disk_has_the_needed_space_again(tmp_path: Path, monkeypatch: Any) -> None:
    async with service_in(tmp_path) as service:
        (tmp_path / "models").mkdir(exist_ok=True)
        needed = 2**80
        refused = NotFetched(code="disk_full", message="Make room.", is_of_the_disk=True, needed_bytes=needed)
        answers = iter([refused, Fetched()])

        async def fetched(_: Fetch, notes: Path | None) -> Any:
            yield next(answers)

        monkeypatch.setattr(downloads_lane, "fetched", fetched)
        job = await service.models.pull("flux2-klein-4b", ME)
        await until(lambda: "too little room" in service.health.faults.get("network", ""))
        assert (await service.get(job.id)).state is State.QUEUED
        assert await service.health.storage_fault() is None, "pictures are drawn all the same"
        service.storage._places["models"].needed_free_bytes = 0
        assert (await service.ended(job.id)).state is State.SUCCEEDED


# ---- the database ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["jobs.sqlite3", "jobs.sqlite3-wal"])
@pytest.mark.parametrize("how", ["removed", "replaced"])
async def test_store_acknowledges_no_write_to_a_removed_or_replaced_database_file(
    tmp_path: Path, name: str, how: str
) -> None:
    async with opened(lambda: SqliteStore(tmp_path)) as store:
        job = await submit(store)
        file, kept = tmp_path / name, tmp_path / "kept"
        os.link(file, kept)
        file.unlink()
        if how == "replaced":
            shutil.copyfile(kept, file)
        for write in (submit(store), store.check(), store.cancel(job.id, "user"), store.back_up(0.0)):
            with pytest.raises(StorageFault, match="replaced"):
                await write
        assert await store.get(job.id) == job
        assert not list(tmp_path.glob("backups/*"))
        kept.replace(file)
        await submit(store)
        assert len(store.order("engine")) == 2
    async with opened(lambda: SqliteStore(tmp_path)) as store:
        assert len(store.order("engine")) == 2, "all that was acknowledged, and no more"


async def test_database_read_only_is_a_storage_fault(tmp_path: Path) -> None:
    async with opened(lambda: SqliteStore(tmp_path)) as store:
        assert isinstance(store, SqliteStore)
        store._database._write_db.execute("PRAGMA query_only=1")
        with pytest.raises(StorageFault) as refused:
            await submit(store)
        assert not isinstance(refused.value, StorageFull)


async def test_job_is_requeued_when_its_image_file_is_saved_but_its_record_is_not(
    tmp_path: Path, monkeypatch: Any
) -> None:
    """No picture is left that no row names, and the engine draws the same once more."""
    async with service_in(tmp_path) as service:
        record, faults = SqliteStore.record, iter([True])

        async def faltering(self: SqliteStore, *arguments: Any) -> Any:
            if next(faults, False):
                raise StorageFull
            return await record(self, *arguments)

        monkeypatch.setattr(SqliteStore, "record", faltering)
        ended = await service.ended((await service.submit(request(count=2), ME)).id)
        facts = [event.fact for event in ended.events]
        assert Requeued(reason="storage_fault") in facts
        assert facts[-1] == Succeeded()
        assert {file.name for file in (tmp_path / "output").iterdir()} == {image.file for image in ended.images}


async def test_last_image_is_recorded_with_the_outcome_and_neither_without_the_other(
    tmp_path: Path, monkeypatch: Any
) -> None:
    async with service_in(tmp_path) as service:
        commit, faults, tried = SqliteStore.commit, iter([True, True]), []

        async def faltering(self: SqliteStore, *arguments: Any) -> Any:
            tried.append(arguments)
            if next(faults, False):
                raise StorageFull
            return await commit(self, *arguments)

        monkeypatch.setattr(SqliteStore, "commit", faltering)
        ended = await service.ended((await service.submit(request(count=2), ME)).id)
        assert [event.fact.kind for event in ended.events] == ["queued", "started", *["image_done"] * 2, "succeeded"]
        assert len(tried) == 3
        assert [type(fact) for fact in tried[-1][1:]] == [Succeeded, ImageDone]
        assert {file.name for file in (tmp_path / "output").iterdir()} == {image.file for image in ended.images}
        await until(lambda: service.health.blocked("engine") is None)  # without another job


async def test_file_of_the_last_image_is_removed_where_the_lease_is_lost(tmp_path: Path, monkeypatch: Any) -> None:
    async with service_in(tmp_path) as service:
        commit, lost = SqliteStore.commit, []

        async def fenced(self: SqliteStore, *arguments: Any) -> Any:
            lost.append(arguments)
            return "fenced", (await commit(self, arguments[0], arguments[1]))[1]

        monkeypatch.setattr(SqliteStore, "commit", fenced)
        ended = await service.ended((await service.submit(request(), ME)).id)
        assert (len(lost), ended.images) == (1, ())
        await until(lambda: not list((tmp_path / "output").iterdir()))


async def test_picture_of_an_idle_gateway_takes_two_transactions(tmp_path: Path, monkeypatch: Any) -> None:
    """Submitted and claimed, then recorded and ended; an idle lane writes nothing."""
    async with service_in(tmp_path) as service:
        monkeypatch.setattr(SqliteStore, "save_state", AsyncMock())  # what forecasts learned, now and then
        await service.ended((await service.submit(request(), ME)).id)
        await until(lambda: service._lane._is_idle and not service._lane._works)
        writes, write = [], Database.write

        async def counted(self: Database, work: Any) -> Any:
            writes.append(self._write_db.total_changes)
            return await write(self, work)

        monkeypatch.setattr(Database, "write", counted)
        await service.ended((await service.submit(request(), ME)).id)
        await until(lambda: service._lane._is_idle and not service._lane._works)
        assert len(writes) == 2


# ---- pictures that are not what was written --------------------------------------------------------


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def one_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("damage", [cut, one_bit, lambda file: file.write_bytes(b"")])
@pytest.mark.parametrize("noted", [True, False])
async def test_a_damaged_picture_is_never_read(tmp_path: Path, damage: Callable[[Path], None], noted: bool) -> None:
    """Of pictures of an older gateway nothing is on record: their own sums tell."""
    async with service_in(tmp_path) as service:
        job = await service.submit(request(), ME)
        done: ImageDone | None = None
        async for event in service.watch(job.id):
            if isinstance(event, JobEvent) and isinstance(event.fact, ImageDone):
                done = event.fact
        assert done is not None
        note, output = Note.of(done) if noted else UNKNOWN, service.output
        assert (whole := output.read(done.file, note)) is not None
        assert len(whole) == done.length_bytes
        assert not output.damaged([done])
        damage(output.folder / done.file)
        with pytest.raises(ImageDamaged):
            output.read(done.file, note)
        again = await service.ended((await service.retry(job.id)).id)
        assert output.read(again.images[0].file, Note.of(again.images[0])) == whole
