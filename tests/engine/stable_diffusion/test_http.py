"""Toy checkpoints through a real gateway and the real engine, as A1111's clients and others ask for them."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

from tests.support.engine_studio import differs
from tests.support.live import Live, live
from tests.support.stable_diffusion import toy_checkpoint, toy_vae
from tests.support.stable_diffusion_tensors import toy_tensors

SIDE_PX = 64
KEPT, REPAINTED = (0, 0, SIDE_PX // 2, SIDE_PX), (SIDE_PX // 2, 0, SIDE_PX, SIDE_PX)
BODY: dict[str, Any] = {
    "prompt": "a (red:1.2) circle",
    "negative_prompt": "blue",
    "width": SIDE_PX,
    "height": SIDE_PX,
    "steps": 3,
    "seed": 5,
    "sampler_name": "Euler a",
    "scheduler": "Karras",
    "override_settings": {"sd_model_checkpoint": "toy"},
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("webui")
    toy_checkpoint(folder / "models" / "Stable-diffusion", "sd1", name="toy")
    toy_vae(folder / "models" / "VAE", name="other")
    random = np.random.default_rng(0)
    path = "mid_block.attentions.0.transformer_blocks.0.attn1.to_v"
    width = next(tensor.shape[1] for tensor in toy_tensors("sd1") if tensor.name == f"{path}.weight")
    layer = f"lora_unet_{path.replace('.', '_')}"
    tensors = {
        f"{layer}.lora_down.weight": mx.array(random.standard_normal((4, width)).astype(np.float32)),
        f"{layer}.lora_up.weight": mx.array(random.standard_normal((width, 4)).astype(np.float32)),
    }
    (folder / "models" / "Lora").mkdir()
    mx.save_safetensors(str(folder / "models" / "Lora" / "night.safetensors"), tensors)
    (folder / "embeddings").mkdir()
    with live(tmp_path_factory.mktemp("gateway"), backend="mlx", arguments=("--a1111-dir", str(folder))) as running:
        yield running


@pytest.fixture
def client(gateway: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, timeout=120) as client:
        yield client


def drawn(client: httpx.Client, path: str = "txt2img", **more: Any) -> tuple[Image.Image, str]:
    """The image of an answer, and its infotext."""
    answer = client.post(f"/sdapi/v1/{path}", json={**BODY, **more})
    assert answer.status_code == 200, answer.text
    answer = answer.json()
    image = Image.open(io.BytesIO(base64.b64decode(answer["images"][0])))
    return image, image.info["parameters"]


def encoded(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def ended(client: httpx.Client, job: str, *before: str) -> str:
    """The status of a job once it is none of those."""
    end = time.monotonic() + 60
    while (status := str(client.get(f"/api/v1/jobs/{job}").json()["status"])) in before and time.monotonic() < end:
        time.sleep(0.05)
    return status


def test_infotext_of_an_image_draws_that_image_again(client: httpx.Client) -> None:
    first, infotext = drawn(client)
    for part in ("Sampler: Euler a", "Schedule type: Karras", "Model: toy", "RNG: CPU", "Negative prompt: blue"):
        assert part in infotext
    answer = client.post("/sdapi/v1/txt2img", json={"infotext": infotext}).raise_for_status().json()
    again = Image.open(io.BytesIO(base64.b64decode(answer["images"][0])))
    assert not differs(first, again)
    assert again.info["parameters"] == infotext


def test_lora_is_on_and_off_by_the_prompt(client: httpx.Client) -> None:
    plain, _ = drawn(client)
    with_lora, infotext = drawn(client, prompt="a (red:1.2) circle <lora:night:1>")
    assert differs(plain, with_lora)
    assert "Lora hashes" in infotext
    assert not differs(plain, drawn(client)[0])


def test_input_image_mask_and_vae_are_used(client: httpx.Client) -> None:
    photo = Image.radial_gradient("L").resize((SIDE_PX, SIDE_PX)).convert("RGB")
    mask = Image.new("L", photo.size)
    mask.paste(255, (SIDE_PX // 2, 0, SIDE_PX, SIDE_PX))
    masked, _ = drawn(
        client, "img2img", init_images=[encoded(photo)], mask=encoded(mask), mask_blur=0, denoising_strength=0.8
    )
    assert not differs(masked.convert("RGB").crop(KEPT), photo.crop(KEPT))
    assert differs(masked.convert("RGB").crop(REPAINTED), photo.crop(REPAINTED))
    settings = {"sd_model_checkpoint": "toy", "sd_vae": "other.safetensors"}
    other, infotext = drawn(client, override_settings=settings)
    assert "VAE: other.safetensors" in infotext
    assert differs(other, drawn(client)[0])


def test_second_pass_enlarges_latents(client: httpx.Client) -> None:
    image, infotext = drawn(
        client, enable_hr=True, hr_scale=1.5, hr_upscaler="Latent", hr_second_pass_steps=2, denoising_strength=0.7
    )
    assert image.size == (96, 96)
    assert "Hires upscaler: Latent" in infotext


def test_other_protocols_draw_with_the_checkpoint(client: httpx.Client) -> None:
    size = f"{SIDE_PX}x{SIDE_PX}"
    openai = {"model": "toy", "prompt": "a red circle", "size": size, "response_format": "b64_json"}
    answer = client.post("/v1/images/generations", json=openai).raise_for_status().json()
    assert Image.open(io.BytesIO(base64.b64decode(answer["data"][0]["b64_json"]))).size == (SIDE_PX, SIDE_PX)
    native = {"model": "toy", "prompt": "a red circle", "width": SIDE_PX, "height": SIDE_PX, "steps": 2}
    job = client.post("/api/v1/generate", json={**native, "sampling": {"sampler": "DDIM"}}).raise_for_status().json()
    assert ended(client, job["job_id"], "queued", "generating") == "completed"


def test_cancel_stops_a_running_image(client: httpx.Client) -> None:
    body = {"model": "toy", "prompt": "a red circle", "width": SIDE_PX, "height": SIDE_PX, "steps": 100}
    job = client.post("/api/v1/generate", json=body).raise_for_status().json()["job_id"]
    assert ended(client, job, "queued") == "generating"
    client.delete(f"/api/v1/jobs/{job}").raise_for_status()
    assert drawn(client)[0].size == (SIDE_PX, SIDE_PX)
    assert client.get(f"/api/v1/jobs/{job}").json()["status"] == "cancelled"


def test_unknown_sampler_becomes_the_default_one_and_is_told(client: httpx.Client) -> None:
    answer = client.post("/sdapi/v1/txt2img", json={**BODY, "sampler_name": "Magic"}).raise_for_status().json()
    (told,) = json.loads(answer["info"])["adjustments"]
    assert (told["asked"], told["used"]) == ("Magic", "DPM++ 2M")
