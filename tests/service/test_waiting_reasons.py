"""What each protocol says of a job that waits while nothing is drawn: that it waits and why, not that all is idle."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from tests.support.live import Live, live

SMALL: dict[str, Any] = {"prompt": "x", "width": 64, "height": 64, "steps": 1}
OTHER = {"X-Client-Id": "other"}


def progress(gateway: Live, **headers: str) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.get(f"{gateway.url}/sdapi/v1/progress", headers=headers).json()
    return answer


def first_of(gateway: Live, path: str, name: str) -> dict[str, Any]:
    """The data of the first event of that name."""
    with httpx.stream("GET", gateway.url + path, timeout=30) as answer:
        lines = answer.iter_lines()
        for line in lines:
            if line == f"event: {name}":
                told: dict[str, Any] = json.loads(next(lines).removeprefix("data: "))
                return told
    raise AssertionError(f"no {name} came")


def seen(gateway: Live, text: str) -> dict[str, Any]:
    """The progress once it says so."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if text in ((found := progress(gateway))["textinfo"] or ""):
            return found
        time.sleep(0.02)
    raise AssertionError(found)


def test_a_job_that_waits_for_a_dead_engine_has_that_reason_and_no_forecast(tmp_path: Path) -> None:
    with live(tmp_path, ready=False, fake_script={"start_fails": True}) as gateway, ThreadPoolExecutor() as pool:
        while httpx.get(f"{gateway.url}/api/v1/health").json()["engine"]["state"] != "down":
            time.sleep(0.05)
        assert progress(gateway)["state"]["job_count"] == 0
        drawn = pool.submit(
            httpx.post, f"{gateway.url}/sdapi/v1/txt2img", json={**SMALL, "force_task_id": "task(1)"}, timeout=60
        )
        found = seen(gateway, "The engine is down")
        assert (found["progress"], found["eta_relative"], found["state"]["job"]) == (0.0, 0.0, "scripts_txt2img")
        assert found["state"]["job_count"] == 1
        assert progress(gateway, **OTHER)["state"]["job_count"] == 0
        task = httpx.post(f"{gateway.url}/internal/progress", json={"id_task": "task(1)"}).json()
        assert (task["queued"], task["eta"]) == (True, None)
        assert task["textinfo"].startswith("The engine is down")
        job = httpx.post(f"{gateway.url}/api/v1/generate", json=SMALL).json()
        assert job["waits_for"].startswith("The engine is down: ")
        assert len(job["waits_for"]) > len("The engine is down: ")
        assert job["eta_seconds"] is None
        assert "forecast" not in job
        told = first_of(gateway, "/api/v1/events", "snapshot")["jobs"]
        assert [one["position"] for one in told] == list(range(len(told)))
        assert all(one["waits_for"] == job["waits_for"] and "forecast" not in one for one in told)
        place = first_of(gateway, f"/api/v1/jobs/{job['job_id']}/stream", "position")
        assert (place["position"], place["eta_seconds"]) == (1, None)
        assert place["waits_for"] == job["waits_for"]
        task = httpx.post(f"{gateway.url}/api/generate", json={"prompt": "x"}).json()["task_id"]
        status = httpx.get(f"{gateway.url}/api/status", params={"task_id": task}).json()
        assert (status["status"], status["waits_for"]) == ("waiting", job["waits_for"])
        for path in ("/api/v1/queue", "/api/v1/jobs"):
            assert '"eta_seconds":null' in httpx.get(gateway.url + path).text.replace(" ", "")
        gateway.stop()
        assert drawn.result().status_code == 503


def test_a_model_load_and_a_pause_are_given_as_reasons_for_waiting(tmp_path: Path) -> None:
    loaded = tmp_path / "loaded"
    with live(tmp_path, fake_script={"load_until_path": str(loaded)}) as gateway, ThreadPoolExecutor() as pool:
        for _ in range(2):
            loaded.unlink(missing_ok=True)
            drawn = pool.submit(httpx.post, f"{gateway.url}/sdapi/v1/txt2img", json=SMALL, timeout=60)
            found = seen(gateway, "Loading the model")
            assert found["state"]["job"] == "scripts_txt2img"
            loaded.touch()
            assert drawn.result().status_code == 200
            assert progress(gateway)["state"]["job_count"] == 0
            httpx.post(f"{gateway.url}/sdapi/v1/unload-checkpoint").raise_for_status()
        httpx.post(f"{gateway.url}/api/v1/queue/pause").raise_for_status()
        drawn = pool.submit(httpx.post, f"{gateway.url}/sdapi/v1/txt2img", json=SMALL, timeout=60)
        assert seen(gateway, "The queue is paused.")["state"]["job_count"] == 1
        httpx.post(f"{gateway.url}/api/v1/queue/resume").raise_for_status()
        assert drawn.result().status_code == 200


def test_at_the_first_start_a_job_waits_for_the_engine(tmp_path: Path) -> None:
    with live(tmp_path, ready=False, fake_script={"start_seconds": 3.0}) as gateway, ThreadPoolExecutor() as pool:
        drawn = pool.submit(httpx.post, f"{gateway.url}/sdapi/v1/txt2img", json=SMALL, timeout=60)
        assert seen(gateway, "The engine starts.")["state"]["job_count"] == 1
        assert drawn.result().status_code == 200
