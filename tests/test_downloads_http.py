"""Downloads as clients of every protocol meet them: a real gateway, the hub's real client, a small hub."""

from __future__ import annotations

import base64
import io
import json
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from PIL import Image

from engine.catalog import CATALOG, EMBEDDED_PATH, HubFiles
from gateway.downloads.fetch import Download
from gateway.downloads.folders import folder_of, staging_of
from gateway.downloads.wire import Fetch
from tests.live import Live, live
from tests.toy_hub import ToyHub, hub_with, toy_hub

MODELS = ("flux2-klein-4b", "flux2-klein-9b", "flux2-klein-base-4b", "flux2-klein-base-9b")
"""One a test: what one has brought is here for the next."""
REPOS = {spec.name: spec.repo or "" for spec in CATALOG if spec.name in MODELS}
BIG = "transformer/model.safetensors"
SIZE = 4_000_000
FILES = {
    BIG: random.Random(3).randbytes(SIZE),
    "vae/model.safetensors": b"v" * 1000,
    "text_encoder/model.safetensors": b"t" * 1000,
    "tokenizer/tokenizer.json": b"{}",
}
ASKED = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 2}


def hub_in(folder: Path) -> AbstractContextManager[ToyHub]:
    return hub_with(MODELS, FILES, folder)


def gateway_in(folder: Path) -> Live:
    models = {"cache_dir": str(folder / "models"), "auto_download": True}
    return Live(folder, config={"models": models, "engine": {"memory_gb": 400}})


@pytest.fixture(scope="module")
def served_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ToyHub, Live]]:
    folder = tmp_path_factory.mktemp("downloads")
    with hub_in(folder) as hub:
        running = gateway_in(folder)
        try:
            yield hub, running.start()
        finally:
            running.stop()


@pytest.fixture
def hub(served_hub: tuple[ToyHub, Live]) -> Iterator[ToyHub]:
    hub = served_hub[0]
    yield hub
    hub.go_on.set()
    hub.hold_at.clear()
    hub.refusals.clear()


@pytest.fixture
def gateway(served_hub: tuple[ToyHub, Live]) -> Live:
    return served_hub[1]


def hold(hub: ToyHub, at: int) -> None:
    """The large file stops there until `go_on`."""
    hub.go_on.clear()
    hub.held.clear()
    hub.hold_at[BIG] = at


def until(condition: Callable[[], Any]) -> Any:
    for _ in range(3000):
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError("it did not come about")


def post(gateway: Live, path: str, **body: Any) -> httpx.Response:
    return httpx.post(gateway.url + path, json=body, timeout=60)


def get(gateway: Live, path: str) -> Any:
    return httpx.get(gateway.url + path, timeout=60).json()


def test_a_picture_of_a_model_that_is_not_there_waits_for_it_and_is_drawn(hub: ToyHub, gateway: Live) -> None:
    answer = post(gateway, "/sdapi/v1/txt2img", **ASKED, override_settings={"sd_model_checkpoint": MODELS[0]})
    assert answer.status_code == 200
    assert base64.b64decode(answer.json()["images"][0]).startswith(b"\x89PNG")
    assert get(gateway, f"/api/v1/models/{MODELS[0]}/status")["downloaded"] is True
    assert [line for line in gateway.logged().splitlines() if f"downloading {MODELS[0]}: 100 %" in line]


def test_the_native_api_tells_of_bytes_on_the_job_its_stream_and_the_model(hub: ToyHub, gateway: Live) -> None:
    hold(hub, SIZE // 2)
    job = post(gateway, "/api/v1/generate", **ASKED, model=MODELS[1]).json()
    events: list[tuple[str, dict[str, Any]]] = []

    def listen() -> None:
        with httpx.stream("GET", f"{gateway.url}/api/v1/jobs/{job['id']}/stream?images=false", timeout=60) as stream:
            kind = ""
            for line in stream.iter_lines():
                kind = line.removeprefix("event: ") if line.startswith("event: ") else kind
                if line.startswith("data: "):
                    events.append((kind, json.loads(line.removeprefix("data: "))))

    listening = threading.Thread(target=listen)
    listening.start()
    until(lambda: [data for kind, data in events if kind == "downloading" and data["done_bytes"] > 1_000_000])
    shown = get(gateway, f"/api/v1/jobs/{job['id']}")
    assert (shown["status"], shown["progress"]) == ("queued", 0.0)
    assert shown["progress_detail"]["phase"] == "downloading"
    assert shown["progress_detail"]["download"]["total_bytes"] == sum(map(len, FILES.values()))
    assert shown["eta_seconds"] > 0
    status = get(gateway, f"/api/v1/models/{MODELS[1]}/status")
    assert (status["status"], status["download"]["status"]) == ("downloading", "downloading")
    rows = {row["title"]: row for row in get(gateway, "/api/v1/models")["models"]}
    assert rows[MODELS[1]]["download"]["percent"] in range(20, 60)
    assert rows[f"{MODELS[1]}-8-bit"]["download"]["job_id"] == status["download"]["job_id"]
    assert rows["flux2-tiny"]["download"] is None
    download = get(gateway, f"/api/v1/jobs/{status['download']['job_id']}")
    assert (download["type"], download["status"], download["model"]) == ("download", "generating", MODELS[1])
    hub.go_on.set()
    listening.join(60)
    kinds = [kind for kind, _ in events]
    assert kinds.index("downloading") < kinds.index("started") < kinds.index("complete")


def test_openai_is_told_to_come_again_or_waits_where_it_streams(hub: ToyHub, gateway: Live) -> None:
    hold(hub, 100)
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0)
    asked: dict[str, Any] = {"model": MODELS[2], "prompt": "a red circle", "size": "64x64"}
    with pytest.raises(openai.APIStatusError) as caught:
        client.images.generate(**asked)
    assert caught.value.status_code == 503
    assert caught.value.response.headers["retry-after"] == "60"
    assert caught.value.code == "model_downloading"
    with pytest.raises(openai.APIStatusError) as edited:
        client.images.edit(image=("a.png", png()), **asked)
    assert edited.value.status_code == 503
    hub.go_on.set()
    kinds = [event.type for event in client.images.generate(**asked, stream=True)]
    assert kinds[-1] == "image_generation.completed"


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_gated_model_fails_the_job_with_the_next_step(hub: ToyHub, gateway: Live) -> None:
    hub.refusals[REPOS[MODELS[3]]] = (403, "GatedRepo")
    answer = post(gateway, "/sdapi/v1/txt2img", **ASKED, override_settings={"sd_model_checkpoint": MODELS[3]})
    assert answer.status_code == 500
    assert "accept its licence at" in answer.text


def test_a_pull_is_the_operators_and_so_is_the_end_of_it(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("boss boss-key-0123456789\nuser user-key-0123456789\n")
    keys.chmod(0o600)
    config = {
        "models": {"cache_dir": str(tmp_path / "models"), "auto_download": False},
        "access": {"keys_file": str(keys), "operators": ["boss"]},
    }
    boss, user = ({"Authorization": f"Bearer {name}-key-0123456789"} for name in ("boss", "user"))
    staging = staging_of(tmp_path / "models", REPOS[MODELS[0]])
    with hub_in(tmp_path) as hub:
        hold(hub, 1000)
        gateway = Live(tmp_path, config=config).start(ready=False)
        try:
            model = f"{gateway.url}/api/v1/models/{MODELS[0]}"

            def pulled() -> str:
                return f"{gateway.url}/api/v1/jobs/{httpx.post(f'{model}/pull', headers=boss).json()['id']}"

            assert httpx.post(f"{model}/pull", headers=user).status_code == 403
            refused = httpx.post(f"{gateway.url}/api/v1/generate", json={**ASKED, "model": MODELS[0]}, headers=user)
            assert refused.status_code == 404
            assert f"mflux-gateway models pull {MODELS[0]}" in refused.json()["error"]
            job = pulled()
            assert httpx.get(job, headers=user).json()["type"] == "download"
            assert httpx.delete(job, headers=user).status_code == 403
            assert httpx.delete(model, headers=user).status_code == 403
            assert httpx.delete(model, headers=boss).status_code == 409
            until(hub.held.is_set)
            assert httpx.delete(job, headers=boss, timeout=60).json()["status"] == "cancelled"
            assert staging.exists()
            assert httpx.delete(model, headers=boss).json() == {"model": MODELS[0], "removed": True}
            assert not staging.exists()
            assert httpx.delete(model, headers=boss).status_code == 404
            hub.hold_at.clear()
            job = pulled()
            until(lambda: httpx.get(job, headers=boss).json()["status"] == "completed")
            assert httpx.delete(model, headers=boss).json()["removed"] is True
            assert httpx.delete(f"{gateway.url}/api/v1/models/flux2-tiny", headers=boss).status_code == 409
        finally:
            gateway.stop()


def test_a_gateway_that_is_killed_in_the_middle_goes_on_there(tmp_path: Path) -> None:
    models, job = tmp_path / "models", ""
    partial = staging_of(models, REPOS[MODELS[0]]) / f"{BIG}.incomplete"
    with hub_in(tmp_path) as hub:
        for percent in (10, 50, 99):
            at = SIZE * percent // 100
            hold(hub, at)
            gateway = gateway_in(tmp_path).start(ready=False)
            job = job or post(gateway, "/api/v1/generate", **ASKED, model=MODELS[0]).json()["id"]
            until(lambda at=at: partial.exists() and partial.stat().st_size > at - 300_000)
            gateway.stop(signal.SIGKILL)
            assert not folder_of(models, REPOS[MODELS[0]]).exists()
        had = partial.stat().st_size
        hub.hold_at.clear()
        gateway = gateway_in(tmp_path).start(ready=False)
        try:
            until(lambda: get(gateway, f"/api/v1/jobs/{job}")["status"] == "completed")
            assert (folder_of(models, REPOS[MODELS[0]]) / BIG).read_bytes() == FILES[BIG]
        finally:
            gateway.stop()
    ranges = [one.headers["range"] for one in hub.bodies() if one.host == "other" and "range" in one.headers]
    resumed = [int(asked.removeprefix("bytes=").rstrip("-")) for asked in ranges]
    assert resumed == sorted(resumed)
    assert len(resumed) == 3
    assert resumed[-1] == had


def test_the_embedded_models_own_files_come_from_a_hub_and_draw(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = {
        file.relative_to(EMBEDDED_PATH).as_posix(): file.read_bytes()
        for file in EMBEDDED_PATH.rglob("*")
        if file.is_file() and "loras" not in file.parts
    }
    with toy_hub({"toys/Tiny": files}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        source = HubFiles(repo="toys/Tiny", patterns=())
        Download(Fetch(models_dir=str(tmp_path / "models"), sources=(source,)), endpoint=hub.url).run()
    folder = folder_of(tmp_path / "models", "toys/Tiny")
    config = {"models": {"default": "mine", "local": {"mine": {"path": str(folder), "like": "flux2-tiny"}}}}
    with live(tmp_path, backend="mlx", config=config) as gateway:
        answer = post(gateway, "/sdapi/v1/txt2img", prompt="a red circle on a blue background", width=128, height=128)
        assert answer.status_code == 200, answer.text
