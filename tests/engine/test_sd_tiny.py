"""The shipped toy Stable Diffusion: its files have the layout, names and sizes of the family."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

import engine.embedded
from tests.support.live import Live, live

FOLDER = Path(engine.embedded.__file__).parent / "sd-tiny"
MOST_BYTES = 12_000_000


def _config(part: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / part / "config.json").read_text(encoding="utf-8"))
    return content


def _shapes(part: str) -> dict[str, list[int]]:
    """Shapes of the tensors in a part's file, by name; all are float16."""
    (file,) = (FOLDER / part).glob("*.safetensors")
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    tensors = {name: about for name, about in header.items() if name != "__metadata__"}
    assert {about["dtype"] for about in tensors.values()} == {"F16"}
    sizes = sum(2 * prod(about["shape"]) for about in tensors.values())
    assert file.stat().st_size < sizes + 100_000
    return {name: about["shape"] for name, about in tensors.items()}


def test_toy_stable_diffusion_is_small() -> None:
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) <= MOST_BYTES


def test_toy_stable_diffusion_is_a_diffusers_folder_of_version_1() -> None:
    index = json.loads((FOLDER / "model_index.json").read_text(encoding="utf-8"))
    scheduler = json.loads((FOLDER / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    assert index["_class_name"] == "StableDiffusionPipeline"
    assert (scheduler["beta_start"], scheduler["beta_end"]) == (0.00085, 0.012)
    assert (scheduler["beta_schedule"], scheduler["prediction_type"]) == ("scaled_linear", "epsilon")
    assert _config("vae")["scaling_factor"] == 0.18215


def test_toy_stable_diffusion_has_clips_whole_vocabulary() -> None:
    shapes, width = _shapes("text_encoder"), _config("text_encoder")["hidden_size"]
    assert shapes["text_model.embeddings.token_embedding.weight"] == [49408, width]
    assert shapes["text_model.embeddings.position_embedding.weight"] == [77, width]
    assert _config("unet")["cross_attention_dim"] == width


@pytest.mark.parametrize(
    ("part", "name", "key", "place"),
    [
        ("unet", "conv_in.weight", "block_out_channels", 0),
        ("unet", "mid_block.resnets.0.conv1.weight", "block_out_channels", -1),
        ("vae", "encoder.conv_in.weight", "block_out_channels", 0),
        ("vae", "decoder.conv_in.weight", "block_out_channels", -1),
    ],
)
def test_toy_stable_diffusion_tensors_have_the_configured_sizes(part: str, name: str, key: str, place: int) -> None:
    assert _shapes(part)[name][0] == _config(part)[key][place]


# ---- drawn by the engine -----------------------------------------------------------------------------

WHITE = (255, 255, 255)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("gateway"), backend="mlx", arguments=("--model", str(FOLDER))) as running:
        yield running


def drawn(gateway: Live, path: str = "txt2img", **body: Any) -> Image.Image:
    fields = {"seed": 3, "steps": 15, "sampler_name": "DPM++ 2M", "scheduler": "Karras", "width": 128, "height": 128}
    answer = httpx.post(f"{gateway.url}/sdapi/v1/{path}", json={**fields, **body}, timeout=120).raise_for_status()
    return Image.open(io.BytesIO(base64.b64decode(answer.json()["images"][0]))).convert("RGB")


def objects(image: Image.Image, background: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    """Pixels that differ much from a background."""
    pixels: list[tuple[int, int, int]] = list(image.get_flattened_data())
    return [pixel for pixel in pixels if max(abs(a - b) for a, b in zip(pixel, background, strict=True)) > 90]


def mean(pixels: list[tuple[int, int, int]]) -> list[float]:
    return [sum(pixel[colour] for pixel in pixels) / len(pixels) for colour in range(3)]


@pytest.mark.parametrize("sampler", ["Euler", "Euler a", "DPM++ 2M", "DDIM", "UniPC"])
def test_toy_stable_diffusion_draws_the_colours_of_its_prompt(gateway: Live, sampler: str) -> None:
    image = drawn(gateway, prompt="a red circle on a white background", sampler_name=sampler, scheduler="Automatic")
    found = objects(image, WHITE)
    assert 300 < len(found) < 6000
    red, green, blue = mean(found)
    assert red > green + 60
    assert red > blue + 60


def test_negative_prompt_takes_a_colour_away(gateway: Live) -> None:
    prompt = "a red circle on a white background"
    with_red, without = (drawn(gateway, prompt=prompt, negative_prompt=negative) for negative in ("", "red"))
    reds = [mean(objects(image, WHITE)) for image in (with_red, without)]
    assert reds[0][0] - reds[0][1] > reds[1][0] - reds[1][1] + 60


def test_inpainting_draws_into_the_masked_part_only(gateway: Live) -> None:
    plain = Image.new("RGB", (128, 128), WHITE)
    mask = Image.new("L", plain.size)
    mask.paste(255, (32, 32, 96, 96))
    images = {"init_images": [encoded(plain)], "mask": encoded(mask), "mask_blur": 0, "denoising_strength": 1.0}
    image = drawn(gateway, "img2img", prompt="a blue square on a white background", inpainting_fill=2, **images)
    outside = image.copy()
    outside.paste(WHITE, (32, 32, 96, 96))
    assert objects(outside, WHITE) == []
    red, _, blue = mean(objects(image, WHITE))
    assert blue > red + 60


def encoded(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
