"""DPM-Solver++ that reuses the denoised images of earlier steps: DPM++ 2M, 2M SDE, 2M SDE Heun and 3M SDE.

`h` is a step in -ln(sigma). Source: k-diffusion 0.1.1 sampling.py; Lu et al., "DPM-Solver++" (2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import exp, expm1, log, sqrt

import mlx.core as mx

from engine.samplers.interfaces import Run


def dpmpp_2m(run: Run, x: mx.array, sigmas: Sequence[float]) -> mx.array:
    """DPM++ 2M."""
    earlier: mx.array | None = None
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = run.denoise(x, sigma)
        if sigma_next == 0:
            x = denoised
        else:
            h = log(sigma / sigma_next)
            target = denoised
            if earlier is not None:
                share = h / (2.0 * log(sigmas[step - 1] / sigma))
                target = denoised * (1.0 + share) - earlier * share
            x = x * (sigma_next / sigma) - target * expm1(-h)
        earlier = denoised
        run.finish_step(step, x, denoised)
    return x


def dpmpp_2m_sde(
    run: Run, x: mx.array, sigmas: Sequence[float], eta: float, noise_factor: float, *, is_heun: bool
) -> mx.array:
    """DPM++ 2M SDE, and with `is_heun` DPM++ 2M SDE Heun."""
    earlier: mx.array | None = None
    earlier_h = 0.0
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = run.denoise(x, sigma)
        if sigma_next == 0:
            x = denoised
        else:
            h = log(sigma / sigma_next)
            whole = h * (1.0 + eta)
            x = x * (sigma_next / sigma * exp(-eta * h)) - denoised * expm1(-whole)
            if earlier is not None:
                weight = 1.0 + expm1(-whole) / whole if is_heun else -0.5 * expm1(-whole)
                x = x + (denoised - earlier) * (weight * h / earlier_h)
            x = _with_noise(run, x, sigma, sigma_next, eta * h, noise_factor)
            earlier_h = h
        earlier = denoised
        run.finish_step(step, x, denoised)
    return x


def dpmpp_3m_sde(run: Run, x: mx.array, sigmas: Sequence[float], eta: float, noise_factor: float) -> mx.array:
    """DPM++ 3M SDE."""
    earlier: list[tuple[mx.array, float]] = []
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = run.denoise(x, sigma)
        if sigma_next == 0:
            x = denoised
        else:
            h = log(sigma / sigma_next)
            whole = h * (1.0 + eta)
            x = x * exp(-whole) - denoised * expm1(-whole)
            second_weight = expm1(-whole) / whole + 1.0
            if len(earlier) == 2:
                (last, last_h), (before, before_h) = earlier
                near, far = last_h / h, before_h / h
                first = (denoised - last) / near
                change = (first - (last - before) / far) / (near + far)
                x = x + (first + change * near) * second_weight - change * (second_weight / whole - 0.5)
            elif earlier:
                last, last_h = earlier[0]
                x = x + (denoised - last) * (second_weight * h / last_h)
            x = _with_noise(run, x, sigma, sigma_next, eta * h, noise_factor)
            earlier = [(denoised, h), *earlier][:2]
        run.finish_step(step, x, denoised)
    return x


def _with_noise(run: Run, x: mx.array, sigma: float, sigma_next: float, eta_h: float, noise_factor: float) -> mx.array:
    if eta_h == 0:
        return x
    return x + run.noise.brownian(sigma, sigma_next) * (noise_factor * sigma_next * sqrt(-expm1(-2.0 * eta_h)))
