"""LoRAs by every protocol: listed, named, put on, and refused before the queue where they do not fit (S-20, S-21)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.support.live import Live, live
from tests.support.lora import KLEIN_4B, TINY, save_lora

SMALL = {"prompt": "a red circle", "width": 64, "height": 64}
WRONG = "LoRA 'large' does not fit flux2-tiny: it is for flux2-klein-4b and flux2-klein-base-4b."


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("loras")
    ink = save_lora(folder / "more" / "style", "ink", TINY, ss_output_name="inky")
    ink.with_suffix(".json").write_text(json.dumps({"activation text": "pen lines", "description": "Lines."}))
    Image.new("RGB", (32, 16), "red").save(ink.with_suffix(".png"))
    save_lora(folder / "models" / "loras", "large", KLEIN_4B)
    (folder / "more" / "broken.safetensors").write_bytes(b"x")
    config = {
        "models": {"cache_dir": str(folder / "models")},
        "loras": {
            "folders": [str(folder / "more")],
            "aliases": {"pen": "style/ink"},
            "hub": {"far": {"repo": "me/far", "file": "far.safetensors", "like": "flux2-tiny"}},
        },
    }
    with live(folder, config=config, fake_script={"step_seconds": 0.0}) as running:
        yield running


@pytest.fixture
def client(gateway: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, timeout=60) as made:
        yield made


def asked_by(protocol: str, lora: str, scale: float = 1.0) -> tuple[str, dict[str, Any]]:
    """Path and body by which a protocol's client asks for one LoRA."""
    match protocol:
        case "sdapi tag":
            return "/sdapi/v1/txt2img", {**SMALL, "prompt": f"a red circle <lora:{lora}:{scale}>"}
        case "sdapi files":
            return "/sdapi/v1/txt2img", {**SMALL, "lora_files": [lora], "lora_scales": [scale]}
        case "openai":
            body = {"prompt": "a red circle", "size": "64x64", "loras": [{"name": lora, "scale": scale}]}
            return "/v1/images/generations", body
        case "native":
            return "/api/v1/generate", {**SMALL, "loras": [{"name": lora, "scale": scale}]}
        case "native files":
            return "/api/v1/generate", {**SMALL, "lora_files": [lora], "lora_scales": scale}
        case _:
            return "/api/generate", {**SMALL, "lora_paths": [lora], "lora_scales": [scale]}


def newest_of(client: httpx.Client) -> list[str]:
    return [job["id"] for job in client.get("/api/v1/jobs", params={"limit": 1}).json()["jobs"]]


PROTOCOLS = ("sdapi tag", "sdapi files", "openai", "native", "native files", "mflux-server")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_lora_is_applied_by_any_of_its_names(client: httpx.Client, protocol: str) -> None:
    for call in ("style/ink", "inky", "pen"):
        path, body = asked_by(protocol, call, 0.5)
        assert client.post(path, json=body).status_code == 200, call
        newest = client.get("/api/v1/jobs", params={"limit": 1}).json()["jobs"][0]
        assert newest["loras"] == [{"name": "style/ink", "scale": 0.5}]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("lora", "scale", "sentence"),
    [
        ("large", 1.0, WRONG),
        ("far", 1.0, "LoRA 'far' is not on this machine yet."),
        ("broken", 1.0, "LoRA 'broken' cannot be used: its file is damaged or not safe to load."),
        ("pen", 4.5, "A LoRA's scale must be between -4 and 4."),
    ],
)
def test_lora_that_cannot_be_applied_is_refused_before_the_queue(
    client: httpx.Client, protocol: str, lora: str, scale: float, sentence: str
) -> None:
    before = newest_of(client)
    path, body = asked_by(protocol, lora, scale)
    refused = client.post(path, json=body)
    assert refused.status_code == (422 if protocol.startswith("sdapi") else 400)
    assert sentence in json.dumps(refused.json(), ensure_ascii=False)
    assert newest_of(client) == before


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_lora_missing_is_refused_or_reported_without_opening_a_path(
    client: httpx.Client, protocol: str, gateway: Live
) -> None:
    for lora in ("/etc/passwd", str(gateway.folder / "config.yaml"), "../loras/large"):
        path, body = asked_by(protocol, lora)
        answer = client.post(path, json=body)
        if protocol.startswith("sdapi"):
            adjustments = json.loads(answer.json()["info"])["adjustments"]
            assert any(a["reason"] == "there is no such LoRA in the library" for a in adjustments)
        else:
            assert answer.status_code == 400
            assert "is not in the library" in answer.text


def test_lora_list_shows_what_is_known_of_each_lora(client: httpx.Client, gateway: Live) -> None:
    rows = {row["name"]: row for row in client.get("/api/v1/loras").json()["loras"]}
    assert set(rows) == {"style/ink", "large", "broken", "far", "night"}
    ink = rows["style/ink"]
    assert (ink["models"], ink["rank"], ink["activation_text"]) == (["flux2-tiny"], 4, "pen lines")
    assert sorted(ink["aliases"]) == ["ink", "inky", "pen"]
    assert rows["broken"]["trouble"] is not None
    assert (rows["far"]["downloaded"], rows["far"]["repo"]) == (False, "me/far")
    assert str(gateway.folder) not in json.dumps(rows)


def test_lora_details_include_hashes_and_preview_image(client: httpx.Client) -> None:
    for call in ("style/ink", "inky", "pen"):
        shown = client.get(f"/api/v1/loras/{call}").json()
        assert (shown["name"], shown["description"], len(shown["sha256"])) == ("style/ink", "Lines.", 64)
    picture = client.get(shown["preview_url"])
    assert (picture.headers["content-type"], picture.content[:4]) == ("image/png", b"\x89PNG")
    assert client.get("/api/v1/loras/large/preview").status_code == 404
    for missing in ("nothing", "../config.yaml", "%2e%2e/config.yaml", "/etc/passwd"):
        answer = client.get(f"/api/v1/loras/{missing}")
        assert (answer.status_code, answer.json()["code"]) in ((404, "LORA_NOT_FOUND"), (404, "NOT_FOUND"))


def test_lora_sdapi_list_has_usable_loras_and_finds_new_files(client: httpx.Client, gateway: Live) -> None:
    def names() -> set[str]:
        return {row["name"] for row in client.get("/sdapi/v1/loras").json()}

    assert names() == {"style/ink", "large", "night"}
    file = save_lora(Path(gateway.folder / "more"), "new", TINY)
    assert client.post("/sdapi/v1/refresh-loras").json() is None
    assert "new" in names()
    file.unlink()
    assert "new" not in names()
