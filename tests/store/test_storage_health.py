"""Places: whether a folder is there, is the one it was, and takes bytes; which errors are the disk's and no job's."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.disk import fault_of
from gateway.errors import StorageFault, StorageFull
from gateway.service.readiness import Readiness
from gateway.store import folder_health as storage_health
from gateway.store.folder_health import Place, ProbeResult, StorageHealth

OTHER_DISK = Path("/dev/shm")
REFUSALS = (
    *("ENOENT", "ENOTDIR", "EROFS", "EACCES", "EPERM", "EIO", "ESTALE", "ENOTCONN", "ETIMEDOUT"),
    *("EMFILE", "ENFILE", "ENODEV", "EHOSTDOWN"),
)


@pytest.fixture
def share(tmp_path: Path) -> Iterator[Path]:
    """A folder on another disk than its parent, as a mounted share is; `unmounted` takes the share away."""
    if not OTHER_DISK.is_dir() or os.stat(OTHER_DISK).st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("no second disk here")
    behind = OTHER_DISK / secrets.token_hex(8)
    behind.mkdir()
    (tmp_path / "share").symlink_to(behind)
    yield tmp_path / "share"
    shutil.rmtree(behind)


def unmounted(share: Path) -> Path:
    """An empty mount point on the disk below; returns what is mounted again by `mounted`."""
    behind = share.readlink()
    share.unlink()
    share.mkdir()
    return behind


def mounted(share: Path, behind: Path) -> None:
    share.rmdir()
    share.symlink_to(behind)


def looked_at(folder: Path) -> Place:
    place = Place("the output folder", folder)
    place.look()
    return place


@pytest.mark.parametrize("full", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_disk_without_space_is_reported_as_storage_full(full: int) -> None:
    assert isinstance(fault_of(OSError(full, "")), StorageFull)


@pytest.mark.parametrize("name", REFUSALS)
def test_disk_error_is_a_storage_fault(name: str) -> None:
    fault = fault_of(OSError(getattr(errno, name), "", "/secret/path"), "the output folder")
    assert fault is not None
    assert not isinstance(fault, StorageFull)
    assert (fault.status, fault.retry_after_s) == (503, 30)
    assert "secret" not in fault.message


@pytest.mark.parametrize("error", [OSError("image file is truncated"), ValueError(), OSError(errno.EINVAL, "")])
def test_errors_of_other_kinds_are_not_storage_faults(error: Exception) -> None:
    assert fault_of(error) is None


def test_storage_probe_leaves_no_file_and_reports_free_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = looked_at(tmp_path)
    assert (found := place.probe()).fault is None
    assert found.free_bytes
    monkeypatch.setattr(storage_health, "_NAMELESS", 0)  # as where the filesystem knows no file without a name
    assert place.probe().fault is None
    assert not list(tmp_path.iterdir())


def test_storage_folder_removed_is_recreated_if_its_disk_is_present(tmp_path: Path) -> None:
    folder = tmp_path / "output"
    folder.mkdir()
    place = looked_at(folder)
    folder.rmdir()
    assert place.probe().fault is None
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.rmdir()
    folder.write_text("a file stands there")
    assert place.probe().fault is not None
    folder.unlink()
    assert place.probe().fault is None


def test_storage_folder_whose_parent_is_gone_is_reported_missing(tmp_path: Path) -> None:
    folder = tmp_path / "all" / "output"
    folder.mkdir(parents=True)
    place = looked_at(folder)
    (tmp_path / "all").rename(tmp_path / "away")
    assert place.probe().fault is not None
    assert not folder.exists()
    (tmp_path / "away").rename(tmp_path / "all")
    assert place.probe().fault is None


def test_storage_writes_nothing_to_the_mount_point_of_an_unmounted_share(share: Path) -> None:
    place = looked_at(share)
    behind = unmounted(share)
    assert "mounted" in str(place.probe().fault)
    assert not list(share.iterdir())
    mounted(share, behind)
    assert place.probe().fault is None


def test_storage_creates_no_folder_in_the_mount_point_of_an_unmounted_share(share: Path) -> None:
    (share / "output").mkdir()
    place, read = looked_at(share / "output"), Place("the models folder", share / "output", is_written=False)
    read.look()
    behind = unmounted(share)
    assert "mounted" in str(place.probe().fault)
    assert "mounted" in str(read.probe().fault)
    assert not list(share.iterdir())
    mounted(share, behind)
    assert place.probe().fault is None
    assert read.probe().fault is None


def test_model_that_was_removed_is_not_a_storage_fault(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    place = Place("the folder of a model", tmp_path / "model", is_written=False)
    place.look()
    (tmp_path / "model").rmdir()
    assert place.probe().fault is None


async def test_storage_probe_after_a_full_disk_writes_as_many_bytes_as_failed_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that takes four kilobytes and no picture is full."""
    place = looked_at(tmp_path)
    health, room, write = StorageHealth({"output": place}), 100_000, os.write
    written = 0

    def filling(descriptor: int, data: bytes) -> int:
        nonlocal written
        written += len(data)
        if written > room:
            raise OSError(errno.ENOSPC, "")
        return write(descriptor, data)

    monkeypatch.setattr(storage_health.os, "write", filling)
    assert await health.fault(["output"]) is None
    health.needs("output", 200_000)
    for _ in range(2):
        written = 0
        assert isinstance(await health.fault(["output"]), StorageFull)
    written, room = 0, 1_000_000
    assert await health.fault(["output"]) is None
    with pytest.raises(StorageFull):
        await health.check(["output"], least_free_bytes=2**80)


async def test_storage_probe_that_hangs_blocks_nobody_and_is_not_started_twice(tmp_path: Path) -> None:
    answers, asked = threading.Event(), []

    class Hanging(Place):
        def probe(self) -> ProbeResult:
            asked.append(1)
            answers.wait(30)
            return super().probe()

    health = StorageHealth({"output": Hanging("the output folder", tmp_path)}, answer_s=0.05)
    try:
        for _ in range(3):
            with pytest.raises(StorageFault, match="does not answer"):
                await health.check(["output"])
        assert len(asked) == 1
    finally:
        answers.set()
    while await health.fault(["output"]) is not None:
        pass


async def test_health_check_that_hangs_is_reported_and_so_are_the_results_of_the_others() -> None:
    begun, goes_on = [], asyncio.Event()

    async def hanging() -> str | None:
        begun.append(1)
        await goes_on.wait()
        return None

    async def failing() -> str | None:
        raise OSError(errno.EIO, "/secret/path")

    async def refusing() -> str | None:
        raise StorageFull

    async def well() -> str | None:
        return None

    readiness = Readiness([("The share", hanging), ("The store", failing), ("The disk", refusing)], answer_s=0.05)
    readiness.add("The engine", well)
    for _ in range(2):
        assert await readiness.reasons() == ["The share does not answer.", "The store fails.", StorageFull.message]
    assert len(begun) == 1
    goes_on.set()
    assert await readiness.reasons() == ["The store fails.", StorageFull.message]
