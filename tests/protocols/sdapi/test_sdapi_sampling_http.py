"""/sdapi/v1 with a Stable Diffusion checkpoint, over HTTP and with the fake engine."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gateway.images.infotext import parse
from tests.support.checkpoint_files import SD1, SDXL, VAE, write_header
from tests.support.live import Live, live
from tests.support.sdapi import INIT, opened

SMALL = {"prompt": "a red circle, easynegative", "width": 72, "height": 64, "steps": 3, "seed": 5}
DREAM = {"sd_model_checkpoint": "dreamshaper_8"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    root = tmp_path_factory.mktemp("webui")
    checkpoints = root / "models" / "Stable-diffusion"
    write_header(checkpoints / "dreamshaper_8.safetensors", SD1)
    write_header(checkpoints / "xl.safetensors", SDXL)
    (checkpoints / "old.ckpt").write_bytes(b"PK")
    write_header(root / "models" / "VAE" / "ft-mse.safetensors", VAE)
    write_header(root / "embeddings" / "easynegative.safetensors", {"emb_params": (3, 768)})
    with live(tmp_path_factory.mktemp("gateway"), arguments=("--a1111-dir", str(root)), fake_script={}) as running:
        yield running


@pytest.fixture
def client(gateway: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{gateway.url}/sdapi/v1/", timeout=60) as made:
        yield made


def native(client: httpx.Client, path: str) -> httpx.URL:
    """The address of a path outside /sdapi/v1."""
    return client.base_url.copy_with(raw_path=path.encode())


def drawn(client: httpx.Client, route: str = "txt2img", **body: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The answer of a request, and its `info`."""
    response = client.post(route, json={**SMALL, **DREAM, **body})
    assert response.status_code == 200, response.text
    return response.json(), json.loads(response.json()["info"])


def plan_of(client: httpx.Client, job_id: str) -> dict[str, Any]:
    """What the image's own text says of how it was drawn."""
    image = client.get(native(client, f"/api/v1/images/{job_id}-0")).content
    answer = client.post(native(client, "/api/v1/images/drawing"), json={"image": base64.b64encode(image).decode()})
    return dict(answer.json()["drawing"])


def test_an_image_is_sampled_as_asked_and_drawn_again_from_its_infotext(client: httpx.Client) -> None:
    settings = {"CLIP_stop_at_last_layers": 2, "sd_vae": "ft-mse.safetensors", "randn_source": "NV"}
    body = {"sampler_name": "DPM++ 2M SDE", "scheduler": "karras", "eta": 0.5, "override_settings": settings}
    answer, info = drawn(client, negative_prompt="blue", cfg_scale=6.5, **body)
    assert info["adjustments"] == []
    pairs = parse(info["infotexts"][0])
    assert (pairs["Sampler"], pairs["Schedule type"], pairs["Eta"]) == ("DPM++ 2M SDE", "Karras", "0.5")
    assert (pairs["Clip skip"], pairs["RNG"], pairs["VAE"]) == ("2", "NV", "ft-mse.safetensors")
    assert (info["sampler_name"], info["clip_skip"]) == ("DPM++ 2M SDE", 2)
    image = base64.b64decode(answer["images"][0])
    assert opened(image).size == (72, 64)
    told = client.post("png-info", json={"image": answer["images"][0]}).json()
    assert told["info"] == info["infotexts"][0]
    again = client.post("txt2img", json={"infotext": told["info"]}).json()
    repeated = json.loads(again["info"])
    assert repeated["infotexts"] == info["infotexts"]
    first, second = plan_of(client, info["job_id"]), plan_of(client, repeated["job_id"])
    assert first == second
    assert first["sampling"] == {
        "sampler": "DPM++ 2M SDE",
        "schedule": "Karras",
        "eta": 0.5,
        "random_source": "NV",
        "clip_skip": 2,
        "vae": "ft-mse.safetensors",
    }


def test_the_drawing_of_an_image_is_sent_again_natively(client: httpx.Client) -> None:
    _, info = drawn(client, sampler_name="Euler a")
    drawing = plan_of(client, info["job_id"])
    again = {name: drawing[name] for name in ("prompt", "model", "width", "height", "steps", "seed", "sampling")}
    body = {**again, "guidance": drawing["guidance"]}
    done = client.post(native(client, "/api/v1/generate"), json=body).json()
    while client.get(native(client, f"/api/v1/jobs/{done['job_id']}")).json()["status"] != "completed":
        time.sleep(0.05)
    assert plan_of(client, done["job_id"]) == drawing
    assert done["adjustments"] == []


def test_native_names_of_samplers_are_refused_where_there_is_no_such_one(client: httpx.Client) -> None:
    body = {"prompt": "x", "model": "dreamshaper_8", "width": 64, "height": 64, "steps": 2}
    refused = client.post(native(client, "/api/v1/generate"), json={**body, "sampling": {"sampler": "Heun++ 3"}})
    assert refused.status_code == 400
    assert "sampling.sampler" in refused.text
    for name in ({"sampler": "k_euler_a", "scheduler": "karras"}, {"sampling": {"clip_skip": 2}}):
        assert client.post(native(client, "/api/v1/generate"), json={**body, **name}).status_code == 200
    rows = {row["title"]: row["capabilities"] for row in client.get(native(client, "/api/v1/models")).json()["models"]}
    assert len(rows["dreamshaper_8"]["samplers"]) == 20
    assert rows["flux2-tiny"]["samplers"] == rows["flux2-tiny"]["schedules"] == []
    named = {**body, "sampler_name": "LMS Karras", "size": "64x64"}
    assert client.post(native(client, "/v1/images/generations"), json=named).status_code == 200


def test_img2img_and_inpainting_keep_sizes_of_8(client: httpx.Client) -> None:
    for fill in range(4):
        answer, info = drawn(
            client, "img2img", init_images=[INIT], mask=INIT, inpainting_fill=fill, inpaint_full_res=False
        )
        assert opened(base64.b64decode(answer["images"][0])).size == (72, 64)
    answer, info = drawn(client, "img2img", init_images=[INIT], denoising_strength=0.6, initial_noise_multiplier=0.9)
    assert parse(info["infotexts"][0])["Noise multiplier"] == "0.9"


def test_hires_fix_has_a_sampler_of_its_own(client: httpx.Client) -> None:
    answer, info = drawn(client, enable_hr=True, hr_upscaler="Nearest", hr_sampler_name="DDIM", hr_scale=1.5)
    assert opened(base64.b64decode(answer["images"][0])).size == (104, 96)
    pairs = parse(info["infotexts"][0])
    assert (pairs["Hires upscaler"], pairs["Hires sampler"]) == ("Nearest", "DDIM")
    assert [one["param"] for one in info["adjustments"]] == ["hr_scale"]


def test_a_refiner_with_other_latents_is_refused(client: httpx.Client) -> None:
    response = client.post("txt2img", json={**SMALL, **DREAM, "refiner_checkpoint": "xl", "refiner_switch_at": 0.8})
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["body", "refiner_checkpoint"]


def test_a_pickle_is_refused_where_it_is_named_and_ignored_where_an_infotext_names_it(client: httpx.Client) -> None:
    refused = client.post("txt2img", json={**SMALL, "sd_model_checkpoint": "old.ckpt"})
    assert refused.status_code >= 400
    assert "safetensors" in refused.text
    text = "x\nSteps: 2, Sampler: Euler, Seed: 3, Size: 64x64, Model: old"
    assert client.post("txt2img", json={"infotext": text, **DREAM}).status_code == 200


def test_lists_have_what_the_folders_hold_and_options_are_kept(client: httpx.Client) -> None:
    assert client.get("sd-vae").json() == [{"model_name": "ft-mse.safetensors", "filename": "ft-mse.safetensors"}]
    rows = {row["model_name"]: row for row in client.get("sd-models").json()}
    dream = rows["dreamshaper_8"]
    assert dream["title"].startswith("dreamshaper_8.safetensors")
    assert dream["filename"] == "dreamshaper_8.safetensors"
    assert client.post("options", json=DREAM | {"CLIP_stop_at_last_layers": 2, "emphasis": "loud"}).text == "null"
    options = client.get("options").json()
    assert options["sd_model_checkpoint"] in [row["title"] for row in client.get("sd-models").json()]
    assert (options["CLIP_stop_at_last_layers"], options["emphasis"]) == (2, "Original")
    assert list(client.get("embeddings").json()["loaded"]) == ["easynegative"]
    body = {name: value for name, value in SMALL.items() if name != "seed"}
    info = json.loads(client.post("txt2img", json=body).json()["info"])
    assert info["clip_skip"] == 2
    assert client.post("options", json=options).text == "null"
    client.post("options", json={"CLIP_stop_at_last_layers": 1})
