"""Linear previews: a matrix in the model's folder maps each latent of FLUX.2's VAE to its 8x8 pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from PIL import Image

CELL_PX = 8
CELLS = 4
"""Latents in a token: 2x2."""
FILE = Path("preview") / "model.safetensors"
Floats = np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class LinearPreview:
    """Linear map from tokens to pixels from 0 to 255. `weight` is (4, channels, 192), `bias` (4, 1, 192); 192 are the
    rows, columns and colours of a latent's 8x8 pixels. It uses NumPy: a few calls of MLX take as long as a preview, a
    millisecond.
    """

    weight: Floats
    bias: Floats

    @classmethod
    def of(cls, folder: Path, vae: Any) -> LinearPreview | None:
        """Linear map of a model's folder, None where it has none. Raises: OSError, ValueError, KeyError.

        The file has `weight` (channels, 192) and `bias` (192), from the VAE's latents to pixels from -1 to 1. Tokens
        are latents that the VAE's `bn` has normalised.
        """
        if not (folder / FILE).is_file():
            return None
        tensors = mx.load(str(folder / FILE))
        assert isinstance(tensors, dict)
        weight, bias = (_array(tensors[name]) for name in ("weight", "bias"))
        mean, spread = _array(vae.bn.running_mean), np.sqrt(_array(vae.bn.running_var) + vae.bn.eps)
        by_cell = [values.reshape(-1, CELLS).T[:, :, None] for values in (mean, spread)]
        shifts = (by_cell[0] * weight).sum(axis=1, keepdims=True) + bias
        return cls(by_cell[1] * weight * 127.5, shifts * 127.5 + 128)

    def render(self, tokens: mx.array, rows: int, columns: int) -> Image.Image:
        """Image of FLUX.2's tokens (1, rows * columns, 4 * channels), which may be in the loop's layout."""
        values = _array(tokens).reshape(rows * columns, -1, CELLS).transpose(2, 0, 1)
        cells = values @ self.weight
        cells += self.bias
        grid = cells.clip(0, 255, out=cells).astype(np.uint8).reshape(2, 2, rows, columns, CELL_PX, CELL_PX, 3)
        pixels = grid.transpose(2, 0, 4, 3, 1, 5, 6)
        return Image.fromarray(pixels.reshape(rows * 2 * CELL_PX, columns * 2 * CELL_PX, 3))


def _array(values: mx.array) -> Floats:
    return np.asarray(values.astype(mx.float32))
