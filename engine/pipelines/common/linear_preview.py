"""A preview of latents by one matrix, where a model's folder has one: each latent is 8x8 pixels by itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np
from PIL import Image

CELL_PX = 8
FILE = Path("preview") / "model.safetensors"
Floats = np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class LinearPreview:
    """`weight` (channels, 192) and `bias` (192) give a cell's pixels from -1 to 1: rows, columns, colours."""

    weight: Floats
    bias: Floats

    @classmethod
    def of(cls, folder: Path) -> LinearPreview | None:
        """The one of a model's folder, None where it has none. Raises: OSError, ValueError, KeyError."""
        if not (folder / FILE).is_file():
            return None
        tensors = mx.load(str(folder / FILE))
        assert isinstance(tensors, dict)
        weight, bias = (np.asarray(tensors[name].astype(mx.float32)) for name in ("weight", "bias"))
        return cls(weight, bias)

    def picture(self, latents: mx.array) -> Image.Image:
        """A picture of VAE latents (1, channels, rows, columns)."""
        cells = np.asarray(latents.astype(mx.float32))[0].transpose(1, 2, 0) @ self.weight + self.bias
        rows, columns, _ = cells.shape
        grid = cells.reshape(rows, columns, CELL_PX, CELL_PX, 3).transpose(0, 2, 1, 3, 4)
        pixels = grid.reshape(rows * CELL_PX, columns * CELL_PX, 3)
        return Image.fromarray(np.round((pixels.clip(-1, 1) + 1) * 127.5).astype(np.uint8))
