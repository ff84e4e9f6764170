"""Weights that A1111's own code has merged: `python -m tools.golden_stable_diffusion.loras` makes them anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.engine.stable_diffusion.test_lora_networks import applied, close, layer_at, saved, tree, weight_of
from tests.support import lora_kernels as kernels

mx = pytest.importorskip("mlx.core")

FILE = Path(__file__).parents[2] / "golden" / "stable_diffusion" / "loras.npz"
PATHS = {"convolution": "conv_in", "point": "mid_block.proj_in", "linear": "mid_block.to_q"}


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(FILE) as stored:
        return dict(stored)


@pytest.mark.parametrize(("layer", "style"), kernels.golden_cases())
def test_lora_changes_weight_as_a1111_does(
    layer: str, style: str, golden: dict[str, np.ndarray], tmp_path: Path
) -> None:
    from mlx import nn

    from engine.pipelines.common.lora_stack import Networks

    base, made = kernels.golden_case(layer, style)
    outputs, inputs, *kernel = base.shape
    bare = nn.Conv2d(inputs, outputs, kernel[0], padding=kernel[0] // 2) if kernel else nn.Linear(inputs, outputs)
    bare.weight = mx.array((base.transpose(0, 2, 3, 1) if kernel else base).astype(np.float32))
    networks = Networks({"unet": tree({PATHS[layer]: bare})})
    applied(networks, (saved(tmp_path, "x", {PATHS[layer]: made}), kernels.GOLDEN_SCALE))
    changed = layer_at(networks.unet, PATHS[layer])
    assert close(weight_of(changed), golden[f"{layer}/{style}"])
