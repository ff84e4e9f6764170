"""What the golden outputs of toy networks were computed from: sizes, inputs, the seed of the weights. NumPy only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tests.support.stable_diffusion_tensors import TOY_SIZES, ToySizes, toy_values

GOLDEN_SEED = 7
LATENTS = (8, 16)
"""Height and width of latents."""
ODD_LATENTS = (9, 5)
"""Sides that cannot be halved evenly."""
VAE_LATENTS = (3, 4)
IMAGE = (24, 16)
TIMESTEPS = (999.0, 431.7)
PICTURE_SIZES = (1024.0, 768.0, 0.0, 16.0, 6.0, 512.0)
"""SDXL's numbers; the refiner has five."""

_XL = TOY_SIZES["sdxl"]
UNUSUAL: ToySizes = replace(
    _XL,
    heads=(4, 4, 8),
    groups=8,
    vae_channels=(16, 32, 32),
    vae_groups=16,
    texts=tuple(replace(text, heads=4) for text in _XL.texts),
)
"""Sizes that only configurations tell."""
DISTILLED_CONFIG: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel",
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [16, 32],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "mid_block_type": "UNetMidBlock2D",
    "layers_per_block": 2,
    "transformer_layers_per_block": [1, [2, 1]],
    "reverse_transformer_layers_per_block": [[1, 1, 2], 1],
    "attention_head_dim": [2, 4],
    "cross_attention_dim": 32,
    "use_linear_projection": True,
    "norm_num_groups": 16,
}
"""Without attention in the middle, and depths that differ within a level, as in SSD-1B."""


def golden_input(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Normally distributed float32 numbers."""
    return toy_values(f"input/{name}.bias", shape, GOLDEN_SEED) * np.float32(20)


def golden_tokens() -> np.ndarray:
    """Two prompts (2, 77), padded with the end token as CLIP-L's, and with 0 as OpenCLIP's."""
    tokens = np.full((2, 77), 49407, np.int64)
    tokens[1] = 0
    tokens[:, 0] = 49406
    tokens[0, 1:9] = 320, 1125, 539, 550, 18376, 6765, 320, 4558
    tokens[1, 1:5] = 320, 4558, 49406, 49407
    return tokens
