"""LCM: each step denoises entirely and adds noise anew, for latent consistency models.

Source: A1111 1.10.1 modules/sd_samplers_lcm.py; Luo et al., "Latent Consistency Models" (2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import mlx.core as mx

from engine.samplers.interfaces import Run
from engine.samplers.noise_levels import LcmLevels

SIGMA_DATA = 0.5
TIMESTEP_SCALE = 10.0


def lcm(run: Run, x: mx.array, sigmas: Sequence[float], levels: LcmLevels) -> mx.array:
    """LCM; the network gets the nearest of the timesteps on which such models were distilled."""
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        timestep = levels.timestep(sigma)
        kept, predicted = boundary_shares(timestep)
        denoised = run.denoise(x, sigma, timestep) * predicted + x * kept
        x = denoised
        if sigma_next > 0:
            x = x + run.noise.next() * sigma_next
        run.finish_step(step, x, denoised)
    return x


def boundary_shares(timestep: float) -> tuple[float, float]:
    """Shares of the latents and of their denoised image; at timestep 0 they would be 1 and 0."""
    scaled = timestep * TIMESTEP_SCALE
    squares = scaled**2 + SIGMA_DATA**2
    return SIGMA_DATA**2 / squares, scaled / squares**0.5
