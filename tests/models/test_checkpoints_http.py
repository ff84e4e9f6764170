"""Checkpoints over HTTP, with the fake engine: listed without a restart, drawn with, refused with their reasons."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gateway.app import build_core
from gateway.errors import ModelNotFound
from gateway.settings import Settings, SettingsError, load_settings
from tests.support.checkpoint_files import SD1, SDXL, VAE, write_header
from tests.support.live import Live, live
from tests.support.lora import TINY, save_lora

SMALL = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 2}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of AUTOMATIC1111."""
    root = tmp_path_factory.mktemp("webui")
    checkpoints = root / "models" / "Stable-diffusion"
    write_header(checkpoints / "dreamshaper_8.safetensors", SD1)
    write_header(checkpoints / "sub" / "noVae.safetensors", {name: SDXL[name] for name in SDXL if name not in VAE})
    (checkpoints / "old.ckpt").write_bytes(b"PK")
    write_header(root / "models" / "VAE" / "ft-mse.safetensors", VAE)
    save_lora(root / "models" / "Lora", "ink", TINY)
    write_header(root / "embeddings" / "easynegative.safetensors", {"emb_params": (3, 768)})
    return root


@pytest.fixture(scope="module")
def gateway(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    arguments = ("--a1111-dir", str(root))
    with live(tmp_path_factory.mktemp("gateway"), arguments=arguments, fake_script={}) as running:
        yield running


@pytest.fixture
def client(gateway: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, timeout=60) as made:
        yield made


def test_models_of_an_a1111_folder_are_listed_as_other_local_models(client: httpx.Client) -> None:
    rows = {row["title"]: row for row in client.get("/api/v1/models").json()["models"]}
    dream = rows["dreamshaper_8"]
    assert (dream["config"]["base_arch"], dream["downloaded"], dream["removable"]) == ("sd1", True, False)
    assert (dream["capabilities"]["default_px"], dream["capabilities"]["step_px"]) == (512, 8)
    assert dream["description"] == "A checkpoint of Stable Diffusion 1"
    assert "old" not in rows
    assert "ink" in [row["name"] for row in client.get("/api/v1/loras").json()["loras"]]
    status = client.get("/api/v1/models/dreamshaper_8/status").json()
    assert (status["status"], status["path"]) == ("ready", "dreamshaper_8.safetensors")
    assert "dreamshaper_8" in [row["id"] for row in client.get("/v1/models").json()["data"]]
    assert "dreamshaper_8" in client.get("/api/ls").text


def test_file_that_is_added_is_listed_and_drawn_with_without_a_restart(client: httpx.Client, root: Path) -> None:
    write_header(root / "models" / "Stable-diffusion" / "new.safetensors", SD1)
    assert "new" in [row["title"] for row in client.get("/api/v1/models").json()["models"]]
    drawn = client.post("/v1/images/generations", json={"prompt": "x", "model": "new", "size": "64x64"})
    assert drawn.status_code == 200, drawn.text


def test_checkpoint_is_named_by_its_file_name_or_title(client: httpx.Client) -> None:
    for name in ("dreamshaper_8", "dreamshaper_8.safetensors", "dreamshaper_8.safetensors [0123456789]"):
        drawn = client.post("/api/v1/generate?wait=true", json={**SMALL, "model": name})
        assert drawn.status_code < 300, drawn.text


def test_files_that_cannot_be_used_are_refused_and_found(client: httpx.Client) -> None:
    refused = client.post("/api/v1/generate", json={**SMALL, "model": "old.ckpt"})
    assert refused.status_code >= 400
    assert "convert it to safetensors" in refused.text
    without = client.post("/api/v1/generate", json={**SMALL, "model": "noVae"})
    assert without.status_code == 400
    assert "no VAE of its own" in without.text
    found = {row["what"]: row["found"] for row in client.get("/api/v1/findings").json()["findings"]}
    assert "pickle" in found["checkpoint old.ckpt"]


def settings_of(tmp_path: Path, *arguments: str, **models: object) -> Settings:
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps({"models": models, "store": {"data_dir": str(tmp_path / "data")}}))
    return load_settings(["--config", str(config), *arguments], {})


def test_folder_of_a1111_without_checkpoints_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no folder models/Stable-diffusion"):
        build_core(settings_of(tmp_path, "--a1111-dir", str(tmp_path)))


def test_default_model_and_aliases_may_be_checkpoints_or_a_file(tmp_path: Path, root: Path) -> None:
    folder = root / "models" / "Stable-diffusion"
    named = {"checkpoint_dirs": [str(folder)], "default": "dream", "aliases": {"dream": "dreamshaper_8"}}
    assert build_core(settings_of(tmp_path, **named)).library.default == "dreamshaper_8"
    core = build_core(settings_of(tmp_path, "--model", str(folder / "dreamshaper_8.safetensors")))
    assert (core.library.default, core.library.find(None).family) == ("dreamshaper_8", "sd1")
    with pytest.raises(ModelNotFound):
        build_core(settings_of(tmp_path, **named | {"default": "nothing-like-it"}))
    with pytest.raises(ModelNotFound, match="is a VAE"):
        build_core(settings_of(tmp_path, "--model", str(root / "models" / "VAE" / "ft-mse.safetensors")))
