"""What every protocol says of models that cannot be drawn with, are the operator's own, or are not here at all."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from engine.catalog import CATALOG
from tests.support.live import ROOT, live

DEV = "FLUX.2-dev cannot be drawn with: mflux 0.24 has no loader for it. Use flux2-klein-9b."


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("listed")
    for name in ("mine", "FLUX.2-dev"):
        (folder / name / "transformer").mkdir(parents=True)
        (folder / name / "transformer" / "0.safetensors").write_bytes(b"x")
    (folder / "mine" / "mflux_model.json").write_text(json.dumps({"base_model": "z-image"}))
    models = {
        "cache_dir": str(folder),
        "local": {"mine": {"path": str(folder / "mine")}},
        "hub": {"theirs": {"repo": "somebody/finetune", "like": "flux2-klein-4b", "revision": "a" * 40}},
        "auto_download": False,
    }
    with live(folder, config={"models": models}) as gateway, httpx.Client(base_url=gateway.url, timeout=30) as client:
        yield client


def test_model_list_of_native_protocol_matches_catalogue(client: httpx.Client) -> None:
    rows = {row["title"]: row for row in client.get("/api/v1/models").json()["models"]}
    for spec in CATALOG:
        row = rows[spec.name]
        assert row["unavailable"] == spec.unavailable
        assert (row["gated"], row["revision"], row["licence"]) == (spec.gated, spec.revision, spec.licence)
        assert row["config"]["max_sequence_length"] == spec.max_sequence
        able = row["capabilities"]
        assert (able["lora"], able["mask"], able["needs_mask"]) == (spec.lora, spec.masks, spec.needs_mask)
        assert (able["needs_reference"], able["control"]) == (spec.needs_reference, spec.control)
        assert (able["min_steps"], able["step_px"]) == (spec.min_steps, spec.step_px)
        assert (able["min_px"], able["max_px"], able["max_pixels"]) == (spec.min_px, 8192, 8_847_360)
        assert able["guidance_range"] == list(spec.guidance_range)
    assert not rows["flux2-dev"]["downloaded"], "not even where its folder lies"
    assert rows["mine"]["downloaded"]
    assert rows["mine"]["capabilities"]["negative_prompt"], "as z-image"
    assert (rows["theirs"]["model_name"], rows["theirs"]["revision"]) == ("somebody/finetune", "a" * 40)


def test_model_unavailable_is_refused_with_same_sentence_everywhere(client: httpx.Client) -> None:
    assert client.get("/api/v1/models/flux2-dev/status").json()["status"] == "unavailable"
    native = client.post("/api/v1/generate", json={"prompt": "x", "model": "flux2-dev-4-bit"})
    assert (native.status_code, native.json()["code"], native.json()["error"]) == (400, "MODEL_NOT_SERVED", DEV)
    assert native.json()["details"]["param"] == "model"
    a1111 = client.post("/sdapi/v1/txt2img", json={"prompt": "x", "model": "flux2-dev"})
    assert 400 <= a1111.status_code < 500
    openai = client.post("/v1/images/generations", json={"prompt": "x", "model": "flux2-dev"})
    assert (openai.status_code, openai.json()["error"]["param"]) == (400, "model")
    server = client.post("/api/load", json={"model": "flux2-dev"})
    assert server.status_code == 400
    for answer in (a1111, openai, server):
        assert DEV in answer.text


def test_model_list_of_drawing_protocols_has_only_models_ready_to_draw(client: httpx.Client) -> None:
    assert {row["title"] for row in client.get("/sdapi/v1/sd-models").json()} == {"flux2-tiny", "mine"}
    assert {row["id"] for row in client.get("/v1/models").json()["data"]} >= {"flux2-tiny", "mine"}
    assert "flux2-dev" not in client.get("/v1/models").text
    assert set(client.get("/api/ls").json()) == {"flux2-tiny", "mine"}


@pytest.mark.parametrize(
    ("asked", "said", "use"),
    [
        ("schnell", "Flux1 models removed. Use flux2-klein-4b or flux2-klein-9b", "flux1-schnell"),
        ("dev", "Flux1 models removed. Use flux2-klein-4b or flux2-klein-9b", "flux1-dev"),
        ("Kolors", "It is not served. Use qwen-image", "qwen-image"),
        ("FLUX.1-schnell", "It is served as flux1-schnell", "flux1-schnell"),
        ("sd3.5-large", "Stable Diffusion 3 is not served. Use z-image", "z-image"),
    ],
)
def test_model_names_of_other_gateways_are_answered_with_served_model(
    client: httpx.Client, asked: str, said: str, use: str
) -> None:
    native = client.post("/api/v1/generate", json={"prompt": "x", "model": asked})
    assert (native.status_code, native.json()["code"]) == (404, "MODEL_NOT_FOUND")
    assert native.json()["error"] == f"Model '{asked}' not found. {said}"
    assert native.json()["details"]["suggestion"] == f"Use {use}"
    assert use in native.json()["details"]["available_models"]
    xinference = client.post("/v1/images/generations", json={"prompt": "x", "model": asked})
    assert xinference.status_code == 404
    assert said in xinference.json()["error"]["message"]


def test_model_folder_that_is_ambiguous_stops_startup_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "mystery").mkdir()
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps({"models": {"local": {"mystery": {"path": str(tmp_path / "mystery")}}}}))
    left = subprocess.run([sys.executable, "api_main.py", "--config", config], cwd=ROOT, capture_output=True, text=True)
    assert left.returncode != 0
    assert "models.local.mystery: it does not say which model it is" in left.stderr
    assert "Traceback" not in left.stderr
