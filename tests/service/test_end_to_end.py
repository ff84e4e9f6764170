"""The real thing: three protocols, one gateway, the embedded model drawn by mflux on MLX in the engine process."""

from __future__ import annotations

import base64
import io
import statistics
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openai import OpenAI
from PIL import Image

from tests.support.live import Live, live

PROMPT = "a red circle on a blue background"
SEED = 7
Rgb = tuple[int, int, int]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("end_to_end"), backend="mlx") as gateway:
        yield gateway


def picture(base64_png: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(base64_png))).convert("RGB")


def by_openai(gateway: Live, **more: Any) -> Image.Image:
    client = OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0)
    said = {"prompt": PROMPT, "size": "128x128", "response_format": "b64_json", "extra_body": {"seed": SEED}, **more}
    with client:
        answer = client.images.generate(model="flux2-tiny", **said)
    assert answer.data is not None
    assert answer.data[0].b64_json is not None
    return picture(answer.data[0].b64_json)


def by_sdapi(gateway: Live, **more: Any) -> Image.Image:
    body = {"prompt": PROMPT, "width": 128, "height": 128, "steps": 4, "cfg_scale": 7, "seed": SEED, **more}
    answer = httpx.post(
        f"{gateway.url}/sdapi/v1/{'img2img' if 'init_images' in more else 'txt2img'}", json=body, timeout=60
    )
    assert answer.status_code == 200, answer.text
    return picture(answer.json()["images"][0])


def by_native(gateway: Live, **more: Any) -> Image.Image:
    body = {"prompt": PROMPT, "width": 128, "height": 128, "seed": SEED, **more}
    job = httpx.post(f"{gateway.url}/api/v1/generate", json=body, timeout=60).json()
    with httpx.stream("GET", f"{gateway.url}/api/v1/jobs/{job['job_id']}/stream", timeout=60) as stream:
        assert any(line == "event: complete" for line in stream.iter_lines())
    found = httpx.get(f"{gateway.url}/api/v1/jobs/{job['job_id']}").json()
    return picture(found["result"]["images"][0])


def mean(image: Image.Image, box: tuple[int, int, int, int]) -> Rgb:
    pixels = list(image.crop(box).get_flattened_data())
    return tuple(round(statistics.fmean(p[i] for p in pixels)) for i in range(3))  # type: ignore[return-value]


def reddest(image: Image.Image) -> Rgb:
    return max(image.get_flattened_data(), key=lambda p: p[0] - max(p[1], p[2]))  # type: ignore[return-value, index]


def test_a_red_circle_on_blue_is_red_on_blue_in_every_protocol_and_pixel_for_pixel_the_same(gateway: Live) -> None:
    drawn = [by(gateway) for by in (by_openai, by_sdapi, by_native)]
    assert len({image.tobytes() for image in drawn}) == 1
    red, green, blue = mean(drawn[0], (0, 0, 128, 6))
    assert blue > 130
    assert blue > red + 60
    assert blue > green + 40
    red, green, blue = reddest(drawn[0])
    assert red > 150
    assert red > green + 80


def test_the_same_plan_draws_the_same_pixels_after_a_restart(gateway: Live) -> None:
    before = by_native(gateway)
    assert gateway.stop() == 0
    gateway.start()
    assert by_openai(gateway).tobytes() == before.tobytes()


def test_another_seed_draws_another_picture(gateway: Live) -> None:
    assert by_native(gateway, seed=8).tobytes() != by_native(gateway).tobytes()


def test_a_size_other_than_the_models_own_is_drawn_natively_and_resampled(gateway: Live) -> None:
    assert by_openai(gateway, size="384x256").size == (384, 256)


def test_several_pictures_of_one_job_equal_the_single_ones(gateway: Live) -> None:
    body = {"prompt": PROMPT, "width": 128, "height": 128, "steps": 4, "seed": SEED - 1, "batch_size": 2}
    answer = httpx.post(f"{gateway.url}/sdapi/v1/txt2img", json=body, timeout=60).json()
    assert picture(answer["images"][1]).tobytes() == by_native(gateway).tobytes()


def test_denoise_sets_how_much_of_the_init_image_remains(gateway: Live) -> None:
    buffer = io.BytesIO()
    start = by_native(gateway, prompt="a green square on a white background")
    start.save(buffer, "PNG")
    init = base64.b64encode(buffer.getvalue()).decode()

    def distance(strength: float) -> float:
        drawn = by_sdapi(gateway, init_images=[init], denoising_strength=strength)
        pairs = zip(start.tobytes(), drawn.tobytes(), strict=True)
        return statistics.fmean(abs(a - b) for a, b in pairs)

    kept, little, redrawn = (distance(strength) for strength in (0.0, 0.3, 1.0))
    assert kept < 2
    assert kept < little < redrawn


def test_a_stream_has_previews_of_the_image(gateway: Live) -> None:
    client = OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0)
    with client:
        stream = client.images.generate(
            model="flux2-tiny", prompt=PROMPT, size="128x128", stream=True, partial_images=2
        )
        events = list(stream)
    kinds = [event.type.removeprefix("image_generation.") for event in events]
    assert kinds in (["partial_image"] * n + ["completed"] for n in (1, 2))
    assert all(picture(event.b64_json).size == (128, 128) for event in events)


def test_a_cancelled_picture_leaves_the_model_loaded_and_the_engine_alive(gateway: Live) -> None:
    by_native(gateway)
    body = {"prompt": PROMPT, "width": 128, "height": 128, "num_images": 10}
    job = httpx.post(f"{gateway.url}/api/v1/generate", json=body, timeout=60).json()
    url = f"{gateway.url}/api/v1/jobs/{job['job_id']}"
    while not httpx.get(url).json().get("progress"):
        time.sleep(0.02)
    assert httpx.delete(url, timeout=30).json()["status"] == "cancelled"
    after = httpx.post(f"{gateway.url}/api/v1/generate", json={**body, "num_images": 1}, timeout=60).json()
    with httpx.stream("GET", f"{gateway.url}/api/v1/jobs/{after['job_id']}/stream", timeout=60) as stream:
        text = "\n".join(stream.iter_lines())
    assert "event: complete" in text
    assert '"phase": "loading"' not in text
