"""The third seed document: its examples as written, and each answer of /api/v1 field by field.

Only the corrections that seeds/mflux_api.json lists are made (DECISIONS 2).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from gateway import __version__
from tests.support.live import Live, live
from tests.support.native import SMALL, client_of, ended, read, submit

SEED = json.loads((Path(__file__).parents[2] / "seeds" / "mflux_api.json").read_text())
EXAMPLES: list[dict[str, Any]] = SEED["examples"]
ALIASES = {"flux2-klein-4b": "flux2-tiny", "flux2-klein-4b-mlx-4bit": "flux2-tiny"}
ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("seed")
    with live(folder, fake_script={"step_seconds": 0.02}, config={"models": {"aliases": ALIASES}}) as gateway:
        yield gateway


@pytest.fixture
def client(gateway: Live) -> Iterator[httpx.Client]:
    with client_of(gateway.url) as client:
        yield client


def corrected(example: dict[str, Any], gateway: Live) -> str:
    text = "\n".join(example["text"])
    for old, new, _why in example["corrections"]:
        assert old in text
        text = text.replace(old, new)
    return text.replace("localhost:7861", f"127.0.0.1:{gateway.port}").replace(
        "127.0.0.1:7861", f"127.0.0.1:{gateway.port}"
    )


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["name"])
def test_an_example_of_the_documentation_runs(gateway: Live, tmp_path: Path, example: dict[str, Any]) -> None:
    text = corrected(example, gateway)
    if example["kind"] == "curl":
        missing = [tool for tool in ("curl", "jq") if tool in text and shutil.which(tool) is None]
        if missing:
            assert not os.environ.get("CI"), "CI must have curl and jq"
            pytest.skip(f"{', '.join(missing)} not installed")
    command = ["bash", "-c", text] if example["kind"] == "curl" else [sys.executable, "-c", text]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    for name in example["files"]:
        with Image.open(tmp_path / name) as picture:
            assert picture.format == "PNG"
    for line in example["prints"]:
        assert line in done.stdout
    if example["kind"] == "curl" and not example["files"]:
        assert len(json.loads(done.stdout)["images"]) == 1


# ---- each answer, field by field ------------------------------------------------------------------


def same_shape(told: Any, shown: Any, where: str = "") -> None:
    """Every field of the documentation is there, of the same type; what is beside it is ours."""
    if isinstance(shown, dict):
        assert isinstance(told, dict), where
        for key, value in shown.items():
            assert key in told, f"{where}.{key} is missing"
            same_shape(told[key], value, f"{where}.{key}")
    elif isinstance(shown, list):
        assert isinstance(told, list), where
        for item in told[:3]:
            same_shape(item, shown[0], f"{where}[]")
    elif isinstance(shown, bool) or shown is None:
        assert isinstance(told, type(shown)), where
    elif isinstance(shown, int | float):
        assert isinstance(told, int | float), where
        assert not isinstance(told, bool), where
    else:
        assert isinstance(told, str), where


def answer(name: str) -> Any:
    return json.loads("\n".join(SEED["answers"][name]))


def test_generate_answers_as_documented(client: httpx.Client) -> None:
    told = client.post("/generate", json={**SMALL, **answer("generate request"), "model": "flux2-klein-4b"})
    assert told.status_code == 200
    same_shape(told.json(), answer("generate"))
    assert told.json()["status"] in ("queued", "generating")
    client.delete(f"/jobs/{told.json()['job_id']}")


def test_jobs_and_job_answer_as_documented(client: httpx.Client) -> None:
    job_id = submit(client, num_images=4, seed=42)["job_id"]
    done = ended(client, job_id)
    same_shape(done, answer("job"))
    assert (done["id"], done["status"], done["progress"]) == (job_id, "completed", 1.0)
    assert done["result"]["seeds"] == answer("job")["result"]["seeds"]
    assert ISO.fullmatch(done["created_at"])
    assert ISO.fullmatch(done["completed_at"])
    listed = client.get("/jobs").json()
    same_shape(listed, answer("jobs"))
    assert "result" not in listed["jobs"][0]


def test_the_progress_of_a_running_job_is_a_fraction_and_it_is_generating(client: httpx.Client) -> None:
    job_id = submit(client, num_images=10)["job_id"]
    next(e for e in read(client, f"/jobs/{job_id}/stream") if e["event"] == "progress" and e["data"]["progress"] > 0)
    listed = client.get("/jobs").json()["jobs"][0]
    assert listed["status"] == answer("jobs")["jobs"][0]["status"] == "generating"
    assert 0 < listed["progress"] < 1
    told = client.delete(f"/jobs/{job_id}")
    assert told.json() == {**answer("delete"), "job_id": job_id}


def test_the_events_are_those_of_the_documentation(client: httpx.Client) -> None:
    """What its JavaScript reads: data.progress, and data.result at the end. tests/studio/test_browser.py runs it."""
    seen = list(read(client, f"/jobs/{submit(client)['job_id']}/stream"))
    assert all(isinstance(e["data"]["progress"], float) for e in seen if e["event"] == "progress")
    assert set(seen[-1]["data"]["result"]) >= {"images", "seeds"}


def test_models_and_model_status_answer_as_documented(client: httpx.Client) -> None:
    models = client.get("/models").json()
    tiny = next(model for model in models["models"] if model["title"] == "flux2-tiny")
    same_shape(tiny, answer("models")["models"][0])
    assert (tiny["downloaded"], tiny["hash"]) == (True, tiny["sha256"][:10])
    assert len(tiny["sha256"]) == 64
    klein = next(model for model in models["models"] if model["title"] == "flux2-klein-9b")
    assert (klein["model_name"], klein["downloaded"]) == ("black-forest-labs/FLUX.2-klein-9B", False)
    assert (klein["hash"], klein["config"]["supports_guidance"]) == (None, False)
    base = next(model for model in models["models"] if model["title"] == "flux2-klein-base-4b")
    assert base["config"]["supports_guidance"]
    alias = next(model for model in models["models"] if model["title"] == "flux2-klein-4b-mlx-4bit")
    assert (alias["alias_of"], alias["downloaded"]) == ("flux2-tiny", True)
    ended(client, submit(client)["job_id"])
    status = client.get("/models/flux2-tiny/status").json()
    same_shape(status, answer("model status"))
    assert (status["status"], status["loaded"], status["path"]) == ("ready", True, "flux2-tiny")
    missing = client.get("/models/flux2-klein-9b/status").json()
    assert (missing["status"], missing["downloaded"], missing["loaded"]) == ("missing", False, False)
    assert missing["path"] is None
    unknown = client.get("/models/schnell/status")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "MODEL_NOT_FOUND")
    assert client.get("/models/a/b:c/status").status_code == 404


def test_health_and_system_answer_as_documented(gateway: Live, client: httpx.Client) -> None:
    health = client.get("/health").json()
    same_shape(health, answer("health"))
    assert (health["status"], health["version"]) == ("healthy", __version__)
    ended(client, submit(client)["job_id"])
    system = client.get("/system").json()
    same_shape(system, answer("system"))
    memory = system["system_memory_gb"]
    assert memory["used"] + memory["free"] == pytest.approx(memory["total"], abs=0.01)
    assert system["active_model"] == "flux2-tiny"


def test_the_queue_answers_as_documented(client: httpx.Client) -> None:
    running, waiting = submit(client, num_images=10), submit(client)
    next(e for e in read(client, f"/jobs/{running['id']}/stream") if e["event"] == "progress")
    queue = client.get("/queue").json()
    same_shape(queue, {**answer("queue"), "active": {**answer("queue")["active"]}})
    assert queue["active"]["job_id"] == running["id"]
    assert (queue["queued"][0]["job_id"], queue["queued"][0]["position"]) == (waiting["id"], 1)
    assert queue["queued"][0]["eta_seconds"] >= queue["active"]["eta_seconds"] >= 0
    assert waiting["forecast"]["wait_seconds"] <= waiting["eta_seconds"]
    for job in (waiting, running):
        client.delete(f"/jobs/{job['id']}")


def test_stats_answer_as_documented(client: httpx.Client) -> None:
    before = client.get("/stats").json()
    ended(client, submit(client, num_images=2)["job_id"])
    stats = client.get("/stats").json()
    same_shape(stats, answer("stats"))
    assert stats["total_generations"] >= before["total_generations"] + 1
    assert stats["total_images"] >= before["total_images"] + 2
    assert stats["uptime_hours"] >= before["uptime_hours"] > 0


def test_errors_have_the_documented_form(client: httpx.Client) -> None:
    refused = client.post("/generate", json={"prompt": "x", "model": "schnell"})
    assert refused.status_code == 404
    told = refused.json()
    assert told["error"] == answer("model not found")["error"]
    assert told["code"] == answer("model not found")["code"]
    assert {"flux2-klein-4b", "flux2-klein-9b"} <= set(told["details"]["available_models"])
    same_shape(client.get("/jobs/nothing").json(), {"error": "", "code": ""})


def test_stats_of_a_gateway_without_pictures_have_no_average(tmp_path: Path) -> None:
    with live(tmp_path) as gateway, client_of(gateway.url) as client:
        stats = client.get("/stats").json()
        assert (stats["total_generations"], stats["total_images"], stats["average_time_seconds"]) == (0, 0, None)
        assert client.get("/queue").json()["active"] is None
        assert client.get("/system").json()["mlx_memory_gb"] is None
