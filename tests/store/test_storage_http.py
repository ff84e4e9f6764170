"""Places at fault as clients of every protocol meet them: refused submits, stopped work, damaged pictures."""

from __future__ import annotations

import base64
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.live import Live, live
from tests.support.native import client_of, ended, submit
from tests.support.storage import Disk, disk
from tests.support.v1 import assert_openai_error

__all__ = ["disk"]

OWNER = "me"
SMALL = {"prompt": "a red circle", "width": 64, "height": 64}
MANY_STEPS = {"models": {"steps_as_sent": True}}
SUBMITS: dict[str, tuple[str, dict[str, Any]]] = {
    "native": ("/api/v1/generate", SMALL),
    "sdapi": ("/sdapi/v1/txt2img", SMALL),
    "v1": ("/v1/images/generations", {"prompt": "x", "size": "64x64"}),
    "mflux-server": ("/api/generate", {"prompt": "x", "width": 64, "height": 64}),
}
MESSAGES: dict[str, Callable[[dict[str, Any]], str]] = {
    "native": lambda body: body["error"],
    "sdapi": lambda body: body["detail"],
    "v1": lambda body: body["error"]["message"],
    "mflux-server": lambda body: body["message"],
}


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=60, headers={"X-Client-Id": OWNER}) as client:
        yield client


def assert_refused(gateway: Live, http: httpx.Client, status: int) -> None:
    for protocol, (path, body) in SUBMITS.items():
        answer = http.post(gateway.url + path, json=body)
        assert answer.status_code == status, (protocol, answer.text)
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert MESSAGES[protocol](answer.json())
        assert "/" not in MESSAGES[protocol](answer.json()), "no path is told"
    assert_openai_error(http.post(gateway.url + SUBMITS["v1"][0], json=SUBMITS["v1"][1]), status)


def why(gateway: Live, http: httpx.Client) -> str:
    """The reason, once the gateway is not ready."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        answer = http.get(f"{gateway.url}/health/ready")
        if answer.status_code == 503:
            return str(answer.json()["reason"])
        time.sleep(0.05)
    raise AssertionError("it stayed ready")


def test_output_folder_missing_refuses_in_every_protocol_and_fails_no_queued_job(
    tmp_path: Path, http: httpx.Client
) -> None:
    with live(tmp_path, fake_script={"step_seconds": 0.02}) as gateway, client_of(gateway.url, OWNER) as client:
        jobs = [submit(client)["job_id"] for _ in range(20)]
        (tmp_path / "output").rename(tmp_path / "away")
        (tmp_path / "output").write_text("in the way")
        assert "output folder" in why(gateway, http)
        assert http.get(f"{gateway.url}/health/live").status_code == 200
        assert_refused(gateway, http, 503)
        (tmp_path / "output").unlink()
        (tmp_path / "away").rename(tmp_path / "output")
        gateway.wait_for("/health/ready")
        for job in jobs:
            assert ended(client, job)["status"] == "completed"


def test_disk_full_is_a_507_in_every_protocol_and_jobs_continue_once_there_is_space(
    tmp_path: Path, disk: Disk, http: httpx.Client
) -> None:
    config = {"generation": {"output_dir": str(disk.folder / "output")}}
    script = {"step_seconds": 0.05}
    with live(tmp_path, fake_script=script, config=config) as gateway, client_of(gateway.url, OWNER) as client:
        jobs = [submit(client, width=512, height=512)["job_id"] for _ in range(3)]
        filler = disk.fill()
        assert "no room" in why(gateway, http)
        assert_refused(gateway, http, 507)
        filler.unlink()
        for job in jobs:
            assert ended(client, job)["status"] == "completed"
        gateway.wait_for("/health/ready")


def test_image_is_not_written_under_the_mount_point_of_an_unmounted_share(
    tmp_path: Path, disk: Disk, http: httpx.Client
) -> None:
    config = {"generation": {"output_dir": str(disk.folder / "output")}}
    script = {"step_seconds": 0.05}
    with live(tmp_path, fake_script=script, config=config) as gateway, client_of(gateway.url, OWNER) as client:
        jobs = [submit(client)["job_id"] for _ in range(3)]
        disk.unmount()
        assert "mounted" in why(gateway, http)
        assert_refused(gateway, http, 503)
        assert not list(disk.folder.iterdir())
        disk.mount()
        for job in jobs:
            assert ended(client, job)["status"] == "completed"


# ---- stopping work ---------------------------------------------------------------------------------


class Unlinked:
    """The database loses its name; `undo` gives it back."""

    def __init__(self, gateway: Live) -> None:
        self.file, self.kept = (gateway.folder / "data" / name for name in ("jobs.sqlite3", "kept"))
        os.link(self.file, self.kept)
        self.file.unlink()

    def undo(self) -> None:
        self.kept.rename(self.file)


class Full:
    """The disk of the data is full."""

    def __init__(self, gateway: Live) -> None:
        self.filler = Disk(gateway.folder / "disk", gateway.folder / "behind").fill()

    def undo(self) -> None:
        self.filler.unlink()


def drawing(gateway: Live, http: httpx.Client) -> str:
    """The job at the engine, once it makes steps."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        active = http.get(f"{gateway.url}/api/v1/queue").json()["active"]
        if active is not None and active["step"] > 0:
            return str(active["job_id"])
        time.sleep(0.02)
    raise AssertionError("nothing is drawn")


def idle(gateway: Live, http: httpx.Client) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if http.get(f"{gateway.url}/health/ready").json()["engine"] == "ready":
            return
        time.sleep(0.02)
    raise AssertionError("the engine goes on")


@pytest.fixture(params=[Unlinked, Full])
def broken(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Callable[[Live], Any], dict[str, Any]]:
    if request.param is Full:
        disk = request.getfixturevalue("disk")
        return Full, {**MANY_STEPS, "store": {"data_dir": str(disk.folder / "data")}}
    return Unlinked, MANY_STEPS


def test_job_is_stopped_by_every_protocol_while_storage_is_not_writable(
    tmp_path: Path, broken: tuple[Callable[[Live], Any], dict[str, Any]], http: httpx.Client
) -> None:
    break_, config = broken
    gateway = Live(tmp_path, fake_script={"step_seconds": 0.1}, config=config)
    try:
        gateway.start()
        _stop_in_every_protocol(gateway, break_, http)
    finally:
        if gateway.process is not None and gateway.process.poll() is None:
            gateway.stop()


def _stop_in_every_protocol(gateway: Live, break_: Callable[[Live], Any], http: httpx.Client) -> None:
    url, long = gateway.url, {**SMALL, "steps": 90}
    with ThreadPoolExecutor(2) as pool:
        # native: the running one and a waiting one
        first, second = [http.post(f"{url}/api/v1/generate", json=long).json()["job_id"] for _ in range(2)]
        drawing(gateway, http)
        broken = break_(gateway)
        for job in (second, first):
            answer = http.delete(f"{url}/api/v1/jobs/{job}")
            assert answer.status_code in (200, 202)
            assert answer.json()["status"] == "cancelled"
            assert ("stored" in answer.json()) == (answer.status_code == 202)
            assert http.get(f"{url}/api/v1/jobs/{job}").json()["status"] == "cancelled"
        idle(gateway, http)
        assert http.get(f"{url}/health/ready").status_code == 503
        broken.undo()
        gateway.wait_for("/health/ready")

        # /sdapi: interrupt; the request that waits is answered
        waiting = pool.submit(http.post, f"{url}/sdapi/v1/txt2img", json=long)
        drawing(gateway, http)
        broken = break_(gateway)
        assert http.post(f"{url}/sdapi/v1/interrupt").status_code == 200
        waiting.result(20)
        idle(gateway, http)
        broken.undo()
        gateway.wait_for("/health/ready")

        # Xinference: abort
        body = {"prompt": "x", "size": "64x64", "kwargs": '{"request_id": "r1", "num_inference_steps": 90}'}
        waiting = pool.submit(http.post, f"{url}/v1/images/generations", json=body)
        drawing(gateway, http)
        broken = break_(gateway)
        aborted = http.post(f"{url}/v1/models/flux2-tiny/requests/r1/abort")
        assert aborted.json() == {"msg": "DONE"}
        assert waiting.result(20).status_code == 499
        idle(gateway, http)
        broken.undo()
        gateway.wait_for("/health/ready")

    # mflux-server: cancel and clear
    body = {"prompt": "x", "width": 64, "height": 64, "steps": 90}
    tasks = [http.post(f"{url}/api/generate", json=body).json()["task_id"] for _ in range(4)]
    drawing(gateway, http)
    broken = break_(gateway)
    assert http.get(f"{url}/api/cancel", params={"task_id": tasks[0]}).status_code == 200
    assert http.get(f"{url}/api/status", params={"task_id": tasks[0]}).status_code == 404
    assert http.get(f"{url}/api/clear").status_code == 200
    assert http.get(f"{url}/api/tasks").json() == []
    idle(gateway, http)
    broken.undo()
    gateway.wait_for("/health/ready")
    assert http.get(f"{url}/api/tasks").json() == []
    with client_of(url, OWNER) as client:
        for task in tasks:
            assert ended(client, task)["status"] == "cancelled"


def test_job_is_stopped_on_client_disconnect_while_the_disk_is_full(
    tmp_path: Path, disk: Disk, http: httpx.Client
) -> None:
    config = {**MANY_STEPS, "store": {"data_dir": str(disk.folder / "data")}}
    gateway = Live(tmp_path, fake_script={"step_seconds": 0.1}, config=config)
    try:
        gateway.start()
        with pytest.raises(httpx.ReadTimeout):
            http.post(f"{gateway.url}/sdapi/v1/txt2img", json={**SMALL, "steps": 90}, timeout=1)
        full = Full(gateway)
        idle(gateway, http)
        full.undo()
        gateway.wait_for("/health/ready")
        assert http.get(f"{gateway.url}/api/v1/jobs").json()["jobs"][0]["status"] == "cancelled"
    finally:
        if gateway.process is not None and gateway.process.poll() is None:
            gateway.stop()


# ---- pictures that are not what was written --------------------------------------------------------


def test_a_damaged_picture_is_an_error_in_every_protocol_and_retry_draws_it_again(
    tmp_path: Path, http: httpx.Client
) -> None:
    with live(tmp_path) as gateway, client_of(gateway.url, OWNER) as client:
        job = submit(client)["job_id"]
        assert ended(client, job)["status"] == "completed"
        asked = {**SUBMITS["v1"][1], "response_format": "url"}
        made = http.post(f"{gateway.url}/v1/images/generations", json=asked)
        address = made.json()["data"][0]["url"]
        task = http.post(f"{gateway.url}/api/generate", json=SUBMITS["mflux-server"][1]).json()["task_id"]
        ended(client, task)
        whole = client.get(f"/jobs/{job}/images/0").content
        assert [row["damaged"] for row in client.get("/images").json()["images"]] == [False] * 3
        for file in (tmp_path / "output").iterdir():
            os.truncate(file, file.stat().st_size - 20)
        assert [row["damaged"] for row in client.get("/images").json()["images"]] == [True] * 3
        for path in (f"/jobs/{job}/images/0", *(f"/images/{job}-0{how}" for how in ("", "?max_px=32", "?format=webp"))):
            answer = client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (500, "PICTURE_DAMAGED")
        result = client.get(f"/jobs/{job}").json()["result"]
        assert (result["images"], result["damaged"]) == ([None], [0])
        assert_openai_error(http.get(address), 500)
        answer = http.get(f"{gateway.url}/api/image", params={"task_id": task})
        assert (answer.status_code, "damaged" in answer.json()["message"]) == (500, True)
        again = client.post(f"/jobs/{job}/retry").json()["job_id"]
        assert ended(client, again)["status"] == "completed"
        assert client.get(f"/jobs/{again}/images/0").content == whole
        assert client.delete(f"/images/{job}-0").status_code == 200


def test_images_are_reported_unavailable_and_not_deleted_while_their_disk_is_missing(
    tmp_path: Path, http: httpx.Client
) -> None:
    with live(tmp_path) as gateway, client_of(gateway.url, OWNER) as client:
        job = submit(client)["job_id"]
        assert ended(client, job)["status"] == "completed"
        (tmp_path / "output").rename(tmp_path / "away")
        (tmp_path / "output").write_text("in the way")
        for path in (f"/jobs/{job}/images/0", "/images"):
            assert client.get(path).status_code == 503
        assert client.delete(f"/images/{job}-0").status_code == 503
        assert client.get(f"/jobs/{job}").json()["result"]["images"] == [None]
        (tmp_path / "output").unlink()
        (tmp_path / "away").rename(tmp_path / "output")
        assert client.get(f"/jobs/{job}/images/0").status_code == 200
        shutil.rmtree(tmp_path / "output")
        assert client.get(f"/jobs/{job}/images/0").status_code == 404
        picture = base64.b64encode((client.get(f"/jobs/{ended_anew(client)}/images/0")).content).decode()
        assert submit(client, init_images=[picture])["job_id"]


def ended_anew(client: httpx.Client) -> str:
    job = str(submit(client)["job_id"])
    assert ended(client, job)["status"] == "completed"
    return job
