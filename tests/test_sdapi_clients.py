"""/sdapi/v1 as its clients use it: recorded calls over a real socket, and webuiapi itself, unmodified."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.live import Live, live
from tests.sdapi_support import INIT, opened

GOLDEN = sorted((Path(__file__).parent / "golden" / "sdapi").glob("*.json"))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("sdapi")) as started:
        yield started


@pytest.fixture
def client(gateway: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{gateway.url}/sdapi/v1/", timeout=60) as made:
        yield made


# ---- recorded clients ------------------------------------------------------------------------------


def send(gateway: Live, call: dict[str, Any], options: dict[str, Any]) -> tuple[int, str, Any]:
    """Status, content type and JSON of one call. By http.client: httpx refuses to send `Basic ` with nothing behind."""
    body = options if call.get("json") == "$OPTIONS" else call.get("json")
    text = call.get("content", "" if body is None else json.dumps(body)).replace("$INIT", INIT)
    headers = dict(call.get("headers", {}))
    if body is not None:
        headers["content-type"] = "application/json"
    connection = HTTPConnection("127.0.0.1", gateway.port, timeout=60)
    try:
        connection.request(call["method"], f"/sdapi/v1/{call['path']}", text.encode() or None, headers)
        response = connection.getresponse()
        return response.status, response.getheader("content-type", ""), json.loads(response.read())
    finally:
        connection.close()


def check_pictures(answer: dict[str, Any]) -> None:
    """What the clients of the contract's section 10 read without a guard."""
    assert isinstance(answer["parameters"], dict)
    assert isinstance(answer["info"], str)
    info = json.loads(answer["info"])
    assert len(answer["images"]) == len(info["infotexts"]) == len(info["all_seeds"])
    for image, text in zip(answer["images"], info["infotexts"], strict=True):
        assert "," not in image
        picture = opened(base64.b64decode(image, validate=True))
        assert picture.format == "PNG"
        assert picture.size == (info["width"], info["height"])
        assert picture.info["parameters"] == text
        assert text.split("\n")[-1].startswith("Steps: ")
        assert all(": " in part for part in text.split("\n")[-1].split(", "))
    assert info["seed"] >= 0


def check_answer(path: str, method: str, answer: Any) -> None:
    match method, path.partition("?")[0]:
        case "POST", "txt2img" | "img2img":
            check_pictures(answer)
        case "POST", "options":
            assert answer is None
        case "POST", "interrupt":
            assert answer == {}
        case _, "options":
            assert answer["sd_model_checkpoint"]
            assert answer["samples_format"] == "png"
            assert isinstance(answer["send_seed"], bool)
        case _, "sd-models":
            assert answer
            assert {"title", "model_name", "hash", "sha256", "filename", "config"} <= set(answer[0])
        case _, "samplers":
            assert [sampler["name"] for sampler in answer] == ["Euler"]
        case _, "progress":
            assert answer["progress"] == 0
            assert answer["state"]["job_count"] == 0
        case _:
            raise AssertionError(path)


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_a_recorded_client_gets_what_it_reads(gateway: Live, client: httpx.Client, file: Path) -> None:
    calls = json.loads(file.read_text())["calls"]
    options = client.get("options").json()
    assert options["sd_model_checkpoint"] in [row["title"] for row in client.get("sd-models").json()]
    for call in calls:
        status, content_type, answer = send(gateway, call, options)
        assert (status, content_type) == (200, "application/json"), (call["path"], answer)
        check_answer(call["path"], call["method"], answer)


def test_the_unmodified_webuiapi_client_draws(gateway: Live) -> None:
    webuiapi = pytest.importorskip("webuiapi", reason="webuiapi is not installed")
    api = webuiapi.WebUIApi(port=gateway.port)
    drawn = api.txt2img(prompt="a red circle", seed=7, width=64, height=64, batch_size=2)
    assert [image.size for image in drawn.images] == [(64, 64)] * 2
    assert drawn.info["all_seeds"] == [7, 8]
    again = api.img2img(images=[drawn.image], prompt="a red circle", width=64, height=64, denoising_strength=0.5)
    assert again.image.size == (64, 64)
    assert api.set_options({"sd_model_checkpoint": "flux2-tiny"}) is None
    assert api.get_options()["sd_model_checkpoint"] == "flux2-tiny"
    assert api.get_progress()["state"]["job_count"] == 0
    assert api.interrupt() == {}
    assert (api.has_controlnet, api.has_adetailer, api.has_animatediff) == (False, False, False)
    api.session.close()
