"""The toy checkpoints of the tests are files as users have them."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from engine.safetensors import inspect
from tests.support.stable_diffusion import toy_checkpoint, toy_vae
from tests.support.stable_diffusion_tensors import Family

FAMILIES: tuple[Family, ...] = ("sd1", "sd2", "sdxl", "sdxl_refiner")


@pytest.mark.parametrize("family", FAMILIES[::2])
def test_toy_checkpoint_file_passes_the_check_of_safetensors(family: Family, tmp_path: Path) -> None:
    header = inspect(toy_checkpoint(tmp_path, family))
    assert header.tensors["model.diffusion_model.input_blocks.0.0.weight"].shape == (32, 4, 3, 3)
    assert {tensor.dtype for tensor in header.tensors.values()} <= {"F16", "I64"}


def test_toy_checkpoint_of_an_inpainting_model_has_nine_input_channels(tmp_path: Path) -> None:
    header = inspect(toy_checkpoint(tmp_path, "sd1", inpainting=True))
    assert header.tensors["model.diffusion_model.input_blocks.0.0.weight"].shape[1] == 9


@pytest.mark.parametrize("family", FAMILIES[1::2])
def test_toy_checkpoint_folder_has_configs_and_weights(family: Family, tmp_path: Path) -> None:
    folder = toy_checkpoint(tmp_path, family, form="folder", v=True)
    index = json.loads((folder / "model_index.json").read_text())
    for part in ("unet", "vae", *(part for part in index if part.startswith("text_encoder") and index[part][0])):
        assert (folder / part / "config.json").exists()
        assert inspect(next((folder / part).glob("*.safetensors"))).tensors
    assert json.loads((folder / "scheduler/scheduler_config.json").read_text())["prediction_type"] == "v_prediction"


def test_toy_vae_has_original_names_with_and_without_their_prefix(tmp_path: Path) -> None:
    assert "decoder.conv_in.weight" in inspect(toy_vae(tmp_path)).tensors
    assert "first_stage_model.decoder.conv_in.weight" in inspect(toy_vae(tmp_path, prefix=True)).tensors


def test_toy_checkpoint_rounds_to_each_dtype(tmp_path: Path) -> None:
    name = "model.diffusion_model.input_blocks.0.0.weight"
    files = {dtype: mx.load(str(toy_checkpoint(tmp_path / dtype, "sd1", dtype=dtype, unet_only=True)))
             for dtype in ("float32", "float16", "bfloat16", "float8")}  # fmt: skip
    exact = np.array(files["float32"][name])
    assert np.abs(np.array(files["float16"][name]) - exact).max() < 1e-3
    assert np.abs(np.array(files["bfloat16"][name].astype(mx.float32)) - exact).max() < 1e-2
    eighth = np.array(mx.from_fp8(files["float8"][name], mx.float32))
    assert np.abs(eighth - exact).max() < 0.07 * np.abs(exact).max()


def test_toy_checkpoint_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    first, again, other = (
        toy_checkpoint(tmp_path / str(index), "sd1", seed=seed).read_bytes() for index, seed in enumerate((3, 3, 4))
    )
    assert first == again != other
