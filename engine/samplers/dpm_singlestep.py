"""DPM-Solver++ with a second evaluation in the middle of each step: DPM++ 2S a and DPM++ SDE.

Source: k-diffusion 0.1.1 sampling.py; Lu et al., "DPM-Solver++" (2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import exp, expm1, log

import mlx.core as mx
import numpy as np

from engine.samplers.ancestral import ancestral_step
from engine.samplers.euler import slope
from engine.samplers.interfaces import Run


def dpmpp_2s_ancestral(run: Run, x: mx.array, sigmas: Sequence[float], eta: float, noise_factor: float) -> mx.array:
    """DPM++ 2S a."""
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = run.denoise(x, sigma)
        down, up = ancestral_step(sigma, sigma_next, eta)
        if down == 0:
            x = x - slope(x, sigma, denoised) * sigma
        else:
            middle = (sigma * down) ** 0.5
            there = _towards(x, sigma, middle, denoised)
            x = _towards(x, sigma, down, run.denoise(there, middle))
        if sigma_next > 0:
            x = x + run.noise.next() * (noise_factor * up)
        run.finish_step(step, x, denoised)
    return x


def dpmpp_sde(run: Run, x: mx.array, sigmas: Sequence[float], eta: float, noise_factor: float) -> mx.array:
    """DPM++ SDE."""
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = run.denoise(x, sigma)
        if sigma_next == 0:
            x = x - slope(x, sigma, denoised) * sigma
        else:
            start, middle, end = _through_logarithms(sigma, sigma_next)
            down, up = ancestral_step(start, middle, eta)
            there = _towards(x, start, down, denoised)
            there = there + run.noise.brownian(start, middle) * (noise_factor * up)
            second = run.denoise(there, middle)
            down, up = ancestral_step(start, end, eta)
            x = _towards(x, start, down, second)
            x = x + run.noise.brownian(start, end) * (noise_factor * up)
        run.finish_step(step, x, denoised)
    return x


def _towards(x: mx.array, sigma: float, end: float, denoised: mx.array) -> mx.array:
    """Latents at the noise level `end` if the denoised image stays what it is."""
    return x * (end / sigma) - denoised * expm1(log(end / sigma))


def _through_logarithms(sigma: float, sigma_next: float) -> tuple[float, float, float]:
    """Start, middle and end of a step as k-diffusion has them: through logarithms of single precision.

    The Brownian motion resolves such small differences.
    """
    start, end = (np.float32(-log(np.float32(level))) for level in (sigma, sigma_next))
    middle = start + (end - start) * np.float32(0.5)
    first, second, third = (float(np.float32(exp(-time))) for time in (start, middle, end))
    return first, second, third
