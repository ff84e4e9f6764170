"""Gateways whose files are in a bucket or a shared folder, as clients of every protocol meet them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.client import EngineOptions
from engine.client.environment import child_environment
from gateway.cli.doctor import _models
from gateway.settings import load_settings
from tests.support.live import Live, live
from tests.support.native import client_of, ended, submit
from tests.support.s3 import KEY, SECRET, Gate, gate, new_bucket, settings_of, storage
from tests.support.v1 import input_png

OWNER = "me"
SUBMITS: dict[str, tuple[str, dict[str, Any]]] = {
    "native": ("/api/v1/generate", {"prompt": "x", "width": 64, "height": 64}),
    "sdapi": ("/sdapi/v1/txt2img", {"prompt": "x", "width": 64, "height": 64}),
    "v1": ("/v1/images/generations", {"prompt": "x", "size": "64x64"}),
    "mflux-server": ("/api/generate", {"prompt": "x", "width": 64, "height": 64}),
}
MESSAGES: dict[str, Callable[[dict[str, Any]], str]] = {
    "native": lambda body: body["error"],
    "sdapi": lambda body: body["detail"],
    "v1": lambda body: body["error"]["message"],
    "mflux-server": lambda body: body["message"],
}


@pytest.fixture(scope="module")
def door() -> Iterator[Gate]:
    with gate() as opened:
        yield opened


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=60, headers={"X-Client-Id": OWNER}) as client:
        yield client


def in_place(folder: Path) -> Path:
    folder.mkdir()
    return folder


def content_path(http: httpx.Client, gateway: Live) -> str:
    """The path of an image of /v1."""
    body = {"prompt": "x", "size": "64x64", "response_format": "url"}
    answer = http.post(f"{gateway.url}/v1/images/generations", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["data"][0]["url"]).removeprefix(gateway.url)


def until_unready(http: httpx.Client, gateway: Live) -> str:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        answer = http.get(f"{gateway.url}/health/ready")
        if answer.status_code == 503:
            return str(answer.json()["reason"])
        time.sleep(0.05)
    raise AssertionError("it stayed ready")


@pytest.mark.parametrize("kind", ["s3", "shared folder"])
def test_images_and_inputs_of_one_gateway_are_read_through_another(
    tmp_path: Path, http: httpx.Client, kind: str
) -> None:
    shared = in_place(tmp_path / "shared")
    # A folder has no addresses to redirect to.
    files = settings_of(storage(), new_bucket()) if kind == "s3" else {"url": f"file://{shared}", "presigned": True}
    first_folder, second_folder = in_place(tmp_path / "first"), in_place(tmp_path / "second")
    with live(first_folder, config={"files": files}) as first, client_of(first.url, OWNER) as client:
        job = ended(client, submit(client)["job_id"])
        assert job["status"] == "completed"
        png = client.get(f"/jobs/{job['id']}/images/0")
        assert (png.status_code, png.headers["content-type"]) == (200, "image/png")
        sent = client.post("/uploads", files={"image": ("a.png", input_png(), "image/png")})
        assert sent.status_code == 200, sent.text
        assert client.get(f"/uploads/{sent.json()['id']}").status_code == 200
        edited = ended(client, submit(client, init_image=sent.json()["id"])["job_id"])
        assert edited["status"] == "completed", edited
        shown = client.get("/images").json()["images"]
        assert [(one["job_id"], one["damaged"]) for one in shown] == [(edited["id"], False), (job["id"], False)]
        path = content_path(http, first)
        whole = http.get(first.url + path)
        part = http.get(first.url + path, headers={"Range": "bytes=0-7"})
        assert (part.status_code, part.content) == (206, whole.content[:8])
        assert client.delete(f"/images/{edited['id']}-0").status_code == 200
        assert client.get(f"/jobs/{edited['id']}/images/0").status_code == 404
        with live(second_folder, config={"files": files}) as second:
            there = http.get(second.url + path)
            assert (there.status_code, there.content) == (200, whole.content)
            assert there.headers["etag"] == whole.headers["etag"]
    with live(first_folder, config={"files": files}) as first, client_of(first.url, OWNER) as client:
        assert client.get(f"/jobs/{job['id']}/images/0").content == png.content
    assert not (first_folder / "output").exists()
    assert not (first_folder / "data" / "blobs").exists()
    if kind == "shared folder":
        assert {folder.name: folder.stat().st_mode & 0o777 for folder in shared.iterdir()} == {
            "images": 0o700,
            "inputs": 0o700,
            "previews": 0o700,
        }
        assert all(file.stat().st_mode & 0o777 == 0o600 for file in shared.rglob("*") if file.is_file())


@pytest.mark.parametrize("kind", ["s3", "shared folder"])
def test_place_that_is_gone_fails_no_job_and_is_a_503_of_every_protocol_until_it_is_back(
    tmp_path: Path, http: httpx.Client, door: Gate, kind: str
) -> None:
    shared = in_place(tmp_path / "shared")
    is_bucket = kind == "s3"

    def close() -> None:
        door.set("closed") if is_bucket else shared.rename(tmp_path / "away")

    def reopen() -> None:
        door.set("open") if is_bucket else (tmp_path / "away").rename(shared)

    files = settings_of(door.url, new_bucket()) if is_bucket else {"url": f"file://{shared}"}
    script = {"step_seconds": 0.05}
    config = {"files": files, "log": {"level": "DEBUG"}}
    with (
        live(tmp_path, fake_script=script, config=config) as gateway,
        client_of(gateway.url, OWNER) as client,
    ):
        before = ended(client, submit(client)["job_id"])["id"]
        path = content_path(http, gateway)
        upload = client.post("/uploads", files={"image": ("a.png", input_png(), "image/png")}).json()["id"]
        task = http.post(gateway.url + SUBMITS["mflux-server"][0], json=SUBMITS["mflux-server"][1]).json()["task_id"]
        while http.get(f"{gateway.url}/api/status", params={"task_id": task}).json()["status"] != "done":
            time.sleep(0.02)
        jobs = [submit(client)["job_id"] if number else _with_input(client, upload) for number in range(3)]
        time.sleep(0.1)
        close()
        reason = until_unready(http, gateway)
        assert ("bucket" if is_bucket else "folder") in reason
        system = client.get("/system").json()
        assert system["storage_fault"] is not None
        assert client.get("/findings").json()["findings"][0]["health"] == "broken"
        assert http.get(f"{gateway.url}/health/live").status_code == 200
        for protocol, (where, body) in SUBMITS.items():
            answer = http.post(gateway.url + where, json=body)
            assert answer.status_code == 503, (protocol, answer.text)
            assert 1 <= int(answer.headers["retry-after"]) <= 60
            assert "/" not in MESSAGES[protocol](answer.json())
        reads = {
            "native": f"/api/v1/jobs/{before}/images/0",
            "native preview list": "/api/v1/images",
            "native upload": f"/api/v1/uploads/{upload}",
            "v1": path,
            "mflux-server": f"/api/image?task_id={task}",
        }
        for name, where in reads.items():
            answer = http.get(gateway.url + where)
            assert answer.status_code == 503, (name, answer.text)
            assert answer.json()
        removal = client.delete(f"/images/{before}-0")
        assert removal.status_code == 503
        reopen()
        gateway.wait_for("/health/ready")
        for job in jobs:
            assert ended(client, job)["status"] == "completed"
            assert client.get(f"/jobs/{job}/images/0").status_code == 200
        assert client.get("/system").json()["storage_fault"] is None
        assert http.get(gateway.url + path).status_code == 200
        log = gateway.logged()
    assert "the engine lane takes no jobs" in log
    for secret in (KEY, SECRET, "X-Amz", "Authorization: AWS4"):
        assert secret not in log


def _with_input(client: httpx.Client, upload: str) -> str:
    return str(submit(client, init_image=upload)["job_id"])


def test_image_is_redirected_to_the_bucket_for_programs_where_the_settings_say_so(
    tmp_path: Path, http: httpx.Client
) -> None:
    config = {"files": settings_of(storage(), new_bucket(), presigned=True), "log": {"level": "DEBUG"}}
    with live(tmp_path, config=config) as gateway, client_of(gateway.url, OWNER) as client:
        job = ended(client, submit(client)["job_id"])["id"]
        for path in (f"/jobs/{job}/images/0", f"/images/{job}-0"):
            moved = client.get(path)
            assert moved.status_code == 307
            assert moved.headers["cache-control"] == "private, no-store"
            assert moved.headers["location"].startswith(storage())
            followed = client.get(path, follow_redirects=True)
            assert (followed.status_code, followed.headers["content-type"]) == (200, "image/png")
        for headers in (
            {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Site": "same-origin"},
            {"User-Agent": "Mozilla/5.0 (X11)"},
            {"X-API-Key": "x"},
            {"Range": "bytes=0-9"},
        ):
            answer = client.get(f"/jobs/{job}/images/0", headers=headers)
            assert (answer.status_code, answer.content) == (200, followed.content)
        assert client.get(f"/jobs/{job}/images/0", params={"format": "jpeg"}).status_code == 200
        assert client.get(f"/jobs/{job}/images/0", params={"max_px": 32}).status_code == 200
        tag = client.get(f"/jobs/{job}/images/0", headers={"Range": "bytes=0-9"}).headers["etag"]
        assert client.get(f"/jobs/{job}/images/0", headers={"If-None-Match": tag}).status_code == 304
        with client_of(gateway.url, "another") as stranger:
            assert stranger.get(f"/jobs/{job}/images/0").status_code == 404
        content = http.get(gateway.url + content_path(http, gateway))
        assert content.status_code == 200, "what is stored has the prompt in it, which /v1 does not send"
        assert client.delete(f"/images/{job}-0").status_code == 200
        assert client.get(f"/jobs/{job}/images/0").status_code == 404
        log = gateway.logged()
    assert "X-Amz" not in log


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"url": "s3://nothing-here"}, "files.url: there is no bucket nothing-here"),
        ({"url": "file:///nowhere/mflux"}, "files.url: there is no folder /nowhere/mflux"),
        ({"url": "ftp://host"}, "files.url: must look like file:///folder or s3://bucket/prefix"),
        ({"url": "s3://bucket", "endpoint": "http://10.0.0.1"}, "files.endpoint: must begin with https://"),
        ({"url": "s3://bucket", "ca_file": "/nowhere.pem"}, "files.url: files.ca_file cannot be read"),
    ],
)
def test_place_that_cannot_be_used_stops_the_start_with_a_sentence(
    tmp_path: Path, files: dict[str, Any], why: str
) -> None:
    given = {**settings_of(storage(), "x"), **files} if files["url"].startswith("s3") else files
    gateway = Live(tmp_path, config={"files": given})
    try:
        with pytest.raises(AssertionError, match="the gateway left with 2"):
            gateway.start()
    finally:
        gateway.log.close()
    log = gateway.logged()
    assert why in log
    assert "Traceback" not in log
    assert SECRET not in log
    assert KEY not in log


def test_doctor_tells_whether_the_place_of_files_can_be_used(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    for files, health, text in (
        (settings_of(storage(), new_bucket()), "ok", "takes files"),
        (settings_of(storage(), "nothing-here"), "broken", "there is no bucket"),
        ({"url": "file:///nowhere/mflux"}, "broken", "there is no folder"),
    ):
        config.write_text(json.dumps({"files": files, "models": {"default": "flux2-tiny"}}))
        found = {finding.what: finding for finding in _models(load_settings(["--config", str(config)], {}))}
        assert found["files"].health == health
        assert text in found["files"].found


def test_wrong_value_of_a_key_is_not_repeated(tmp_path: Path) -> None:
    gateway = Live(tmp_path, config={"files": {"url": f"s3://{KEY}:{SECRET}@bucket", "access_key_id": 12345678}})
    try:
        with pytest.raises(AssertionError, match="the gateway left with 2"):
            gateway.start()
    finally:
        gateway.log.close()
    assert "files.access_key_id" in gateway.logged()
    for secret in (KEY, SECRET, "12345678"):
        assert secret not in gateway.logged()


def test_gateway_starts_while_its_bucket_is_away_and_draws_once_it_is_back(
    tmp_path: Path, http: httpx.Client, door: Gate
) -> None:
    config = {"files": settings_of(door.url, new_bucket())}
    door.set("closed")
    try:
        with live(tmp_path, ready=False, config=config) as gateway, client_of(gateway.url, OWNER) as client:
            assert "bucket" in until_unready(http, gateway)
            door.set("open")
            gateway.wait_for("/health/ready")
            assert ended(client, submit(client)["job_id"])["status"] == "completed"
    finally:
        door.set("open")


def test_gateway_stops_in_time_while_its_bucket_is_silent(tmp_path: Path, door: Gate) -> None:
    config = {"files": settings_of(door.url, new_bucket(), timeout_s=60)}
    try:
        with live(tmp_path, config=config) as gateway, client_of(gateway.url, OWNER) as client:
            job = ended(client, submit(client)["job_id"])["id"]
            door.set("silent")
            with pytest.raises(httpx.TimeoutException):
                client.get(f"/jobs/{job}/images/0", timeout=0.5)
            began = time.monotonic()
            gateway.stop()
            assert time.monotonic() - began < 8
    finally:
        door.set("open")


def test_child_processes_see_no_key_of_the_storage() -> None:
    mine = {"AWS_SECRET_ACCESS_KEY": SECRET, "MFLUX_GATEWAY__FILES__SECRET_ACCESS_KEY": SECRET, "PATH": "/bin"}
    child = child_environment(EngineOptions(backend="fake"), mine)
    assert SECRET not in child.values()
    assert child["PATH"] == "/bin"
