"""Inputs and images of several processes: what one of them removes is never what another has just stored or uses."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import StorageFault
from gateway.files.base import Files, FileStat, KeyTaken
from gateway.images.output import OutputFolder, image_folder
from gateway.store.blobs import blob_folder, name_of
from gateway.store.shared_blobs import RENEWED_S, SharedBlobs
from gateway.store.sqlite import SqliteStore
from tests.files.test_files import bucket_at
from tests.support.s3 import new_bucket
from tests.support.storage import Disk, disk
from tests.support.store import opened

__all__ = ["disk"]

HOUR = 3600.0
DATA = b"x" * 100
NAME = name_of(DATA)
JOB, OTHER = "a" * 32, "b" * 32
Make = Callable[[], Any]


class Aging:
    """Files whose place grows older by `later`: everything that is in it then."""

    def __init__(self, files: Files, grown_s: dict[str, float]) -> None:
        self._files = files
        self._grown_s = grown_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    def list(self, prefix: str = "") -> Iterator[tuple[str, FileStat]]:
        for key, stat in self._files.list(prefix):
            grown_s = self._grown_s.get(key, 0.0)
            assert stat.age_s is not None
            yield key, FileStat(stat.bytes, stat.made_at - grown_s, stat.age_s + grown_s)

    def later(self, seconds: float) -> None:
        for key, _ in self._files.list():
            self._grown_s[key] = self._grown_s.get(key, 0.0) + seconds


@pytest.fixture(params=["shared folder", "s3"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Each call gives the files as another process sees them; those of a folder take images and blobs."""
    grown_s: dict[str, float] = {}
    if request.param == "s3":
        of_bucket = bucket_at(new_bucket())
        return lambda: Aging(of_bucket(), grown_s)
    blob_folder(tmp_path / "files").prepare()
    return lambda: Aging(blob_folder(tmp_path / "files", is_shared=True), grown_s)


def blobs_of(files: Files) -> SharedBlobs:
    return SharedBlobs(files, lambda date: 10 * HOUR)


def test_blob_is_read_by_every_process_and_the_smaller_of_two_files_stays(make: Make) -> None:
    mine, theirs = blobs_of(make()), blobs_of(make())
    assert not theirs.are_there()
    with pytest.raises(KeyError):
        theirs.get(NAME)
    with pytest.raises(KeyError):
        theirs.size(NAME)
    assert mine.put(DATA, NAME) == 100
    assert theirs.get(NAME) == DATA
    assert theirs.put(DATA + b"more", NAME) == 100
    assert theirs.get(NAME) == DATA
    assert theirs.put(b"less", NAME) == 4
    assert mine.get(NAME) == b"less"
    assert (mine.size(NAME), mine.sizes(), mine.are_there()) == (4, {NAME: 4}, True)


@pytest.mark.parametrize("name", ["", "..", "../" + NAME[3:], NAME.upper(), NAME[:-1], NAME + "0"])
def test_name_that_is_no_sha256_is_no_blob(make: Make, name: str) -> None:
    blobs = blobs_of(make())
    for call in (blobs.get, blobs.size):
        with pytest.raises(KeyError):
            call(name)


def test_unused_blobs_are_removed_once_they_are_old(make: Make) -> None:
    files = make()
    blobs, used = blobs_of(files), name_of(b"used")
    blobs.put(DATA, NAME)
    blobs.put(b"used", used)
    assert blobs.drop_unused({used}, HOUR) == 0
    files.later(HOUR + RENEWED_S + 10)
    assert blobs.drop_unused({used}, HOUR, most_s=HOUR) == 0, "a damaged record may name it"
    assert blobs.drop_unused({used}, HOUR) == 1
    assert blobs.sizes() == {used: 4}
    assert blobs.get(used) == b"used"


def test_blob_stored_again_while_another_process_removes_it_stays(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process is stopped between its look at the copies and their removal, for as long as it takes."""
    mine, theirs = make(), make()
    blobs_of(mine).put(DATA, NAME)
    mine.later(HOUR + RENEWED_S + 10)
    remove = theirs.remove

    def stopped(key: str) -> None:
        blobs_of(mine).put(DATA, NAME)
        remove(key)

    monkeypatch.setattr(theirs, "remove", stopped)
    blobs_of(theirs).drop_unused((), HOUR)
    assert blobs_of(make()).get(NAME) == DATA


def test_blob_that_was_stored_again_is_kept_as_long_as_a_new_one(make: Make) -> None:
    """However old its first copy was: a client is told that it stays an hour."""
    for first_age_s in (0.0, RENEWED_S - 60, RENEWED_S + 60, HOUR):
        name = secrets.token_hex(32)
        files = make()
        blobs_of(files).put(DATA, name)
        files.later(first_age_s)
        blobs_of(files).put(DATA, name)
        files.later(HOUR - 10)
        blobs_of(files).drop_unused((), HOUR)
        assert blobs_of(files).get(name) == DATA


def test_larger_file_that_renews_a_blob_does_not_replace_the_smaller_one(make: Make) -> None:
    files = make()
    blobs_of(files).put(b"less", NAME)
    files.later(RENEWED_S + 10)
    assert blobs_of(files).put(DATA, NAME) == 4
    assert len(list(files.list())) == 2
    assert blobs_of(files).get(NAME) == b"less"
    files.later(HOUR + 10)
    assert blobs_of(files).drop_unused({NAME}, HOUR) == 0
    assert len(list(files.list())) == 1, "the older copy is removed, also of a blob in use"
    assert blobs_of(files).get(NAME) == b"less"


def test_blob_whose_copy_is_removed_while_it_is_read_is_read_from_the_younger_one(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = make(), make()
    blobs_of(mine).put(DATA, NAME)
    get = theirs.get

    def overtaken(key: str) -> Any:
        monkeypatch.undo()
        mine.later(RENEWED_S + 10)
        blobs_of(mine).put(DATA, NAME)
        mine.remove(key)
        return get(key)

    monkeypatch.setattr(theirs, "get", overtaken)
    assert blobs_of(theirs).get(NAME) == DATA


async def test_store_does_not_remove_the_inputs_of_another_one_in_the_same_place(make: Make, tmp_path: Path) -> None:
    """They are all unused to it; the processes of one store are one, also after a restart."""
    first, second = (lambda name=name: SqliteStore(tmp_path / name, inputs=make()) for name in ("first", "second"))
    async with opened(first) as store:
        name = await store.put_blob(DATA)
        make().later(HOUR - 60)
        assert await store.drop_unused_blobs(HOUR) == 0
    make().later(2 * HOUR)
    async with opened(second) as store:
        await store.put_blob(b"other")
        assert await store.drop_unused_blobs(HOUR) == 0
        assert await store.blob(name) == DATA
    async with opened(first) as store:
        assert await store.drop_unused_blobs(-1.0) == 1
        with pytest.raises(KeyError):
            await store.blob(name)


def test_processes_that_store_and_remove_the_same_blobs_lose_none(make: Make) -> None:
    names = [secrets.token_hex(32) for _ in range(4)]
    old = make()
    for name in names:
        blobs_of(old).put(DATA, name)

    make().later(HOUR + RENEWED_S + 60)

    def work(number: int) -> None:
        files = make()
        for name in names:
            if number % 2:
                blobs_of(files).put(DATA, name)
            else:
                blobs_of(files).drop_unused((), HOUR)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert [blobs_of(make()).get(name) for name in names] == [DATA] * 4


# ---- images -----------------------------------------------------------------------------------------


def names_in(files: Files) -> list[str]:
    return sorted(name for name, _ in files.list())


def test_processes_that_shrink_at_once_remove_the_same_oldest_images(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its own clock, and one is stopped while the other removes and a third one writes."""
    first, second, writer = make(), make(), make()
    names = [f"{number:032x}.1.0.png" for number in range(6)]
    for name in names:
        writer.put(name, b"x" * 100)
    writer.later(HOUR)
    remove, written = first.remove, f"{9:032x}.1.0.png"

    def stopped(key: str) -> None:
        monkeypatch.setattr(first, "remove", remove)
        OutputFolder(second).shrink(400, age_s=lambda date: -date)
        writer.put(written, b"y" * 100)
        remove(key)

    monkeypatch.setattr(first, "remove", stopped)
    OutputFolder(first).shrink(400)
    left = names_in(writer)
    assert written in left
    assert len(left) == 5, "nothing below the quota of 400 and the image that was written meanwhile"


def test_image_that_was_just_written_is_not_removed_for_the_quota(make: Make) -> None:
    """The commit that names it may be under way in another process."""
    files = make()
    old, new = (f"{number}{JOB[1:]}.1.0.png" for number in range(2))
    files.put(old, b"x" * 100)
    OutputFolder(files).shrink(50)
    assert names_in(files) == [old]
    files.later(HOUR)
    OutputFolder(files).shrink(50, spare={old.partition(".")[0]})
    assert names_in(files) == [old]
    OutputFolder(files).shrink(50)
    assert names_in(files) == []
    files.put(new, b"x")


def test_sweep_of_a_crashed_attempt_leaves_the_files_of_the_next_one(make: Make) -> None:
    files = make()
    kept, left, older, of_next, of_tenth, foreign = (
        f"{JOB}.2.0.png",
        f"{JOB}.2.1.png",
        f"{JOB}.1.0.png",
        f"{JOB}.3.0.png",
        f"{JOB}.20.0.png",
        f"{OTHER}.2.0.png",
    )
    for name in (kept, left, older, of_next, of_tenth, foreign):
        files.put(name, b"x")
    OutputFolder(files).sweep(JOB, {kept}, 2)
    assert names_in(files) == sorted([kept, of_next, of_tenth, foreign])


def test_jobs_whose_images_are_there_are_those_of_all_processes(make: Make) -> None:
    files = make()
    output, other = OutputFolder(files), OutputFolder(make())
    assert output.jobs_there() == frozenset()
    other.files.put(f"{JOB}.1.0.png", b"x")
    assert output.jobs_there() == {JOB}
    other.files.put(f"{OTHER}.1.0.png", b"x")
    assert output.jobs_there() == {JOB, OTHER}
    assert output.existing([f"{JOB}.1.0.png", f"{JOB}.1.1.png", "../x"]) == {f"{JOB}.1.0.png"}


def test_image_of_a_worker_that_lost_its_lease_never_replaces_another(make: Make, tmp_path: Path) -> None:
    name = f"{JOB}.1.0.png"
    for number, shade in enumerate((10, 10, 200)):
        spooled = tmp_path / f"{number}.ppm"
        spooled.write_bytes(b"P6 1 1 255\n" + bytes([shade] * 3))
        output = OutputFolder(make(), signs=False)
        if number < 2:
            output.keep(spooled, name)
            note = output.note_of(name)
            assert note is not None
            assert not spooled.exists()
        else:
            with pytest.raises(KeyTaken):
                output.keep(spooled, name)
    assert OutputFolder(make()).read(name, note) is not None


def test_images_of_a_shared_folder_are_readable_as_the_settings_say(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "images", opens=True, is_shared=True)
    folder.prepare()
    folder.put(f"{JOB}.1.0.png", b"x")
    assert (tmp_path / "images" / f"{JOB}.1.0.png").stat().st_mode & 0o777 == 0o644
    private = image_folder(tmp_path / "private", is_shared=True)
    private.prepare()
    private.put(f"{JOB}.1.0.png", b"x", create=True)
    assert (tmp_path / "private" / f"{JOB}.1.0.png").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("below", ["", "mflux"])
def test_share_that_is_not_mounted_any_more_is_a_fault_and_gets_nothing_below_its_mount_point(
    disk: Disk, below: str
) -> None:
    root = disk.folder / below
    root.mkdir(exist_ok=True)
    output = OutputFolder(image_folder(root / "images", is_shared=True))
    blobs = SharedBlobs(blob_folder(root / "inputs", is_shared=True), lambda date: 0.0)
    name = f"{JOB}.1.0.png"
    output.prepare()
    output.place.look()
    blobs.prepare()
    output.files.put(name, b"x", create=True)
    blobs.put(DATA, NAME)
    disk.unmount()
    for call in (
        lambda: output.read(name),
        lambda: output.existing([name]),
        lambda: output.jobs_there(),
        lambda: output.files.put(name, b"y"),
        lambda: output.files.put(name, b"y", create=True),
        lambda: output.shrink(0),
        lambda: blobs.get(NAME),
        lambda: blobs.size(NAME),
        lambda: blobs.put(DATA, NAME),
        lambda: blobs.drop_unused((), 0.0),
    ):
        with pytest.raises(StorageFault):
            call()
    assert output.place.probe().fault is not None
    assert list(disk.folder.iterdir()) == []
    disk.mount()
    assert output.place.probe().fault is None
    assert output.files.get(name) == b"x"
    assert blobs.get(NAME) == DATA
