"""Loading, unloading and what does not fit, as clients see it: over a socket, with the fake engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.live import Live, live
from tests.support.native import SMALL, ended, submit

TINY = "flux2-tiny"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("residency")
    (folder / "big" / "transformer").mkdir(parents=True)
    (folder / "big" / "transformer" / "0.safetensors").touch()
    big = {"path": str(folder / "big"), "like": "flux1-dev"}
    models = {"local": {"big": big, "drawn": big}}  # what is drawn is known better afterwards
    with live(folder, config={"models": models, "engine": {"memory_gb": 2}}) as gateway:
        yield gateway


@pytest.fixture
def client(gateway: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{gateway.url}/api/v1", timeout=30) as client:
        yield client


def status(client: httpx.Client) -> Any:
    return client.get(f"/models/{TINY}/status").json()


def test_model_is_loaded_as_a_job_and_unloaded_by_name(client: httpx.Client) -> None:
    answer = client.post(f"/models/{TINY}/load")
    assert answer.status_code == 200
    assert ended(client, answer.json()["job_id"])["status"] == "completed"
    assert status(client)["loaded"]
    assert client.post(f"/models/{TINY}/unload").json() == {"model": TINY, "unloaded": True}
    assert not status(client)["loaded"]
    assert client.post(f"/models/{TINY}/unload").json() == {"model": TINY, "unloaded": False}
    assert client.post("/models/no-such/unload").status_code == 404
    assert client.post("/models/no-such/load").status_code == 404


def test_model_not_quarantined_cannot_be_cleared(client: httpx.Client) -> None:
    assert client.delete(f"/models/{TINY}/quarantine").json() == {"model": TINY, "cleared": False}


def test_memory_low_ram_request_is_accepted(client: httpx.Client) -> None:
    assert ended(client, submit(client, low_ram=True)["job_id"])["status"] == "completed"


LARGE = {"prompt": "x", "model": "big", "width": 2048, "height": 2048}
MIDDLING = {**LARGE, "width": 1024, "height": 1024, "steps": 1}
TOLD = {"param": "low_ram", "asked": None, "used": "true", "reason": "the picture fits into memory only so"}
SENTENCE = "Insufficient memory. Try using a quantized model or low_ram mode"


def test_memory_refusal_uses_wording_of_the_seed_document(client: httpx.Client) -> None:
    answer = client.post("/generate", json=LARGE)
    assert answer.status_code == 400
    body = answer.json()
    assert (body["error"], body["code"]) == (SENTENCE, "OOM_ERROR")
    assert body["details"]["suggestion"] == "Use a smaller size"
    smaller = client.post("/generate", json={**MIDDLING, "low_ram": False}).json()
    assert smaller["details"]["suggestion"] == "Set low_ram=true"


def test_memory_low_ram_is_used_and_reported_when_required_to_fit(client: httpx.Client) -> None:
    job = ended(client, client.post("/generate", json={**MIDDLING, "model": "drawn"}).json()["job_id"])
    assert job["status"] == "completed"
    assert [told for told in job["adjustments"] if told["param"] == "low_ram"] == [TOLD]
    small = submit(client, low_ram=None)
    assert all(told["param"] != "low_ram" for told in ended(client, small["job_id"])["adjustments"])


def test_model_lists_of_other_protocols_mark_models_exceeding_memory(gateway: Live) -> None:
    v1 = {"prompt": "x", "model": "big", "size": "2048x2048"}
    answers = {
        path: httpx.post(gateway.url + path, json=body, timeout=30)
        for path, body in (("/sdapi/v1/txt2img", LARGE), ("/v1/images/generations", v1))
    }
    for path, answer in answers.items():
        assert 400 <= answer.status_code < 500, path
        assert SENTENCE in answer.text, path
    body = answers["/sdapi/v1/txt2img"].json()
    assert (body["error"], body["code"]) == (SENTENCE, "OOM_ERROR")
    assert body["details"]["suggestion"] == "Use a smaller size"


def test_model_quarantined_is_reported_unavailable_until_cleared(tmp_path: Path) -> None:
    script = {"crash_in": "load", "crash_times": 2, "counter_path": str(tmp_path / "count")}
    with (
        live(tmp_path, fake_script=script) as started,
        httpx.Client(base_url=f"{started.url}/api/v1", timeout=60) as client,
    ):
        assert ended(client, submit(client)["job_id"])["status"] == "failed"
        assert status(client)["status"] == "unavailable"
        answer = client.post("/generate", json=SMALL)
        assert (answer.status_code, answer.json()["code"]) == (503, "MODEL_UNAVAILABLE")
        assert httpx.post(f"{started.url}/v1/images/generations", json={"prompt": "x"}).status_code == 503
        assert client.delete(f"/models/{TINY}/quarantine").json() == {"model": TINY, "cleared": True}
        assert ended(client, submit(client)["job_id"])["status"] == "completed"
