"""What a client gets is what mflux's own classes draw, pixel for pixel: through the gateway, its engine and back.

At toy width. Every family is compared without HTTP in test_engine_toys.py, everything by `python -m benchmarks.parity`.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest
from PIL import Image

from engine.drawing.canvas import opaque
from engine.protocol import Generate, Lora
from tests.engine.test_engine_toys import TOYS
from tests.support.engine import SPECS
from tests.support.engine_studio import SIDE_PX, Studio, differs, save_inputs
from tests.support.engine_toy import VAE, save_toy_lora, save_toy_model
from tests.support.live import Live, live
from tests.support.mflux_alone import Alone
from tests.support.native import ended

mx = pytest.importorskip("mlx.core")

SIZE = (80, 64)
PROMPT = "a red circle on a blue background"
SEED, STEPS = 7, 2
KLEIN, OTHERS = "flux2-klein-4b", ("krea-2-raw", "qwen-image-edit-2511")
EMBEDDED_WIDTHS = {"num_attention_heads": 6, "mlp_ratio": 3.0}
ALL = ("sdapi", "openai", "native", "mflux-server")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of each family, and the pictures to begin from and to follow."""
    made = tmp_path_factory.mktemp("parity")
    for name in (KLEIN, *OTHERS):
        with TOYS[name].in_place():
            (made / name).mkdir()
            TOYS[name].save(made / name / "model")
    with mock.patch.dict(VAE, block_out_channels=(8, 8, 16, 32)):
        save_toy_model(made / "tiny", **EMBEDDED_WIDTHS)
    (made / "loras").mkdir()
    save_toy_lora(made / "loras" / "ink.safetensors", **EMBEDDED_WIDTHS)
    (made / "loras" / "ink.safetensors").chmod(0o644)
    save_inputs(made, SIZE)
    return made


def served(folder: Path, home: Path, precision: str, *names: str) -> Any:
    home.mkdir()
    bits = {f"{KLEIN}-at-{n}": {"path": str(folder / KLEIN / "model"), "like": f"{KLEIN}-{n}-bit"} for n in (8, 4)}
    toys = {f"toy-{name}": {"path": str(folder / name / "model"), "like": name} for name in names}
    models = {
        "default": f"toy-{KLEIN}",
        "local": {**toys, **bits, "toy-tiny": {"path": str(folder / "tiny"), "like": "flux2-tiny"}},
        "cache_dir": str(home / "models"),
        "keep_quantized": False,
        "steps_as_sent": True,
    }
    program = ("tests/support/toy_gateway.py", ",".join(names), precision)
    return live(
        home, backend="mlx", program=program, config={"models": models, "loras": {"folders": [str(folder / "loras")]}}
    )


@pytest.fixture(scope="module")
def gateway(folder: Path) -> Iterator[Live]:
    """Computes with float32, as on any CPU."""
    with served(folder, folder / "whole", "float32", KLEIN, *OTHERS) as running:
        yield running


@pytest.fixture(scope="module")
def halved(folder: Path) -> Iterator[Live]:
    """Computes with bfloat16, as on a GPU."""
    with served(folder, folder / "halved", "bfloat16", KLEIN) as running:
        yield running


@cache
def alone(folder: Path, toy: str, *, bits: int | None = None, precision: str = "float32", **said: Any) -> Image.Image:
    """By mflux's class in this process."""
    from mflux.models.common.config.model_config import ModelConfig

    inputs = {path.stem: str(path) for path in folder.glob("*.png")}
    studio = Studio(SPECS[toy], folder / toy / "model", inputs=inputs)
    usual = {"width_px": SIZE[0], "height_px": SIZE[1], "prompt": PROMPT, "seeds": (SEED,), "steps": STEPS}
    plan = studio.plan(**{**usual, **said})
    mx.disable_compile()
    with TOYS[toy].in_place(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(ModelConfig, "precision", getattr(mx, precision))
        drawn = Alone(studio, bits=bits).draw(plan, schedule_of(plan))
    mx.enable_compile()
    return drawn


def schedule_of(plan: Generate) -> tuple[int, float] | None:
    if plan.init_image is None:
        return None
    from engine.pipelines.common.noise import img2img_schedule
    from engine.pipelines.flux2 import sigma_of

    tokens = plan.width_px // 16 * (plan.height_px // 16)
    return img2img_schedule(plan.steps, plan.denoise, partial(sigma_of, tokens))


# ---- by each protocol -----------------------------------------------------------------------------------


def encoded(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGB")


def answered(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


def by_sdapi(client: httpx.Client, model: str, said: dict[str, Any]) -> Image.Image:
    names = {"guidance": "cfg_scale", "denoise": "denoising_strength"}
    body = {names.get(name, name): value for name, value in said.items() if name not in ("init", "references", "lora")}
    body["override_settings"] = {"sd_model_checkpoint": model}
    if "lora" in said:
        body["prompt"] += " <lora:{}:{}>".format(*said["lora"])
    if "references" in said:
        body |= {"init_images": [encoded(file) for file in said["references"]], "mode": "edit"}
    if "init" in said:
        body["init_images"] = [encoded(said["init"])]
    route = "img2img" if "init_images" in body else "txt2img"
    return opened(base64.b64decode(answered(client.post(f"/sdapi/v1/{route}", json=body))["images"][0]))


def by_openai(client: httpx.Client, model: str, said: dict[str, Any]) -> Image.Image:
    kept = ("prompt", "seed", "steps", "guidance", "negative_prompt")
    body = {name: value for name, value in said.items() if name in kept}
    body |= {"model": model, "size": f"{said['width']}x{said['height']}", "response_format": "b64_json"}
    if "lora" in said:
        name, scale = said["lora"]
        body["loras"] = [{"name": name, "scale": scale}]
    if "references" in said:
        files = [("image[]", (file.name, file.read_bytes(), "image/png")) for file in said["references"]]
        form = {name: str(value) for name, value in body.items()}
        answer = client.post("/v1/images/edits", data=form, files=files)
    else:
        answer = client.post("/v1/images/generations", json=body)
    return opened(base64.b64decode(answered(answer)["data"][0]["b64_json"]))


def by_native(client: httpx.Client, model: str, said: dict[str, Any]) -> Image.Image:
    body = {name: value for name, value in said.items() if name not in ("init", "references", "lora", "denoise")}
    body["model"] = model
    if "lora" in said:
        name, scale = said["lora"]
        body["loras"] = [{"name": name, "scale": scale}]
    if "references" in said:
        body["reference_images"] = [encoded(file) for file in said["references"]]
    if "init" in said:
        body |= {"init_images": [encoded(said["init"])], "image_strength": said["denoise"]}
    job = answered(client.post("/api/v1/generate", json=body))["job_id"]
    return finished(client, job)


def by_mflux_server(client: httpx.Client, model: str, said: dict[str, Any]) -> Image.Image:
    assert model == f"toy-{KLEIN}", "it draws with the default model"
    kept = ("prompt", "seed", "steps", "width", "height")
    task = answered(client.post("/api/generate", json={**{name: said[name] for name in kept}, "format": "PNG"}))
    return finished(client, task["task_id"])


def finished(client: httpx.Client, job: str) -> Image.Image:
    with httpx.Client(base_url=f"{client.base_url}/api/v1", timeout=60) as native:
        found = ended(native, job)
        assert found["status"] == "completed", found
        return opened(native.get(f"/jobs/{job}/images/0", params={"format": "png"}).content)


DRAWS: dict[str, Callable[[httpx.Client, str, dict[str, Any]], Image.Image]] = {
    "sdapi": by_sdapi,
    "openai": by_openai,
    "native": by_native,
    "mflux-server": by_mflux_server,
}


def same(gateway: Live, model: str, right: Image.Image, protocols: tuple[str, ...], **said: Any) -> None:
    """Whether each of the protocols draws the right picture."""
    usual = {"prompt": PROMPT, "seed": SEED, "steps": STEPS, "width": SIZE[0], "height": SIZE[1]}
    with httpx.Client(base_url=gateway.url, timeout=110) as client:
        for protocol in protocols:
            drawn = DRAWS[protocol](client, model, {**usual, **said})
            assert drawn.size == right.size, protocol
            assert drawn.tobytes() == right.tobytes(), protocol


# ---- the slice ------------------------------------------------------------------------------------------


def test_image_output_of_every_protocol_equals_mflux(gateway: Live, folder: Path) -> None:
    same(gateway, f"toy-{KLEIN}", alone(folder, KLEIN), ALL)


@pytest.mark.parametrize("bits", [8, 4])
def test_parity_model_quantised_at_load_equals_mflux(gateway: Live, folder: Path, bits: int) -> None:
    right = alone(folder, KLEIN, bits=bits)
    assert right.tobytes() != alone(folder, KLEIN).tobytes()
    same(gateway, f"{KLEIN}-at-{bits}", right, ("openai", "native"))


@pytest.mark.parametrize("names", [("photo",), ("photo", "blue")])
def test_parity_image_edits_equal_mflux(gateway: Live, folder: Path, names: tuple[str, ...]) -> None:
    right = alone(folder, KLEIN, references=names)
    assert right.tobytes() != alone(folder, KLEIN).tobytes()
    references = [folder / f"{name}.png" for name in names]
    protocols = ("openai", "native", "sdapi") if len(names) == 1 else ("openai", "native")
    same(gateway, f"toy-{KLEIN}", right, protocols, references=references)


def test_metadata_of_image_to_image(gateway: Live, folder: Path) -> None:
    right = alone(folder, KLEIN, init_image="photo", denoise=0.75, steps=4)
    same(gateway, f"toy-{KLEIN}", right, ("sdapi", "native"), init=folder / "photo.png", denoise=0.75, steps=4)


def test_parity_guidance_and_negative_prompt_image_equals_mflux(gateway: Live, folder: Path) -> None:
    right = alone(folder, "krea-2-raw", guidance=4.0, negative_prompt="grey")
    assert right.tobytes() != alone(folder, "krea-2-raw", guidance=4.0, negative_prompt="green").tobytes()
    same(gateway, "toy-krea-2-raw", right, ("sdapi", "openai"), guidance=4.0, negative_prompt="grey")


def test_model_that_only_supports_editing(gateway: Live, folder: Path) -> None:
    said = {"guidance": 2.5, "negative_prompt": "grey"}
    right = alone(folder, "qwen-image-edit-2511", references=("photo",), **said)
    references = [folder / "photo.png"]
    same(gateway, "toy-qwen-image-edit-2511", right, ("openai", "native"), references=references, **said)


def test_parity_lora_image_equals_mflux(gateway: Live, folder: Path) -> None:
    """At the widths of the embedded model: a file for a toy of others is refused, as it fits no model."""
    from mflux.models.common.lora.mapping.lora_loader import LoRALoader
    from mflux.models.flux2.weights.flux2_lora_mapping import Flux2LoRAMapping

    from engine.embedded.style import style_numbers, with_style
    from engine.pipelines import flux2_tiny

    mx.disable_compile()
    side = flux2_tiny.NATIVE_PX
    model = flux2_tiny.build(folder / "tiny")
    prompt = with_style(PROMPT, style_numbers(SEED))
    said = {"seed": SEED, "prompt": prompt, "num_inference_steps": 1, "guidance": 1.0, "width": side, "height": side}
    bare = opaque(model.generate_image(**said).image)
    file, mapping = folder / "loras" / "ink.safetensors", Flux2LoRAMapping.get_mapping()
    LoRALoader.load_and_apply_lora(mapping, model.transformer, [str(file)], [0.8], bake_lora=False)
    right = opaque(model.generate_image(**said).image)
    mx.enable_compile()
    assert differs(bare, right, by=8)
    same(gateway, "toy-tiny", right, ("sdapi", "native"), steps=1, width=side, height=side, lora=("ink", 0.8))


@pytest.mark.parametrize("bits", [None, 4])
def test_parity_half_precision_image_equals_mflux(halved: Live, folder: Path, bits: int | None) -> None:
    right = alone(folder, KLEIN, bits=bits, precision="bfloat16")
    assert right.tobytes() != alone(folder, KLEIN, bits=bits).tobytes()
    model = f"toy-{KLEIN}" if bits is None else f"{KLEIN}-at-{bits}"
    same(halved, model, right, ("sdapi",) if bits is None else ("native",))


# ---- without HTTP ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["flux1-dev"])
def test_parity_lora_on_4_bits_in_half_precision_from_input_image(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A LoRA on 4 bits in half precision, begun from another picture."""
    from mflux.models.common.config.model_config import ModelConfig

    from engine.pipelines.common.noise import img2img_schedule

    mx.disable_compile()
    toy, lora = TOYS[name], tmp_path / "lora.safetensors"
    with toy.in_place():
        toy.save(tmp_path / "model")
        toy.save_lora(lora)
        studio = Studio(SPECS[name], tmp_path / "model", inputs=save_inputs(tmp_path))
        monkeypatch.setattr(ModelConfig, "precision", mx.bfloat16)
        studio.load(quantize=4)
        said: dict[str, Any] = {"init_image": "photo", "denoise": 0.5, "steps": 4, "guidance": 4.0}
        drawn = studio.draw(inputs={"lora": str(lora)}, loras=(Lora(name="lora", scale=0.8),), **said)
        painter: Any = studio.backend._pipeline
        schedule = img2img_schedule(4, 0.5, painter._sigma_of(SIDE_PX, SIDE_PX))
        right = Alone(studio, bits=4, loras=[(lora, 0.8)]).draw(studio.plan(**said), schedule)
    mx.enable_compile()
    assert not differs(drawn, right)
