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
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
from PIL import Image

from engine.catalog import CATALOG
from gateway.models.folders import folder_of, staging_of
from tests.support.live import Live
from tests.support.toy_hub import ToyHub, hub_with

DRAWN, WATCHED, LATER, GATED = "flux2-klein-4b", "flux2-klein-9b", "flux2-klein-base-4b", "flux2-klein-base-9b"
PULLED, KILLED = "flux2-klein-4b-mlx-4bit", "flux2-klein-9b-mlx-4bit"
MODELS = (DRAWN, WATCHED, LATER, GATED, PULLED, KILLED)
"""One a test."""
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


BOSS, USER = (
    httpx.Client(headers={"Authorization": f"Bearer {name}-key-0123456789"}, timeout=60) for name in ("boss", "user")
)


@pytest.fixture(scope="module")
def served_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ToyHub, Live]]:
    folder = tmp_path_factory.mktemp("downloads")
    keys = folder / "keys"
    keys.write_text("boss boss-key-0123456789\nuser user-key-0123456789\n")
    keys.chmod(0o600)
    config = {
        "models": {"cache_dir": str(folder / "models"), "auto_download": True},
        "engine": {"memory_gb": 400},
        "access": {"keys_file": str(keys), "operators": ["boss"]},
    }
    with hub_with(MODELS, FILES, folder) as hub, BOSS, USER:
        running = Live(folder, config=config)
        try:
            yield hub, running.start(ready=False)
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
    for _ in range(1000):
        if found := condition():
            return found
        time.sleep(0.03)
    raise AssertionError("it did not come about")


def post(gateway: Live, path: str, **body: Any) -> httpx.Response:
    return BOSS.post(gateway.url + path, json=body)


def get(gateway: Live, path: str) -> Any:
    return BOSS.get(gateway.url + path).json()


def test_image_job_waits_for_missing_model_download_and_is_drawn(hub: ToyHub, gateway: Live) -> None:
    answer = post(gateway, "/sdapi/v1/txt2img", **ASKED, override_settings={"sd_model_checkpoint": DRAWN})
    assert answer.status_code == 200
    assert base64.b64decode(answer.json()["images"][0]).startswith(b"\x89PNG")
    assert get(gateway, f"/api/v1/models/{DRAWN}/status")["downloaded"] is True
    assert [line for line in gateway.logged().splitlines() if f"downloading {DRAWN}: 100 %" in line]


def test_download_bytes_are_reported_on_job_stream_and_model(hub: ToyHub, gateway: Live) -> None:
    hold(hub, SIZE // 2)
    job = post(gateway, "/api/v1/generate", **ASKED, model=WATCHED).json()
    events: list[tuple[str, dict[str, Any]]] = []

    def listen() -> None:
        with BOSS.stream("GET", f"{gateway.url}/api/v1/jobs/{job['id']}/stream?images=false") as stream:
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
    assert shown["progress_detail"]["eta_seconds"] > 0
    status = get(gateway, f"/api/v1/models/{WATCHED}/status")
    assert (status["status"], status["download"]["status"]) == ("downloading", "downloading")
    rows = {row["title"]: row for row in get(gateway, "/api/v1/models")["models"]}
    assert rows[WATCHED]["download"]["percent"] in range(20, 60)
    assert rows[f"{WATCHED}-8-bit"]["download"]["job_id"] == status["download"]["job_id"]
    assert rows["flux2-tiny"]["download"] is None
    download = get(gateway, f"/api/v1/jobs/{status['download']['job_id']}")
    assert (download["type"], download["status"], download["model"]) == ("download", "generating", WATCHED)
    with ThreadPoolExecutor() as pool:
        loads = pool.submit(post, gateway, "/api/load", model=WATCHED)
        until(lambda: any(job["type"] == "load" for job in get(gateway, "/api/v1/queue")["queued"]))
        hub.go_on.set()
        assert loads.result().json()["model"] == WATCHED
    listening.join(60)
    kinds = [kind for kind, _ in events]
    assert kinds.index("downloading") < kinds.index("started") < kinds.index("complete")


def test_download_wait_in_openai_returns_retry_or_streams(hub: ToyHub, gateway: Live) -> None:
    hold(hub, 100)
    asked: dict[str, Any] = {"model": LATER, "prompt": "a red circle", "size": "64x64"}
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="boss-key-0123456789", max_retries=0) as client:
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


def test_model_gated_fails_job_with_next_step(hub: ToyHub, gateway: Live) -> None:
    hub.refusals[REPOS[GATED]] = (403, "GatedRepo")
    answer = post(gateway, "/sdapi/v1/txt2img", **ASKED, override_settings={"sd_model_checkpoint": GATED})
    assert answer.status_code == 500
    assert "accept its licence at" in answer.text


def test_model_pull_and_its_cancel_are_for_the_operator_only(hub: ToyHub, gateway: Live) -> None:
    model = f"{gateway.url}/api/v1/models/{PULLED}"
    staging = staging_of(gateway.folder / "models", REPOS[PULLED])
    hold(hub, 1000)

    def pulled() -> str:
        return f"{gateway.url}/api/v1/jobs/{BOSS.post(f'{model}/pull').json()['job_id']}"

    assert USER.post(f"{model}/pull").status_code == 403
    job = pulled()
    assert pulled() == job
    assert USER.get(job).json()["type"] == "download"
    assert USER.delete(job).status_code == 403
    assert USER.delete(model).status_code == 403
    assert BOSS.delete(model).status_code == 409
    until(hub.held.is_set)
    assert BOSS.delete(job).json()["status"] == "cancelled"
    assert staging.exists()
    assert BOSS.delete(model).json() == {"model": PULLED, "removed": True}
    assert not staging.exists()
    assert BOSS.delete(model).status_code == 404
    hub.hold_at.clear()
    job = pulled()
    until(lambda: BOSS.get(job).json()["status"] == "completed")
    assert BOSS.delete(model).json()["removed"] is True
    assert BOSS.delete(f"{gateway.url}/api/v1/models/flux2-tiny").status_code == 409


def test_download_resumes_after_gateway_is_killed(hub: ToyHub, gateway: Live) -> None:
    folder = folder_of(gateway.folder / "models", REPOS[KILLED])
    partial = staging_of(gateway.folder / "models", REPOS[KILLED]) / f"{BIG}.incomplete"
    hold(hub, SIZE // 2)
    job = post(gateway, "/api/v1/generate", **ASKED, model=KILLED).json()["job_id"]
    until(lambda: partial.exists() and partial.stat().st_size > SIZE // 4)
    gateway.stop(signal.SIGKILL)
    assert not folder.exists()
    had = partial.stat().st_size
    hub.hold_at.clear()
    hub.seen.clear()
    gateway.start(ready=False)
    until(lambda: get(gateway, f"/api/v1/jobs/{job}")["status"] == "completed")
    assert (folder / BIG).read_bytes() == FILES[BIG]
    assert [one.headers.get("range") for one in hub.bodies() if one.host == "other"] == [f"bytes={had}-"]
