"""A bucket at fault: what is refused at a start, what fails while it is away, and that nothing tells a key."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from obstore.exceptions import GenericError

from gateway.errors import StorageFault, StorageFull
from gateway.files.address import BucketAddress, FolderAddress, check_endpoint, parse_address
from gateway.files.base import FilesRefused, KeyTaken
from gateway.files.s3 import REST_S, Bucket, S3Files, S3Options
from gateway.images.output import OutputFolder
from gateway.store.folder_health import place_of
from tests.support.s3 import KEY, SECRET, Gate, gate, new_bucket, remove_bucket, storage

PLACE = "the bucket of pictures"


@pytest.fixture(scope="module")
def door() -> Iterator[Gate]:
    with gate() as opened:
        yield opened


def files_at(endpoint: str, bucket: str, prefix: str = "", **more: Any) -> S3Files:
    given = {"region": "us-east-1", "access_key_id": KEY, "secret_access_key": SECRET, "timeout_s": 1.5, **more}
    return S3Files(Bucket(BucketAddress(bucket, prefix), S3Options(endpoint=endpoint, **given)), "images", place=PLACE)


def calls_of(files: S3Files) -> dict[str, Callable[[], object]]:
    return {
        "put": lambda: files.put("a", b"x"),
        "create": lambda: files.put("a", b"x", create=True),
        "get": lambda: files.get("a"),
        "get nothing": lambda: files.get("b"),
        "stat": lambda: files.stat("a"),
        "stat nothing": lambda: files.stat("b"),
        "stats": lambda: files.stats(["a", "b"]),
        "tail": lambda: files.tail("a", 1),
        "list": lambda: list(files.list()),
        "list by prefix": lambda: list(files.list("a")),
        "remove": lambda: files.remove("a"),
    }


# ---- addresses ------------------------------------------------------------------------------------------


def test_address_names_a_folder_or_a_bucket() -> None:
    assert parse_address("file:///mnt/a%20b/") == FolderAddress(folder=parse_address("file:///mnt/a%20b").folder)  # type: ignore[union-attr]
    for url in ("s3://bucket/a/b", "s3://bucket/a/b/", "s3://bucket//a/b"):
        assert parse_address(url) == BucketAddress("bucket", "a/b")
    for url in ("s3://bucket", "s3://bucket/"):
        assert parse_address(url) == BucketAddress("bucket")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "must look like"),
        ("/mnt/mflux", "must look like"),
        ("ftp://host/x", "must look like"),
        ("http://host/x", "must look like"),
        ("S4://x", "must look like"),
        ("s3://[", "must look like"),
        ("file://mnt/mflux", "absolute folder"),
        ("file:mflux", "absolute folder"),
        ("file://./mflux", "absolute folder"),
        ("file:///", "absolute folder"),
        ("file:///mnt/../etc", "must not contain"),
        ("file:///mnt/%2e%2e/etc", "must not contain"),
        ("file:///mnt/x?a=b", "without anything after"),
        ("s3://", "must name a bucket"),
        ("s3:///x", "must name a bucket"),
        ("s3://a", "must name a bucket"),
        ("s3://buc ket/x", "must name a bucket"),
        ("s3://bucket/../other", "prefix"),
        ("s3://bucket/%2e%2e/other", "prefix"),
        ("s3://bucket/a//b", "prefix"),
        ("s3://bucket/a%00b", "without anything after"),
        ("s3://bucket/" + "a" * 513, "prefix"),
        ("s3://bucket/x#y", "without anything after"),
        ("s3://key:secret@bucket/x", "must not contain a key"),
    ],
)
def test_address_that_names_no_place_is_refused_and_not_repeated(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as refused:
        parse_address(url)
    assert "secret" not in str(refused.value).replace("files.secret_access_key", "")


@pytest.mark.parametrize("endpoint", ["http://10.0.0.1:9000", "http://minio:9000", "http://localhost.evil.example"])
def test_http_to_another_machine_needs_consent(endpoint: str) -> None:
    with pytest.raises(ValueError, match="allow_http"):
        check_endpoint(endpoint, allows_http=False)
    check_endpoint(endpoint, allows_http=True)


@pytest.mark.parametrize(
    "endpoint", ["https://minio:9000", "http://127.0.0.1:9000", "http://[::1]:9", "http://localhost"]
)
def test_https_and_http_to_this_machine_are_allowed(endpoint: str) -> None:
    check_endpoint(endpoint, allows_http=False)


@pytest.mark.parametrize(
    "endpoint", ["", "minio:9000", "ftp://x", "https://", "https://a:b@x", "https://x?a", "http://x:y"]
)
def test_endpoint_that_is_no_address_is_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match="must"):
        check_endpoint(endpoint, allows_http=True)


# ---- a start ----------------------------------------------------------------------------------------------


def test_empty_bucket_with_or_without_a_prefix_takes_files() -> None:
    bucket = new_bucket()
    whole, part = files_at(storage(), bucket), files_at(storage(), bucket, "a/b")
    for files in (whole, part):
        files.prepare()
        assert list(files.list()) == []
        assert files.get("a") is None
    whole.put("a", b"whole")
    part.put("a", b"part")
    assert (whole.get("a"), part.get("a")) == (b"whole", b"part")
    assert [[key for key, _ in files.list()] for files in (whole, part)] == [["a"], ["a"]]
    keys = [text.partition("</Key>")[0] for text in httpx.get(f"{storage()}/{bucket}").text.split("<Key>")[1:]]
    assert sorted(keys) == ["a/b/images/a", "a/b/probe", "images/a", "probe"]


def test_objects_of_others_in_the_bucket_are_neither_listed_nor_removed() -> None:
    bucket, strange = new_bucket(), ("images/README.txt", "images/sub/a.png", "images.png", "imagesa/b", "images/ä b")
    for name in strange:
        assert httpx.put(f"{storage()}/{bucket}/{name}", content=b"x").status_code == 200
    files = files_at(storage(), bucket)
    name = f"{'a' * 32}.1.0.png"
    files.put(name, b"x")
    assert [key for key, _ in files.list()] == [name]
    output = OutputFolder(files)
    output.sweep("a" * 32, {name}, 1)
    output.shrink(0)
    assert output.jobs_there() == {"a" * 32}
    listing = httpx.get(f"{storage()}/{bucket}").text
    assert all(f"<Key>{name}</Key>" in listing for name in (*strange, f"images/{name}"))


def test_bucket_that_does_not_exist_or_refuses_stops_the_start(door: Gate) -> None:
    with pytest.raises(FilesRefused, match="there is no bucket nothing-here"):
        files_at(storage(), "nothing-here").prepare()
    door.set("refuses")
    try:
        with pytest.raises(FilesRefused, match="refuses this key"):
            files_at(door.url, new_bucket()).prepare()
    finally:
        door.set("open")


def test_bucket_without_any_key_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://169.254.169.254:1")
    with pytest.raises(FilesRefused, match="needs a key"):
        files_at(storage(), new_bucket(), access_key_id=None, secret_access_key=None).prepare()


def test_keys_and_endpoint_of_the_environment_are_used_and_those_of_the_settings_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket = new_bucket()
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.setenv(name, "https://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDOFTHEENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    files_at(storage(), bucket).prepare()
    assert KEY in (files_at(storage(), bucket).url("a", 60) or "")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", storage())
    from_environment = S3Files(Bucket(BucketAddress(bucket), S3Options()), "images", place=PLACE)
    from_environment.prepare()
    assert "AKIDOFTHEENVIRONMENT" in (from_environment.url("a", 60) or "")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://10.0.0.1:9000")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    with pytest.raises(FilesRefused, match="AWS_ENDPOINT_URL must begin with https"):
        Bucket(BucketAddress(bucket), S3Options())


def test_endpoint_without_a_trusted_certificate_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """moto speaks no TLS: an https:// endpoint reaches it, and is not taken for http://."""
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    files = files_at(storage().replace("http://", "https://"), new_bucket())
    with pytest.raises(StorageFault, match="does not answer"):
        files.get("a")


# ---- a bucket that goes away --------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["closed", "refuses"])
def test_bucket_that_goes_away_is_a_fault_of_the_place_until_it_is_back(door: Gate, state: str) -> None:
    files = files_at(door.url, new_bucket())
    files.prepare()
    files.put("a", b"x")
    door.set(state)
    try:
        for name, call in calls_of(files).items():
            with pytest.raises(StorageFault, match=r"The bucket of pictures (does not answer|refuses the gateway)"):
                pytest.fail(f"{name} answered {call()!r}")
        assert place_of(files).probe().fault is not None
    finally:
        door.set("open")
    assert place_of(files).probe().fault is None
    assert files.get("a") == b"x"


def test_no_call_hangs_longer_than_its_time_where_the_bucket_is_silent(door: Gate) -> None:
    files = files_at(door.url, new_bucket())
    files.put("a", b"x")
    door.set("silent")
    try:
        began = time.monotonic()
        for name, call in calls_of(files).items():
            with pytest.raises(StorageFault, match="does not answer"):
                pytest.fail(f"{name} answered {call()!r}")
        assert time.monotonic() - began < 10, "calls after the first one fail at once for a while"
        time.sleep(REST_S)
        began = time.monotonic()
        with pytest.raises(StorageFault):
            files.put("a", b"x")
        assert time.monotonic() - began < 5
    finally:
        door.set("open")


def test_bucket_that_was_removed_is_a_fault_and_not_an_empty_one() -> None:
    bucket = new_bucket()
    files = files_at(storage(), bucket)
    files.put("a", b"x")
    remove_bucket(bucket)
    for name, call in calls_of(files).items():
        with pytest.raises(StorageFault, match="is missing"):
            pytest.fail(f"{name} answered {call()!r}")
    assert place_of(files).probe().fault is not None


@pytest.mark.parametrize("answer", [b"HTTP/1.1 501 Not Implemented", b"HTTP/1.1 400 Bad Request", None])
def test_storage_without_conditional_writes_is_looked_at_before_a_file_is_made(
    monkeypatch: pytest.MonkeyPatch, answer: bytes | None
) -> None:
    files = files_at(storage(), new_bucket())
    put = files._bucket.store.put

    def unconditional(path: str, data: bytes, **given: Any) -> object:
        if given.pop("mode", None) == "create" and answer is not None:
            raise GenericError(f"status code: {answer.split()[1].decode()}")
        return put(path, data, **given)

    monkeypatch.setattr(type(files._bucket.store), "put", lambda self, *a, **k: unconditional(*a, **k))
    files.prepare()
    files.put("a", b"x", create=True)
    files.put("a", b"x", create=True)
    with pytest.raises(KeyTaken):
        files.put("a", b"y", create=True)
    assert files.get("a") == b"x"


def test_full_bucket_is_checked_with_as_many_bytes_as_were_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    files, room = files_at(storage(), new_bucket()), 1000
    put = type(files._bucket.store).put

    def limited(store: object, path: str, data: bytes, **given: Any) -> object:
        if len(data) > room:
            raise GenericError("status code: 507 <Code>XMinioStorageFull</Code>")
        return put(store, path, data, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(type(files._bucket.store), "put", limited)
    place = place_of(files)
    with pytest.raises(StorageFull) as full:
        files.put("a", bytes(5000))
    assert full.value.needed_bytes == 5000
    files.put("b", b"x")
    place.needed_bytes = full.value.needed_bytes
    assert isinstance(place.probe().fault, StorageFull)
    room = 10_000
    assert place.probe().fault is None
    files.put("a", bytes(5000))


def test_healthy_bucket_is_not_written_for_every_probe() -> None:
    bucket = new_bucket()
    files = files_at(storage(), bucket)
    files.put("a", b"x")
    for _ in range(3):
        assert place_of(files).probe().fault is None
    assert "probe" not in httpx.get(f"{storage()}/{bucket}").text


# ---- what is told ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["closed", "refuses"])
def test_no_error_and_no_log_tells_a_key_a_bucket_or_an_address(
    door: Gate, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    bucket = new_bucket()
    caplog.set_level(logging.DEBUG)
    files = files_at(door.url, bucket)
    url = files.url("a", 60)
    assert url is not None
    signature = url.rpartition("X-Amz-Signature=")[2]
    assert len(signature) == 64
    texts: list[str] = []
    door.set(state)
    try:
        for call in calls_of(files).values():
            try:
                call()
            except StorageFault as error:
                texts += ["".join(traceback.format_exception(error)), error.message, repr(error)]
                logging.getLogger("test").exception("as a lane logs it")
        assert texts
    finally:
        door.set("open")
    told = "\n".join([*texts, caplog.text])
    for secret in (KEY, SECRET, signature, "X-Amz", bucket, door.url.removeprefix("http://"), "Authorization"):
        assert secret not in told


def test_options_show_no_key() -> None:
    options = S3Options(access_key_id=KEY, secret_access_key=SECRET)
    assert KEY not in repr(options)
    assert SECRET not in repr(options)


def test_presigned_address_shows_the_file_to_anybody_and_nothing_else() -> None:
    bucket = new_bucket()
    files = files_at(storage(), bucket, "some/prefix")
    files.put("a.png", b"png")
    url = files.url("a.png", 60)
    assert url is not None
    answer = httpx.get(url)
    assert (answer.content, answer.headers["content-type"]) == (b"png", "image/png")
    assert "X-Amz-Expires=60" in url
    assert SECRET not in url
