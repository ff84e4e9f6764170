"""The conformance of every place of files: a folder, a folder that several processes share, and a bucket of S3."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.files.address import BucketAddress
from gateway.files.base import Files, FilesRefused, KeyTaken
from gateway.files.clock import PlaceClock
from gateway.files.folder import Folder
from gateway.files.s3 import Bucket, S3Files, S3Options
from tests.support.s3 import KEY, PAGE, SECRET, new_bucket, storage

Make = Callable[[], Files]
"""Each call gives the files as another process sees them."""


def folder_at(root: Path, *, is_shared: bool) -> Make:
    return lambda: Folder(root / "mflux" / "images", place="the folder", is_shared=is_shared)


def bucket_at(bucket: str, prefix: str = "mflux") -> Make:
    keys = {"access_key_id": KEY, "secret_access_key": SECRET}
    options = S3Options(endpoint=storage(), region="us-east-1", timeout_s=5, **keys)
    return lambda: S3Files(Bucket(BucketAddress(bucket, prefix), options), "images", place="the bucket")


@pytest.fixture(params=["folder", "shared", "s3"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    (tmp_path / "mflux").mkdir()
    if request.param == "s3":
        made = bucket_at(new_bucket())
    else:
        made = folder_at(tmp_path, is_shared=request.param == "shared")
    made().prepare()
    return made


def test_file_is_read_by_every_process_as_it_was_written(make: Make) -> None:
    mine, theirs = make(), make()
    for key, data in (("a.png", b"one"), ("b.1.png", b""), ("c", bytes(range(256)) * 40_000)):
        mine.put(key, data)
        for files in (mine, theirs):
            assert files.get(key) == data
            assert files.tail(key, 2) == data[-2:]
            assert files.tail(key, 10**9) == data
            status = files.stat(key)
            assert status is not None
            assert status.bytes == len(data)
            assert abs(time.time() - status.made_at) < 60


def test_file_that_does_not_exist_is_none(make: Make) -> None:
    files = make()
    assert (files.get("a"), files.stat("a"), files.tail("a", 1), files.stats(["a"]), list(files.list())) == (
        None,
        None,
        None,
        {},
        [],
    )
    files.remove("a")
    files.put("a", b"x")
    files.remove("a")
    files.remove("a")
    assert files.get("a") is None


def test_put_replaces_a_file_and_create_does_not(make: Make) -> None:
    files, other = make(), make()
    files.put("a", b"first")
    files.put("a", b"second")
    assert other.get("a") == b"second"
    with pytest.raises(KeyTaken):
        other.put("a", b"third", create=True)
    other.put("a", b"second", create=True)
    files.put("b", b"new", create=True)
    assert (other.get("a"), other.get("b")) == (b"second", b"new")
    assert {key for key, _ in files.list()} == {"a", "b"}


def test_one_of_many_processes_creates_a_file(make: Make) -> None:
    def create(number: int) -> bool:
        try:
            make().put("a", str(number).encode(), create=True)
        except KeyTaken:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        winners = [number for number, is_mine in enumerate(pool.map(create, range(8))) if is_mine]
    assert len(winners) == 1
    assert make().get("a") == str(winners[0]).encode()


@pytest.mark.parametrize(
    "key", ["", ".", "..", "../a", "a/../b", "a/b", "/a", "a/", ".a", "A", "a b", "a\n", "a\0", "a%2e", "ä", "a" * 129]
)
def test_key_that_no_server_made_is_refused(make: Make, key: str) -> None:
    files = make()
    calls: list[Callable[[], object]] = [
        lambda: files.put(key, b"x"),
        lambda: files.put(key, b"x", create=True),
        lambda: files.get(key),
        lambda: files.tail(key, 1),
        lambda: files.stat(key),
        lambda: files.stats([key]),
        lambda: files.remove(key),
        lambda: files.url(key, 60),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="not a server-made name"):
            call()


def test_more_files_than_one_page_are_listed_by_prefix(make: Make) -> None:
    files = make()
    keys = [f"{number:04x}.{number % 3}.png" for number in range(2 * PAGE + 10)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: files.put(key, b"x"), keys))
    assert sorted(key for key, _ in files.list()) == keys
    assert sorted(key for key, _ in files.list("005")) == [key for key in keys if key.startswith("005")]
    assert [key for key, _ in files.list(keys[-1][:5])] == [keys[-1]]
    assert [key for key, _ in files.list(keys[PAGE])] == [keys[PAGE]]
    assert list(files.list("zz")) == []
    assert set(files.stats(["0000.0.png", "nothing", "0001.1.png"])) == {"0000.0.png", "0001.1.png"}


def test_calls_run_in_another_thread(make: Make) -> None:
    files = make()

    async def ask() -> bytes | None:
        assert await files.run(threading.get_ident) != threading.get_ident()
        await files.run(files.put, "a", b"x", create=True)
        return await files.run(files.get, "a")

    assert asyncio.run(ask()) == b"x"


def test_ages_are_those_of_the_place_whatever_the_clock_of_the_process_shows(make: Make) -> None:
    early, late = make(), make()
    ahead_s = 3600 if early.is_shared else 0  # a folder of one process has its clock
    assert isinstance(late, Folder | S3Files)
    late.clock = PlaceClock(late.clock.read, date=lambda: time.time() + ahead_s)
    early.put("a", b"x")
    for files, ahead in ((early, 0), (late, ahead_s)):
        status = files.stat("a")
        assert status is not None
        assert (status.age_s is None) is not early.is_shared
        assert (status.age_s or 0) < 60
        assert abs(status.made_at - time.time() - ahead) < 60


def test_clock_of_a_place_is_read_again_when_this_machines_clock_jumps_or_it_slept() -> None:
    now = {"there": 1000.0, "date": 5000.0, "elapsed": 0.0}
    reads: list[float] = []

    def read() -> float:
        reads.append(now["there"])
        return now["there"]

    def passes(seconds: float, *, asleep: bool = False) -> None:
        now["there"] += seconds
        now["date"] += seconds
        now["elapsed"] += 0 if asleep else seconds

    clock = PlaceClock(read, date=lambda: now["date"], elapsed=lambda: now["elapsed"])
    assert clock.made(900.0) == (4900.0, 100.0)
    passes(60)
    assert clock.made(900.0) == (4900.0, 160.0)
    assert len(reads) == 1
    now["date"] -= 3600
    assert clock.made(900.0) == (1300.0, 160.0)
    passes(7200, asleep=True)
    assert clock.made(900.0)[1] == 7360.0
    passes(3600)
    assert clock.made(900.0)[1] == 10960.0
    assert len(reads) == 4
    assert clock.made(10**9)[1] == 0.0, "a date to come is none"


def test_shared_folder_that_cannot_be_used_is_refused_with_a_sentence(tmp_path: Path) -> None:
    files = folder_at(tmp_path, is_shared=True)()
    with pytest.raises(FilesRefused, match="there is no folder"):
        files.prepare()
    (tmp_path / "mflux").mkdir()
    (tmp_path / "mflux" / "images").touch()
    with pytest.raises(FilesRefused, match="images cannot be used: Not a directory"):
        files.prepare()
    (tmp_path / "mflux" / "images").unlink()
    (tmp_path / "mflux" / "images").mkdir()
    (tmp_path / "mflux" / "images").chmod(0o1777)
    with pytest.raises(FilesRefused, match="is open to others"):
        files.prepare()


@pytest.mark.parametrize("is_shared", [False, True])
def test_what_a_crash_left_half_written_is_neither_listed_nor_kept(tmp_path: Path, is_shared: bool) -> None:
    (tmp_path / "mflux").mkdir()
    files = folder_at(tmp_path, is_shared=is_shared)()
    files.prepare()
    assert files.root is not None
    half, other = files.root / ".aa.1.png.0123.tmp", files.root / ".bb.1.png.0123.tmp"
    half.touch()
    other.touch()
    assert list(files.list()) == []
    files.remove_halves("aa.", older_than_s=60)
    assert half.exists()
    files.remove_halves("aa.")
    assert not half.exists()
    assert other.exists()
