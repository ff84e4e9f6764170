"""Noise levels on which Stable Diffusion was trained, and the timesteps between them.

The noise level sigma is the standard deviation of the noise that is added to latents of unit variance
(variance-exploding scale). The same image scaled to unit variance in all (variance-preserving scale) has the share
sqrt(alpha) of latents and sqrt(1 - alpha) of noise, where alpha is `alphas_cumprod` and sigma² = (1 - alpha) / alpha.

Source: k-diffusion 0.1.1 external.py `DiscreteSchedule`; A1111 1.10.1 modules/sd_models.py
`rescale_zero_terminal_snr_abar`, `apply_alpha_schedule_override`, modules/sd_samplers_lcm.py.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.samplers import single_precision
from engine.samplers.single_precision import Floats

TIMESTEPS = 1000
FIRST_BETA, LAST_BETA = 0.00085, 0.012
LAST_ALPHA_OF_ZERO_SNR = 4.8973451890853435e-08
"""Not 0, so that sigma is finite."""
LCM_TIMESTEPS = 50


class Levels(Protocol):
    """Noise levels from the lowest to the highest, and the timesteps that belong to them."""

    @property
    def sigmas(self) -> Floats:
        """Trained noise levels."""
        ...

    def timestep(self, sigma: float) -> float:
        """Timestep of a noise level."""
        ...

    def sigma(self, timestep: float) -> float:
        """Noise level of a timestep."""
        ...


class NoiseLevels:
    """The 1000 noise levels of SD 1, SD 2 and SDXL. They do not change after construction.

    `zero_terminal_snr` rescales them so that the last one is nearly noise alone, for models that were trained so.
    `downcast` computes them in float16, as A1111 did before version 1.7.
    """

    def __init__(self, *, zero_terminal_snr: bool = False, downcast: bool = False) -> None:
        betas = np.linspace(FIRST_BETA**0.5, LAST_BETA**0.5, TIMESTEPS) ** 2
        alphas: NDArray[np.floating[Any]] = np.cumprod(1.0 - betas).astype(np.float32)
        if downcast:
            alphas = alphas.astype(np.float16)
        if zero_terminal_snr:
            # The last alpha has no place in float16.
            alphas = rescale_to_zero_terminal_snr(alphas.astype(np.float32))
        levels = np.sqrt((1 - alphas) / alphas)
        logarithms = np.log(levels.astype(np.float64)).astype(alphas.dtype)
        self.alphas_cumprod = alphas
        """Shape (1000,), falling; float16 where the levels are computed so, else float32."""
        self.sigmas: Floats = levels.astype(np.float32)
        """Shape (1000,), rising."""
        self._logarithms: Floats = logarithms.astype(np.float32)

    def timestep(self, sigma: float) -> float:
        """Timestep of a noise level: 0 to 999, interpolated in the logarithm of sigma."""
        logarithm = np.float32(np.log(np.float64(np.float32(sigma))))
        low = int(np.clip(np.searchsorted(self._logarithms, logarithm, side="right") - 1, 0, TIMESTEPS - 2))
        lower, higher = self._logarithms[low], self._logarithms[low + 1]
        share = np.clip((lower - logarithm) / (lower - higher), np.float32(0.0), np.float32(1.0))
        return float((np.float32(1.0) - share) * np.float32(low) + share * np.float32(low + 1))

    def sigma(self, timestep: float) -> float:
        """Noise level of a timestep, 0 to 999 with fractions."""
        return float(_interpolate(self._logarithms, np.array([timestep], np.float32))[0])


class LcmLevels:
    """Every 20th noise level from the 20th on: the 50 on which latent consistency models were distilled."""

    def __init__(self, levels: NoiseLevels) -> None:
        self._spacing = TIMESTEPS // LCM_TIMESTEPS
        alphas = levels.alphas_cumprod[self._spacing - 1 :: self._spacing].astype(np.float32)
        self.sigmas: Floats = np.sqrt((1 - alphas) / alphas)
        """Shape (50,), rising."""
        self._logarithms: Floats = np.log(self.sigmas.astype(np.float64)).astype(np.float32)

    def timestep(self, sigma: float) -> float:
        """The nearest timestep of the 50."""
        logarithm = np.float32(np.log(np.float64(np.float32(sigma))))
        nearest = int(np.abs(logarithm - self._logarithms).argmin())
        return float(nearest * self._spacing + self._spacing - 1)

    def sigma(self, timestep: float) -> float:
        """Noise level of a timestep, interpolated between those of the 50."""
        place = (np.float32(timestep) - np.float32(self._spacing - 1)) / np.float32(self._spacing)
        place = np.clip(place, np.float32(0.0), np.float32(LCM_TIMESTEPS - 1))
        return float(_interpolate(self._logarithms, np.array([place], np.float32))[0])


def _interpolate(logarithms: Floats, places: Floats) -> Floats:
    """Noise levels at fractional places of a table of logarithms."""
    low, share = np.floor(places).astype(int), places - np.floor(places)
    high = np.ceil(places).astype(int)
    return single_precision.exp((np.float32(1.0) - share) * logarithms[low] + share * logarithms[high])


def rescale_to_zero_terminal_snr(alphas: Floats) -> Floats:
    """The roots of alpha shifted and scaled so that the last is nearly 0 and the first is unchanged, then squared."""
    roots = np.sqrt(alphas)
    first, last = roots[0], roots[-1]
    rescaled: Floats = ((roots - last) * (first / (first - last))) ** 2
    rescaled[-1] = LAST_ALPHA_OF_ZERO_SNR
    return rescaled
