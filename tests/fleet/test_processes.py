"""A fleet of real processes: gateways that only serve, and `mflux-gateway worker`, on one PostgreSQL database."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from gateway.app import build_core
from gateway.settings import SettingsError, load_settings
from tests.support.fleet_processes import ProcessFleet, process_fleet
from tests.support.live import ROOT
from tests.support.native import SMALL, client_of, ended, events, submit

SLOW = {"step_seconds": 0.05}
BOSS, GUEST = "0123456789abcdef", "fedcba9876543210"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[ProcessFleet]:
    with process_fleet(tmp_path) as fleet:
        yield fleet


def _until_step(client: httpx.Client, job_id: str, step: int = 2) -> None:
    """Wait until a job has done so many steps, as this gateway shows it."""
    end = time.monotonic() + 20
    while (client.get(f"/jobs/{job_id}").json().get("progress_detail") or {"step": 0})["step"] < step:
        assert time.monotonic() < end, client.get(f"/jobs/{job_id}").json()
        time.sleep(0.02)


def _ids(seen: list[dict[str, Any]]) -> list[str]:
    return [event["id"] for event in seen if event.get("id")]


def _pixels(client: httpx.Client, job_id: str) -> bytes:
    return client.get(f"/jobs/{job_id}/images/0").content


def _listening(pid: int) -> list[str]:
    """The sockets on which a process accepts connections."""
    own = {os.readlink(file) for file in Path(f"/proc/{pid}/fd").iterdir() if file.is_symlink()}
    found = []
    for table in ("tcp", "tcp6", "unix"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            cells = line.split()
            listens, inode = (cells[3] == "0A", cells[9]) if table != "unix" else (cells[3] == "00010000", cells[6])
            if listens and f"socket:[{inode}]" in own:
                found.append(line)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_worker_listens_nowhere_and_draws_for_a_gateway_that_only_serves(fleet: ProcessFleet) -> None:
    worker = fleet.worker()
    gateway = fleet.gateway()
    with client_of(gateway.url) as client:
        job = submit(client)["job_id"]
        assert ended(client, job)["status"] == "completed"
        assert _pixels(client, job).startswith(b"\x89PNG")
    assert "as worker worker, running engine, ocr, network; it listens nowhere" in worker.logged()
    assert _listening(worker.process.pid) == []
    assert gateway.process is not None
    assert _listening(gateway.process.pid) != [], "the look is right"


def test_killed_worker_loses_nothing_and_the_next_draws_the_same_pixels(fleet: ProcessFleet) -> None:
    first, gateway = fleet.worker("worker", script=SLOW), fleet.gateway()
    with client_of(gateway.url) as client:
        job = submit(client, seed=7, steps=20)["job_id"]
        _until_step(client, job)
        first.process.kill()
        first.process.wait()
        fleet.worker("worker-2")
        shown = ended(client, job)
        assert shown["status"] == "completed", shown
        kinds = [event["event"] for event in events(client, job)]
        assert kinds.count("complete") == 1
        undisturbed = submit(client, seed=7, steps=20)["job_id"]
        ended(client, undisturbed)
        assert _same_image(client, job, undisturbed)


def _same_image(client: httpx.Client, one: str, other: str) -> bool:
    images = [Image.open(io.BytesIO(_pixels(client, job))).convert("RGB").tobytes() for job in (one, other)]
    return images[0] == images[1]


def test_cancel_stream_and_progress_work_through_a_gateway_that_did_not_take_the_job(fleet: ProcessFleet) -> None:
    fleet.worker(script=SLOW)
    one, two = fleet.gateway("gateway-1"), fleet.gateway("gateway-2")
    with client_of(one.url, "me") as here, client_of(two.url, "me") as there:
        job = submit(here, steps=20, seed=1)["job_id"]
        seen = events(there, job)
        ids = _ids(seen)
        assert ids == [f"{job}:{seq}" for seq in range(1, len(ids) + 1)]
        assert ids == _ids(events(here, job))
        assert seen[-1]["event"] == "complete"
        assert sum(event["event"] == "progress" for event in seen) > 3
        assert _ids(events(there, job, last=ids[0])) == ids[1:]

        long = submit(here, steps=100)["job_id"]
        _until_step(there, long)
        began = time.monotonic()
        assert there.delete(f"/jobs/{long}").status_code in (200, 202, 204)
        assert ended(here, long)["status"] == "cancelled"
        assert time.monotonic() - began < 5


def test_sdapi_progress_preview_and_interrupt_work_through_the_other_gateway(fleet: ProcessFleet) -> None:
    fleet.worker(script={"step_seconds": 0.03})
    one, two = fleet.gateway("gateway-1", ready=False), fleet.gateway("gateway-2", ready=False)
    me = {"X-Client-Id": "me"}
    with (
        httpx.Client(base_url=f"{one.url}/sdapi/v1", headers=me, timeout=60) as here,
        httpx.Client(base_url=f"{two.url}/sdapi/v1", headers=me) as there,
        ThreadPoolExecutor(1) as pool,
    ):
        body = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 100}
        drawing = pool.submit(here.post, "/txt2img", json=body)
        end = time.monotonic() + 20
        while (shown := there.get("/progress").json())["current_image"] is None:
            assert not drawing.done(), drawing.result().text
            assert time.monotonic() < end, shown
            time.sleep(0.05)
        assert 0 < shown["progress"] < 1
        assert shown["state"]["job"] == "scripts_txt2img"
        stranger = httpx.get(f"{two.url}/sdapi/v1/progress", headers={"X-Client-Id": "you"}).json()
        assert (stranger["current_image"], stranger["state"]["job"]) == (None, "another client's job")
        assert there.post("/interrupt").status_code == 200
        assert drawing.result(10).status_code == 200
        assert there.get("/progress").json()["state"]["job_count"] == 0


def test_terminated_worker_ends_its_job_first_and_a_second_signal_puts_it_back(fleet: ProcessFleet) -> None:
    gateway, worker = fleet.gateway(ready=False), fleet.worker(script=SLOW)
    with client_of(gateway.url) as client:
        job, waiting = submit(client, steps=20)["job_id"], submit(client, steps=60)["job_id"]
        _until_step(client, job)
        assert worker.stop(signal.SIGTERM) == 0
        assert client.get(f"/jobs/{job}").json()["status"] == "completed"
        assert client.get(f"/jobs/{waiting}").json()["status"] == "queued"
        hasty = fleet.worker("worker-2", script=SLOW)
        _until_step(client, waiting)
        began = time.monotonic()
        assert hasty.stop(signal.SIGTERM, signal.SIGTERM) == 0
        assert time.monotonic() - began < 10
        assert client.get(f"/jobs/{waiting}").json()["status"] == "queued"
        fleet.worker("worker-3")
        assert ended(client, waiting)["status"] == "completed"


def test_job_waits_again_when_the_time_to_drain_is_over(fleet: ProcessFleet) -> None:
    gateway, worker = fleet.gateway(ready=False), fleet.worker(script={"step_seconds": 0.2}, drain_s=0.3)
    with client_of(gateway.url) as client:
        job = submit(client, steps=100)["job_id"]
        _until_step(client, job)
        assert worker.stop(signal.SIGTERM) == 0
        assert client.get(f"/jobs/{job}").json()["status"] == "queued"


def test_paused_process_finds_its_lease_lost_and_files_nothing(fleet: ProcessFleet, tmp_path: Path) -> None:
    gateway, stopped = fleet.gateway(ready=False), fleet.worker(script=SLOW)
    with client_of(gateway.url) as client:
        job = submit(client, steps=20, seed=3)["job_id"]
        _until_step(client, job)
        stopped.process.send_signal(signal.SIGSTOP)
        try:
            fleet.worker("worker-2")
            assert ended(client, job)["status"] == "completed"
        finally:
            stopped.process.send_signal(signal.SIGCONT)
        stopped.wait_for("the lease is lost")
        again = submit(client)["job_id"]
        assert ended(client, again)["status"] == "completed"
        assert len(list((tmp_path / "files" / "images").glob(f"{job}.*.png"))) == 1


def test_ticket_of_one_gateway_opens_a_stream_at_the_other_once(fleet: ProcessFleet, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"boss {BOSS}\nguest {GUEST}\n")
    keys.chmod(0o600)
    access = {"keys_file": str(keys), "operators": ["boss"]}
    one, two = (fleet.gateway(name, ready=False, access=access) for name in ("gateway-1", "gateway-2"))
    fleet.worker()
    headers = {"Authorization": f"Bearer {BOSS}"}
    with httpx.Client(base_url=one.url, headers=headers) as here, httpx.Client(base_url=two.url) as there:
        job = here.post("/api/v1/generate", json=SMALL).json()["job_id"]
        for _ in range(10):  # the message that it is used may come after the next request
            url = here.post("/api/v1/tickets", json={"job_id": job}).json()["url"]
            with there.stream("GET", url) as stream:
                assert stream.status_code == 200
                cookie = stream.headers["set-cookie"].partition(";")[0]
            time.sleep(0.2)
            if (second := httpx.get(f"{one.url}{url}").status_code) == 401:
                break
        assert second == 401
        assert httpx.get(f"{two.url}{url}").status_code == 401
        with httpx.stream("GET", f"{one.url}{url}", headers={"Cookie": cookie}) as again:
            assert again.status_code == 200


@pytest.mark.parametrize(
    ("words", "environment", "named"),
    [
        ([], {}, "store.url (--store)"),
        (["--store", "sqlite:///x"], {}, "store.url"),
        (["--store", "postgresql://h/d", "--lanes", "engines"], {}, "worker.lanes"),
        (["--store", "postgresql://h/d", "--lanes", ""], {}, "worker.lanes"),
        (["--store", "postgresql://h/d", "--lanes", "engine,engine"], {}, "lanes"),
        (["--store", "postgresql://h/d"], {}, "files.url (--files)"),
        (["--store", "postgresql://h/d", "--name", "a b"], {}, "worker.name"),
        (["--store", "postgresql://h/d", "--label", "x"], {}, "--label"),
        (["--store", "postgresql://h/d", "--port", "1"], {}, "--port"),
        (
            [],
            {"MFLUX_GATEWAY__STORE__URL": "postgresql://h/d", "MFLUX_GATEWAY__WORKER__LEASE_S": "0"},
            "worker.lease_s",
        ),
    ],
)
def test_worker_with_wrong_settings_is_refused_with_a_sentence(
    words: list[str], environment: dict[str, str], named: str
) -> None:
    with pytest.raises(SettingsError, match=re.escape(named)):
        load_settings(words, environment, "worker")


def test_worker_with_wrong_settings_exits_with_2(tmp_path: Path) -> None:
    done = _run(["worker"], {}, tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "mflux-gateway: a worker needs the job store of its gateways: set store.url (--store)"
    )


def test_node_without_ocr_leaves_its_jobs_to_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("gateway.app.installed_at", lambda: None)
    words = ["--store", "postgresql://h/d", "--files", tmp_path.as_uri()]
    fleet = build_core(load_settings(words, {}, "worker"), "worker").service.fleet
    assert fleet is not None
    assert fleet.options.lanes == ("engine", "network")
    with pytest.raises(SettingsError, match="OCR is not installed here"):
        build_core(load_settings([*words, "--lanes", "ocr"], {}, "worker"), "worker")


def test_gateway_without_other_processes_runs_all_lanes() -> None:
    with pytest.raises(SettingsError, match=r"worker\.lanes"):
        load_settings([], {"MFLUX_GATEWAY__WORKER__LANES": "[]"})
    settings = load_settings(["--store", "postgresql://h/d"], {"MFLUX_GATEWAY__WORKER__LANES": "[]"})
    assert settings.worker.lanes == ()


def test_worker_whose_database_does_not_answer_exits_with_1(tmp_path: Path) -> None:
    done = _run(
        ["worker", "--store", f"postgresql:///x?host={tmp_path}", "--files", tmp_path.as_uri(), "--backend", "fake"],
        {},
        tmp_path,
    )
    assert done.returncode == 1, done.stderr
    assert "does not answer" in done.stderr


def _run(words: list[str], environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    command: list[Any] = [sys.executable, ROOT / "api_main.py", *words]
    variables = {**os.environ, **environment, "MFLUX_GATEWAY__STORE__DATA_DIR": str(folder / "data")}
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=60)
