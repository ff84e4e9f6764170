"""VAE of Stable Diffusion between images and scaled latents, and latents at another size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, cast

import mlx.core as mx
import numpy as np
from PIL import Image

from engine.pipelines.common.finite import check_finite
from engine.pipelines.stable_diffusion.networks.vae import Vae
from engine.pipelines.stable_diffusion.strips import decode_in_strips

CELL_PX = 8
"""Pixels of an image along each side of a latent."""


class VaeCalls(Protocol):
    """A VAE. Images are (B, H, W, 3) from -1 to 1, latents (B, h, w, 4) without its scale."""

    def encode(self, image: mx.array) -> mx.array:
        """Mean of the latents of an image."""

    def decode(self, latents: mx.array) -> mx.array:
        """Image of latents."""


@dataclass(frozen=True, slots=True)
class Autoencoder:
    """A VAE with the factor of its latents."""

    vae: VaeCalls
    factor: float

    def encode(self, image: Image.Image | np.ndarray) -> mx.array:
        """Scaled latents (1, h, w, 4), float32, of an image, or of pixels (H, W, 3) from -1 to 1."""
        pixels = image if isinstance(image, np.ndarray) else np.asarray(image.convert("RGB"), np.float32) / 127.5 - 1
        latents = self.vae.encode(mx.array(pixels[None])).astype(mx.float32) * self.factor
        mx.eval(latents)
        return latents

    def decode(self, latents: mx.array, *, in_strips: bool = False) -> Image.Image:
        """Image of scaled latents (1, h, w, 4), with values cut off as A1111 cuts them; in strips it takes less memory.

        Raises: NotFinite.
        """
        check_finite(latents, "latents")
        unscaled = latents / self.factor
        decoded = decode_in_strips(cast(Vae, self.vae), unscaled) if in_strips else self.vae.decode(unscaled)
        pixels = decoded.astype(mx.float32)
        check_finite(pixels, "pixels")
        whole = (mx.clip((pixels[0] + 1) / 2, 0, 1) * 255).astype(mx.uint8)
        return Image.fromarray(np.asarray(whole))


Interpolation = Literal["bilinear", "bicubic", "nearest", "nearest-exact"]


def resize_latents(
    latents: mx.array, columns: int, rows: int, method: Interpolation = "bilinear", *, antialias: bool = False
) -> mx.array:
    """Latents (1, h, w, C) at another size, as torch.nn.functional.interpolate without aligned corners resizes them."""
    height, width = latents.shape[1:3]
    if (height, width) == (rows, columns):
        return latents
    down = mx.array(_weights(height, rows, method, antialias))
    across = mx.array(_weights(width, columns, method, antialias))
    tall = mx.einsum("rh,bhwc->brwc", down, latents.astype(mx.float32))
    return mx.einsum("kw,brwc->brkc", across, tall)


def _weights(before: int, after: int, method: Interpolation, antialias: bool) -> np.ndarray:
    """Weights (after, before) of old cells in new ones, along one side."""
    scale = before / after
    if method in ("nearest", "nearest-exact"):
        offset = 0.5 if method == "nearest-exact" else 0.0
        places = np.minimum(((np.arange(after) + offset) * scale).astype(int), before - 1)
        return np.eye(before, dtype=np.float32)[places]
    cubic = -0.5 if antialias else -0.75
    kernel = _triangle if method == "bilinear" else lambda distance: _cubic(distance, cubic)
    radius, stretch = (1 if method == "bilinear" else 2), max(1.0, scale) if antialias else 1.0
    found = np.zeros((after, before))
    for place in range(after):
        centre = (place + 0.5) * scale - 0.5
        if method == "bilinear" and not antialias:
            centre = max(0.0, centre)
        first, last = int(np.floor(centre - radius * stretch)) + 1, int(np.ceil(centre + radius * stretch))
        cells = np.arange(first, last)
        weights = kernel(np.abs(cells - centre) / stretch)
        if antialias:
            inside = (cells >= 0) & (cells < before)
            cells, weights = cells[inside], weights[inside]
            weights = weights / weights.sum()
        np.add.at(found[place], cells.clip(0, before - 1), weights)
    return found.astype(np.float32)


def _triangle(distance: np.ndarray) -> np.ndarray:
    return np.maximum(0.0, 1 - distance)


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
