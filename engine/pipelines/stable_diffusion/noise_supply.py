"""Noise of one image in the layout of the UNet's latents, (1, h, w, 4)."""

from __future__ import annotations

from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from engine.noise import BrownianNoise, ImageNoise
from engine.pipelines.stable_diffusion.autoencoder import CELL_PX
from engine.protocol import RandomSource, Sampling


def image_noise(
    sampling: Sampling, seed: int, subseed: int | None, strength: float, rows: int, columns: int
) -> ImageNoise:
    """Noise of a seed for latents of this size. `subseed` counts where `strength` is above 0."""
    resize = sampling.seed_resize_px
    return ImageNoise(
        sampling.random_source,
        seed,
        (4, rows, columns),
        subseed=subseed,
        subseed_strength=strength,
        seed_resize=None if resize is None else (resize[0] // CELL_PX, resize[1] // CELL_PX),
        eta_noise_seed_delta=sampling.eta_noise_seed_delta,
    )


def to_latents(noise: NDArray[np.float32]) -> mx.array:
    """Noise (C, h, w) as latents (1, h, w, C)."""
    return mx.array(np.ascontiguousarray(noise.transpose(1, 2, 0)[None]))


@dataclass(slots=True)
class NoiseSupply:
    """Noise that samplers add between steps. `brownian_range` is that of the sampling run."""

    noise: ImageNoise
    seed: int
    shape: tuple[int, int, int]
    brownian_range: tuple[float, float] | None
    source: RandomSource
    _brownian: BrownianNoise | None = field(default=None, init=False)

    def next(self) -> mx.array:
        """Fresh noise."""
        return to_latents(self.noise.next())

    def brownian(self, sigma: float, sigma_next: float) -> mx.array:
        """Noise of the Brownian motion of the image's seed between two sigmas, of variance 1."""
        if self._brownian is None:
            assert self.brownian_range is not None
            self._brownian = BrownianNoise(self.seed, *self.brownian_range, self.shape, self.source)
        return to_latents(self._brownian(sigma, sigma_next))
