"""/sdapi/v1 as its clients use it: recorded calls over a real socket, and webuiapi itself, unmodified."""

from __future__ import annotations

import base64
import json
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.live import Live
from tests.support.sdapi import INIT, a_mask, fixtures, opened

MASK = base64.b64encode(a_mask((96, 64), (40, 20, 60, 40))).decode()
CLIENTS = {
    "activepieces",
    "agnai",
    "aiya",
    "autogpt",
    "blender_ai_render",
    "dify",
    "gimp",
    "gimp_stable_boy",
    "koboldai_lite",
    "librechat",
    "modelfusion",
    "open_webui",
    "photoshop",
    "risuai",
    "seed_document",
    "sillytavern",
    "stablestudio",
    "swarmui",
    "text_generation_webui",
    "webuiapi",
}
"""Whom docs/sdapi.md promises that it works unmodified."""
GOLDEN = sorted((Path(__file__).parents[2] / "golden" / "sdapi").glob("*.json"))


gateway, client = fixtures()


# ---- recorded clients ------------------------------------------------------------------------------


def send(gateway: Live, call: dict[str, Any], options: dict[str, Any], last: str) -> tuple[int, str, Any]:
    """Status, content type and JSON of one call. By http.client: httpx refuses to send `Basic ` with nothing behind."""
    body = options if call.get("json") == "$OPTIONS" else call.get("json")
    text = call.get("content", "" if body is None else json.dumps(body)).replace("$INIT", INIT)
    text = text.replace("$MASK", MASK).replace("$IMAGE", last)
    headers = dict(call.get("headers", {}))
    if body is not None:
        headers["content-type"] = "application/json"
    path = call["path"] if call["path"].startswith("/") else f"/sdapi/v1/{call['path']}"
    connection = HTTPConnection("127.0.0.1", gateway.port, timeout=100)
    try:
        connection.request(call["method"], path, text.encode() or None, headers)
        response = connection.getresponse()
        answer = response.read()
        return response.status, response.getheader("content-type", ""), json.loads(answer) if answer else None
    finally:
        connection.close()


def read(answer: Any, path: str) -> Any:
    """What a client finds at `path`: keys and places between dots; behind `>` in a text that holds JSON."""
    for at, part in enumerate(path.split(">")):
        answer = json.loads(answer) if at else answer
        for key in part.split("."):
            answer = answer[int(key) if isinstance(answer, list) else key]
    return answer


def check_pictures(answer: dict[str, Any], asked: dict[str, Any]) -> None:
    """What the clients of the contract's section 10 read without a guard."""
    assert isinstance(answer["parameters"], dict)
    assert isinstance(answer["info"], str)
    info = json.loads(answer["info"])
    assert len(answer["images"]) == len(info["infotexts"]) == len(info["all_seeds"])
    for image, text in zip(answer["images"], info["infotexts"], strict=True):
        assert "," not in image
        picture = opened(base64.b64decode(image, validate=True))
        assert picture.format == "PNG"
        if asked.get("mask") and asked.get("inpaint_full_res"):
            assert picture.size == (96, 64)
        elif asked.get("enable_hr"):
            assert picture.width > info["width"]
        else:
            assert picture.size == (info["width"], info["height"])
        assert picture.info["parameters"] == text
        assert text.split("\n")[-1].startswith("Steps: ")
        assert all(": " in part for part in text.split("\n")[-1].split(", "))
    assert info["seed"] >= 0


LISTS = (
    "upscalers",
    "latent-upscale-modes",
    "sd-vae",
    "schedulers",
    "prompt-styles",
    "face-restorers",
    "hypernetworks",
)


def check_answer(path: str, method: str, answer: Any, asked: Any) -> None:
    match method, path.partition("?")[0]:
        case "POST", "txt2img" | "img2img":
            check_pictures(answer, asked)
        case "POST", "options":
            assert answer is None
        case "POST", "skip":
            assert answer is None
        case "POST", "interrupt" | "unload-checkpoint" | "reload-checkpoint":
            assert answer == {}
        case "POST", "extra-single-image":
            assert opened(base64.b64decode(answer["image"], validate=True)).size == (192, 128)
        case "POST", "png-info":
            assert answer["info"].startswith("a red circle\n")
            assert answer["info"].split("\n")[-1].startswith("Steps: ")
        case _, "cmd-flags":
            assert isinstance(answer, dict)
        case _, "scripts":
            assert answer == {"txt2img": [], "img2img": ["sd upscale"]}
        case _, "embeddings":
            assert (answer["loaded"], answer["skipped"]) == ({}, {})
        case _, "loras":
            assert all(isinstance(row["alias"], str) for row in answer)
        case _, path if path in LISTS:
            assert all("name" in row for row in answer)
        case _, "/controlnet/version":
            assert answer == {"version": 2}
        case _, "/controlnet/model_list" | "/controlnet/module_list" as path:
            assert isinstance(answer[path.removeprefix("/controlnet/")], list)
        case _, "/config":
            assert {part["props"]["elem_id"] for part in answer["components"]} >= {"txt2img_hr_upscaler"}
        case _, "options":
            assert answer["sd_model_checkpoint"]
            assert answer["samples_format"] == "png"
            assert isinstance(answer["send_seed"], bool)
        case _, "sd-models":
            assert answer
            assert {"title", "model_name", "hash", "sha256", "filename", "config"} <= set(answer[0])
        case _, "samplers":
            assert {"Euler", "Euler a", "DPM++ 2M"} <= {sampler["name"] for sampler in answer}
        case _, "progress":
            assert answer["progress"] == 0
            assert answer["state"]["job_count"] == 0
        case _:
            raise AssertionError(path)


def test_every_client_of_the_contract_is_recorded() -> None:
    assert {file.stem for file in GOLDEN} == CLIENTS
    calls = [call for file in GOLDEN for call in json.loads(file.read_text())["calls"]]
    drawn = [call for call in calls if call["path"] in ("txt2img", "img2img")]
    assert all("images.0" in call["reads"] for call in drawn)


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_a_recorded_client_gets_the_fields_that_it_reads(gateway: Live, client: httpx.Client, file: Path) -> None:
    calls = json.loads(file.read_text())["calls"]
    options = client.get("options").json()
    assert options["sd_model_checkpoint"] in [row["title"] for row in client.get("sd-models").json()]
    last = ""
    for call in calls:
        status, content_type, answer = send(gateway, call, options, last)
        expected = (call.get("status", 200), call.get("content_type", "application/json"))
        assert (status, content_type) == expected, (call["path"], answer)
        assert answer == call.get("answer", answer)
        assert all(read(answer, path) is not None for path in call.get("reads", ())), call["path"]
        if status == 200 and answer is not None:
            check_answer(call["path"], call["method"], answer, call.get("json") or {})
        last = next(iter(answer["images"]), last) if isinstance(answer, dict) and "images" in answer else last


def test_the_unmodified_webuiapi_client_draws(gateway: Live) -> None:
    webuiapi = pytest.importorskip("webuiapi", reason="webuiapi is not installed")
    api = webuiapi.WebUIApi(port=gateway.port)
    drawn = api.txt2img(prompt="a red circle", seed=7, width=64, height=64, batch_size=2)
    assert [image.size for image in drawn.images] == [(64, 64)] * 2
    assert drawn.info["all_seeds"] == [7, 8]
    again = api.img2img(images=[drawn.image], prompt="a red circle", width=64, height=64, denoising_strength=0.5)
    assert again.image.size == (64, 64)
    masked = api.img2img(images=[drawn.image], mask_image=opened(base64.b64decode(MASK)), width=64, height=64)
    assert masked.image.size == (64, 64)
    larger = api.txt2img(prompt="a red circle", width=64, height=64, enable_hr=True, hr_scale=1.5)
    assert larger.image.size == (96, 96)
    assert api.extra_single_image(drawn.image, upscaler_1=webuiapi.Upscaler.Lanczos).image.size == (128, 128)
    assert api.extra_batch_images(drawn.images, upscaler_1="Nearest").images[1].size == (128, 128)
    assert api.png_info(larger.image).info.startswith("a red circle")
    assert api.util_get_model_names() == ["flux2-tiny"]
    for listed in (api.get_samplers, api.get_upscalers, api.get_face_restorers, api.get_realesrgan_models):
        assert isinstance(listed(), list)
    for listed in (api.get_hypernetworks, api.get_prompt_styles, api.get_loras, api.get_sd_vae, api.get_embeddings):
        assert isinstance(listed(), list | dict)
    assert api.get_memory()["cuda"] == {"error": "unavailable"}
    assert api.get_cmd_flags()["api"] is True
    assert api.refresh_checkpoints() is None
    assert api.skip() is None
    assert api.set_options({"sd_model_checkpoint": "flux2-tiny"}) is None
    assert api.get_options()["sd_model_checkpoint"] == "flux2-tiny"
    assert api.get_progress()["state"]["job_count"] == 0
    assert api.interrupt() == {}
    assert (api.has_controlnet, api.has_adetailer, api.has_animatediff) == (False, False, False)
    api.session.close()
