"""Basis of the latent space: principal components of 8x8 pixel cells, fixed before anything is trained.

A learned latent space spreads an image's information evenly over its channels, so a small transformer has to predict
all of them equally well. Here the first channels hold nearly everything and the rest is detail, as in the pixels. The
VAE learns this space (encoder), and to add what it leaves out (decoder).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .geometry import CELL_PX, LATENT_CHANNELS, LATENT_GRID

WHITENING = 0.5
"""Exponent between keeping the components' variances (0) and making them equal (1)."""

Floats = np.ndarray


def _cells(images: np.ndarray) -> Floats:
    """uint8 images N x H x W x 3 as N x h x w x 192, values from -1 to 1."""
    n, height, width, _ = images.shape
    signal = images.astype(np.float32) / 127.5 - 1.0
    cells = signal.reshape(n, height // CELL_PX, CELL_PX, width // CELL_PX, CELL_PX, 3).transpose(0, 1, 3, 2, 4, 5)
    return cells.reshape(n, height // CELL_PX, width // CELL_PX, -1)


@dataclass(frozen=True)
class Basis:
    """Mean cell (192), components (192 x 32) and their scales (32)."""

    mean: Floats
    components: Floats
    scale: Floats

    @classmethod
    def fit(cls, images: np.ndarray) -> "Basis":
        """The basis of these images, with latents of variance 1 on average."""
        cells = _cells(images).reshape(-1, 3 * CELL_PX**2)
        mean = cells.mean(0)
        variances, vectors = np.linalg.eigh(np.cov((cells - mean).T))
        variances, vectors = variances[::-1][:LATENT_CHANNELS], vectors[:, ::-1][:, :LATENT_CHANNELS]
        scale = variances ** (WHITENING / 2)
        scale = scale * np.sqrt(np.mean(variances / scale**2))
        return cls(mean, vectors.copy(), scale)

    @classmethod
    def of_latents(cls, images: np.ndarray, latents: Floats) -> "Basis":
        """The basis that a VAE has learned, from its latents (N x h x w x 32) of these images."""
        cells = _cells(images).reshape(-1, 3 * CELL_PX**2).astype(np.float64)
        known = np.column_stack([latents.reshape(-1, LATENT_CHANNELS).astype(np.float64), np.ones(len(cells))])
        solution, *_ = np.linalg.lstsq(known, cells, rcond=None)
        mean, scaled = solution[-1], solution[:-1]
        scale = np.linalg.norm(scaled, axis=1)
        left, _, right = np.linalg.svd(scaled / scale[:, None], full_matrices=False)
        return cls(mean, (left @ right).T, scale)

    def latents(self, images: np.ndarray) -> Floats:
        """Latents N x h x w x 32 of images."""
        return ((_cells(images) - self.mean) @ self.components / self.scale).astype(np.float32)

    def encode(self, images: np.ndarray) -> Floats:
        """Packed tokens N x 64 x 128 of native-size images, 2x2 cells each, as FLUX.2 packs them."""
        z = self.latents(images).reshape(-1, LATENT_GRID, 2, LATENT_GRID, 2, LATENT_CHANNELS)
        return z.transpose(0, 1, 3, 5, 2, 4).reshape(-1, LATENT_GRID**2, 4 * LATENT_CHANNELS)

    def decode(self, tokens: Floats) -> np.ndarray:
        """Native-size uint8 images of packed tokens, without a decoder's sharpening."""
        z = tokens.reshape(-1, LATENT_GRID, LATENT_GRID, LATENT_CHANNELS, 2, 2).transpose(0, 1, 4, 2, 5, 3)
        cells = (z.reshape(len(z), 2 * LATENT_GRID, 2 * LATENT_GRID, -1) * self.scale) @ self.components.T + self.mean
        grid = cells.reshape(*cells.shape[:3], CELL_PX, CELL_PX, 3).transpose(0, 1, 3, 2, 4, 5)
        side = 2 * LATENT_GRID * CELL_PX
        return ((grid.reshape(-1, side, side, 3).clip(-1, 1) + 1) * 127.5).round().astype(np.uint8)

    def save(self, path: Path) -> None:
        np.savez(path, **vars(self))

    @classmethod
    def load(cls, path: Path) -> "Basis":
        with np.load(path) as file:
            return cls(**file)
