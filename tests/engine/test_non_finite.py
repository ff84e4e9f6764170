"""A picture of NaN is a failure: told in every protocol with what may be behind it, whatever part spoilt it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from engine.drawing.base import BackendError, Model
from engine.protocol import Lora, Upscale
from tests.models.test_loras_http import PROTOCOLS, asked_by
from tests.support.engine import SPECS
from tests.support.engine_studio import Studio, Watching
from tests.support.engine_toy import save_toy_lora, save_toy_model
from tests.support.live import Live, live

mx = pytest.importorskip("mlx.core")

LATENTS = "A tensor with all NaNs was produced in Unet: the picture's latents are not finite"
PIXELS = "A tensor with all NaNs was produced in VAE: the picture's pixels are not finite"
LAYER = "transformer.single_transformer_blocks.0.attn.to_out"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy") / "model"
    save_toy_model(folder)
    return folder


@pytest.fixture
def studio(model: Path, monkeypatch: pytest.MonkeyPatch) -> Studio:
    from engine import pipelines as families
    from engine.pipelines.flux2 import load_tiny

    monkeypatch.setattr(families, "load", load_tiny)
    mx.disable_compile()
    return Studio(SPECS["flux2-klein-4b"], model, inputs={})


def spoilt(studio: Studio, inputs: dict[str, str] | None = None, **said: Any) -> str:
    with pytest.raises(BackendError) as failed:
        studio.draw(None, inputs, **said)
    assert failed.value.code == "non_finite_picture"
    return failed.value.message


def poison(part: Any, value: float) -> Any:
    """All its numbers, quantised ones by their scales; what they were."""
    from mlx.utils import tree_map

    def spoil(array: Any) -> Any:
        return mx.full(array.shape, value, array.dtype) if mx.issubdtype(array.dtype, mx.floating) else array

    kept = part.parameters()
    part.update(tree_map(spoil, kept))
    return kept


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_lora_with_nan_weights_is_named_and_next_image_is_correct(studio: Studio, value: float, tmp_path: Path) -> None:
    studio.load()
    bare = studio.draw()
    save_toy_lora(tmp_path / "x.safetensors")
    arrays = dict(mx.load(str(tmp_path / "x.safetensors")))
    mx.save_safetensors(str(tmp_path / "x.safetensors"), {k: mx.full(v.shape, value) for k, v in arrays.items()})
    files = {"style/x": str(tmp_path / "x.safetensors")}
    told = spoilt(studio, files, loras=(Lora(name="style/x", scale=0.5),))
    assert told == f"{LATENTS}; LoRA 'style/x' at scale 0.5 may be the cause."
    assert studio.draw().tobytes() == bare.tobytes()


@pytest.mark.parametrize(("part", "sentence"), [("transformer", LATENTS), ("vae", PIXELS)])
def test_model_part_producing_non_finite_values_is_named_with_its_bits(
    studio: Studio, part: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio.load()
    owner = getattr(studio.backend._pipeline._pipeline, part)  # type: ignore[union-attr]
    kept = poison(owner.norm_out if part == "transformer" else owner.decoder, float("nan"))
    assert spoilt(studio) == f"{sentence}; the model's weights may be damaged."
    loaded = studio.backend._loaded
    assert loaded is not None
    monkeypatch.setattr(studio.backend, "_loaded", Model(loaded.spec, loaded.path, 4))
    assert spoilt(studio) == f"{sentence}; the quantisation to 4 bits may be the cause."
    (owner.norm_out if part == "transformer" else owner.decoder).update(kept)
    studio.draw()


@pytest.mark.parametrize("part", ["transformer", "vae"])
def test_image_skipped_is_also_checked_for_non_finite_values(studio: Studio, part: str) -> None:
    studio.load()
    owner = getattr(studio.backend._pipeline._pipeline, part)  # type: ignore[union-attr]
    poison(owner.norm_out if part == "transformer" else owner.decoder, float("nan"))
    with pytest.raises(BackendError) as failed:
        studio.draw(Watching(skip_at=1), steps=3)
    assert failed.value.code == "non_finite_picture"
    studio.backend._loaded = None


@pytest.mark.parametrize(("part", "sentence"), [("transformer", LATENTS), ("vae", PIXELS)])
def test_upscaler_model_is_checked_for_non_finite_values(part: str, sentence: str, tmp_path: Path) -> None:
    from engine.backends.mlx import MlxBackend
    from tests.support.engine_toy_seedvr2 import save_toy_seedvr2, toy_sized

    photo = tmp_path / "photo.png"
    Image.radial_gradient("L").resize((20, 16)).convert("RGB").save(photo)
    with toy_sized():
        save_toy_seedvr2(tmp_path / "model")
        backend = MlxBackend()
        backend.load(Model(SPECS["seedvr2-3b"], str(tmp_path / "model"), 8))
        owner = getattr(backend._upscaler._pipeline, part)  # type: ignore[union-attr]
        poison(owner if part == "transformer" else owner.decoder, float("nan"))
        plan = Upscale(model="seedvr2-3b", image="x", width_px=30, height_px=24, short_px=24, seed=7)
        with pytest.raises(BackendError) as failed:
            backend.upscale(plan, str(photo), Quiet())
    assert failed.value.code == "non_finite_picture"
    assert failed.value.message == f"{sentence}; the quantisation to 8 bits may be the cause."


class Quiet(Watching):
    def check(self) -> None:
        pass


# ---- over HTTP ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The real engine with the embedded model; LoRAs of NaN, and of whole numbers, whose header looks right."""
    folder = tmp_path_factory.mktemp("spoilt")
    loras = folder / "models" / "loras"
    loras.mkdir(parents=True)
    arrays = {f"{LAYER}.lora_A.weight": mx.full((4, 768), float("nan")), f"{LAYER}.lora_B.weight": mx.ones((192, 4))}
    mx.save_safetensors(str(loras / "nan.safetensors"), arrays)
    whole = {name: mx.ones(value.shape, mx.int8) for name, value in arrays.items()}
    mx.save_safetensors(str(loras / "whole.safetensors"), whole)
    for file in loras.iterdir():
        file.chmod(0o644)
    config = {"models": {"cache_dir": str(folder / "models")}}
    with live(folder, backend="mlx", config=config) as running:
        yield running


@pytest.fixture
def client(gateway: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, timeout=120) as made:
        yield made


def failure_of(client: httpx.Client, protocol: str, lora: str) -> tuple[int, dict[str, Any]]:
    """Status and body as this protocol's client meets them: of a job that it asks after, the job's."""
    path, body = asked_by(protocol, lora)
    if protocol.startswith("native"):
        body |= {"steps": 1}
    answer = client.post(path, json=body)
    found = answer.json()
    if (job := found.get("task_id") or found.get("job_id")) is None or "error" in found:
        return answer.status_code, found
    with client.stream("GET", f"/api/v1/jobs/{job}/stream") as stream:
        stream.read()
    if "task_id" in found:
        return client.get("/api/image", params={"task_id": job}).status_code, client.get(
            "/api/status", params={"task_id": job}
        ).json()
    return answer.status_code, client.get(f"/api/v1/jobs/{job}").json()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_model_non_finite_error_has_own_shape_in_every_protocol(client: httpx.Client, protocol: str) -> None:
    status, found = failure_of(client, protocol, "nan")
    text = json.dumps(found, ensure_ascii=False)
    assert f"{LATENTS}; LoRA 'nan' at scale 1 may be the cause." in text
    match protocol:
        case "sdapi tag" | "sdapi files":
            assert (status, found["code"]) == (500, "NON_FINITE_PICTURE")
            assert found["errors"].startswith("A tensor with all NaNs was produced in Unet")
        case "openai":
            assert (status, found["error"]["code"], found["error"]["type"]) == (
                500,
                "non_finite_picture",
                "server_error",
            )
        case "native" | "native files":
            assert (found["status"], found["error_detail"]["code"]) == ("failed", "NON_FINITE_PICTURE")
        case _:
            assert (status, found["status"]) == (500, "done")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_lora_failure_in_engine_is_a_client_error_with_its_name(client: httpx.Client, protocol: str) -> None:
    status, found = failure_of(client, protocol, "whole")
    text = json.dumps(found, ensure_ascii=False)
    assert f"LoRA 'whole' cannot be used: it holds whole numbers in {LAYER}" in text
    assert "internal" not in text.lower()
    match protocol:
        case "sdapi tag" | "sdapi files":
            assert (status, found["code"]) == (422, "BAD_INPUT")
        case "openai":
            assert (status, found["error"]["code"], found["error"]["type"]) == (
                400,
                "bad_input",
                "invalid_request_error",
            )
        case "native" | "native files":
            assert (found["status"], found["error_detail"]["code"]) == ("failed", "BAD_INPUT")
        case _:
            assert (status, found["status"]) == (400, "done")
