"""Estimates of memory against what others measured on Apple's chips, and decoding with less of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.catalog import CATALOG, ModelSpec
from engine.catalog.memory import encoders_gb
from engine.protocol import Generate, Load
from gateway.models.library import Library
from gateway.models.user_models import LocalModel
from gateway.residency.footprint import GB, guess

SPECS = {spec.name: spec for spec in CATALOG}
WITHIN = 0.25


def peak_gb(spec: ModelSpec, *, px: int | None = 1024, low_ram: bool = False) -> float:
    """The estimate in GB; without a size of only loading it."""
    plan: Generate | Load = Load(model=spec.name, quantize=spec.quantize)
    if px is not None:
        size = {"width_px": px, "height_px": px}
        said = {"prompt": "x", "steps": 4, "guidance": 1.0, "seeds": (1,), "low_ram": low_ram}
        plan = Generate(model=spec.name, quantize=spec.quantize, **size, **said)
    return guess(plan, spec, disk_bytes=None, is_float32=False).peak / GB


MEASURED: tuple[tuple[str, dict[str, Any], float], ...] = (
    ("anima-turbo", {}, 14.3),
    ("anima-turbo-8-bit", {}, 12.7),
    ("anima-turbo-4-bit", {}, 11.8),
    ("qwen-image-2.1", {}, 46.0),
    ("fibo2", {}, 30.0),
    ("iris-3b", {"px": None}, 14.5),
    ("iris-3b-8-bit", {"px": None}, 8.8),
    ("iris-3b-4-bit", {"px": None}, 5.9),
    ("ideogram-4-4-bit", {}, 22.0),
    ("ideogram-4-8-bit", {}, 28.7),
    ("flux2-klein-9b-4-bit", {"low_ram": True}, 7.1),
    ("flux2-klein-9b-4-bit", {"low_ram": True, "px": 2048}, 10.3),
    ("ming-image", {"px": None}, 50.0),
)
"""By mflux's READMEs, at 1024x1024 unless another size is said; docs/memory.md has the table."""


@pytest.mark.parametrize(("name", "said", "measured"), MEASURED)
def test_memory_estimate_is_near_measured_values(name: str, said: dict[str, Any], measured: float) -> None:
    assert peak_gb(SPECS[name], **said) == pytest.approx(measured, rel=WITHIN)


@pytest.mark.parametrize("name", ["flux1-dev", "qwen-image", "krea-2", "anima-turbo", "boogu-image", "qwen-image-2.1"])
def test_low_ram_is_counted_where_the_vae_decodes_whole(name: str) -> None:
    assert peak_gb(SPECS[name], low_ram=True) < peak_gb(SPECS[name]) - 4


@pytest.mark.parametrize(
    ("name", "limit_gb"),
    [("flux2-klein-9b-4-bit", 11.45), ("qwen-image-4-bit", 22.9)],
)
def test_memory_low_ram_lets_a_job_fit(name: str, limit_gb: float) -> None:
    """What Metal lets a process have on Macs with 16 and 32 GB."""
    assert peak_gb(SPECS[name], low_ram=True) < limit_gb < peak_gb(SPECS[name])


@pytest.mark.parametrize("name", ["stable-diffusion-xl-base-1.0-8-bit", "sdxl-turbo-8-bit", "stable-diffusion-2-1"])
def test_stable_diffusion_fits_16_gb_at_its_own_size(name: str) -> None:
    """SDXL at 1024 pixels at 8 bits, in what Metal lets a process have on a Mac with 16 GB; VAE in float32."""
    assert peak_gb(SPECS[name], px=max(SPECS[name].default_px, 768)) < 11.45
    assert peak_gb(SPECS["stable-diffusion-xl-base-1.0-8-bit"]) > 10


def test_memory_released_by_encoders_is_less_than_memory_loaded() -> None:
    for spec in SPECS.values():
        for bits in (None, 4, 8):
            assert 0 <= encoders_gb(spec, bits) < spec.loaded_gb(bits), spec.name


def test_memory_estimate_of_fp8_model_is_not_reduced_by_quantisation() -> None:
    spec = SPECS["ideogram-4-4-bit"]
    plan = Load(model=spec.name, quantize=4)
    known = guess(plan, spec, disk_bytes=int(spec.size_gb * GB), is_float32=False)
    assert known == guess(plan, spec, disk_bytes=None, is_float32=False)


def _vaes() -> dict[str, Any]:
    from mflux.models.flux.model.flux_vae.vae import VAE

    from tests.support.toy_parts import qwen_vae
    from tests.support.toys_pictures import vae

    return {"flux1": lambda: vae(VAE()), "qwen": qwen_vae}


@pytest.mark.parametrize("name", ["flux1", "qwen"])
def test_latents_decoded_in_strips_give_same_pixels_with_less_memory(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mx = pytest.importorskip("mlx.core")
    from mflux.models.common.config.model_config import ModelConfig
    from mflux.models.common.vae.block_decoder import VAEBlockDecoder
    from mflux.models.common.vae.vae_util import VAEUtil

    from engine.pipelines.common import strips
    from engine.pipelines.common.low_memory import low_memory_decoding

    for place in (strips, VAEBlockDecoder):
        monkeypatch.setattr(place, "STRIP_ROWS", 24)
    monkeypatch.setattr(ModelConfig, "precision", mx.float32)
    monkeypatch.setattr(strips, "QUERIES", 100)
    mx.random.seed(3)
    vae = _vaes()[name]()
    mx.eval(vae.parameters())
    latent = mx.random.normal((1, 16, 33, 18))
    pipeline = SimpleNamespace(vae=vae, tiling_config=None)
    made, taken = [], []
    for low_ram in (False, True, False):
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        with low_memory_decoding(pipeline, low_ram=low_ram):
            made.append(VAEUtil.decode(vae=vae, latent=latent, tiling_config=pipeline.tiling_config))
            mx.eval(made[-1])
        taken.append(mx.get_peak_memory() - before)
    whole, striped, again = made
    assert whole.shape == striped.shape == (1, 3, 264, 144)
    assert float(mx.abs(whole - striped).max()) < 1e-4, "far less than the 1/255 that a pixel can tell"
    assert float(whole.max() - whole.min()) > 0.1
    assert bool(mx.array_equal(whole, again)), "nothing of it stays"
    assert pipeline.tiling_config is None
    assert taken[1] < 0.5 * taken[0]


def test_model_folder_of_operator_is_measured_by_files_of_its_base_row(tmp_path: Path) -> None:
    like = SPECS["flux2-klein-4b"]
    weights = tmp_path / "transformer" / "0.safetensors"
    weights.parent.mkdir()
    for taken in (100, 2 * GB, int(like.size_gb * GB)):
        with weights.open("wb") as file:
            file.truncate(taken)
        library = Library(tmp_path, default="mine", local={"mine": LocalModel(tmp_path, like.name)})
        spec = library.find("mine")
        plan = Load(model=spec.name, quantize=None)
        found = guess(plan, spec, disk_bytes=taken, is_float32=False)
        assert found.weights == pytest.approx(like.loaded_gb(None) * taken / like.size_gb, rel=0.01, abs=1)
