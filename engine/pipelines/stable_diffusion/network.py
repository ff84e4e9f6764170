"""UNet of Stable Diffusion as a denoiser: scaled for its noise, one call for all prompts of a step.

Source: k-diffusion external.py DiscreteEpsDDPMDenoiser and DiscreteVDDPMDenoiser, by their formulas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import mlx.core as mx
import numpy as np

from engine.samplers.noise_levels import NoiseLevels

Prediction = Literal["epsilon", "v_prediction"]


class UNetCall(Protocol):
    """A UNet: latents (B, h, w, C), timesteps (B,), context (B, n, d), added (B, a) or None -> (B, h, w, 4)."""

    def __call__(self, latents: mx.array, timesteps: mx.array, context: mx.array, added: mx.array | None) -> mx.array:
        """Output of the network for a batch."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What one prompt makes of the network: `context` (1, n, d) and, for SDXL, `added` (1, a)."""

    context: mx.array
    added: mx.array | None = None


@dataclass(frozen=True, slots=True)
class Network:
    """A UNet with what its output means."""

    unet: UNetCall
    prediction: Prediction
    levels: NoiseLevels

    def denoise(
        self,
        x: mx.array,
        sigma: float,
        timestep: float | None,
        conditions: Sequence[Condition],
        extra: mx.array | None,
    ) -> list[mx.array]:
        """Denoised images (1, h, w, 4) of `x` at `sigma`, in float32, one for each condition.

        `timestep` is what the network gets; None: the fractional one of `sigma`.
        `extra` (1, h, w, 5) are the further channels of an inpainting model. Conditions of equal length share a call.
        """
        scaled = x / (sigma**2 + 1) ** 0.5
        scaled = scaled if extra is None else mx.concatenate([scaled, extra.astype(scaled.dtype)], axis=-1)
        timestep = self.levels.timestep(sigma) if timestep is None else timestep
        found: dict[int, mx.array] = {}
        for places in _of_equal_length(conditions):
            some = [conditions[place] for place in places]
            added = [one.added for one in some if one.added is not None]
            output = self.unet(
                mx.repeat(scaled, len(some), axis=0),
                mx.full((len(some),), timestep, dtype=mx.float32),
                mx.concatenate([one.context for one in some]),
                mx.concatenate(added) if added else None,
            ).astype(mx.float32)
            for row, place in enumerate(places):
                found[place] = self._denoised(x, sigma, output[row : row + 1])
        return [found[place] for place in range(len(conditions))]

    def nearest_timestep(self, sigma: float) -> int:
        """The whole timestep whose noise is nearest to `sigma`."""
        return int(np.abs(self.levels.sigmas - sigma).argmin())

    def _denoised(self, x: mx.array, sigma: float, output: mx.array) -> mx.array:
        if self.prediction == "epsilon":
            return x - sigma * output
        variance = sigma**2 + 1
        return x / variance - output * (sigma / variance**0.5)


def _of_equal_length(conditions: Sequence[Condition]) -> list[list[int]]:
    """Places of the conditions, those with equally long contexts together."""
    groups: dict[int, list[int]] = {}
    for place, one in enumerate(conditions):
        groups.setdefault(one.context.shape[1], []).append(place)
    return list(groups.values())
