"""Samplers that follow the slope of the noise: Euler, Euler a, Heun, LMS, DPM2 and DPM2 a.

Source: k-diffusion 0.1.1 sampling.py; Karras et al. 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import mlx.core as mx
import numpy as np

from engine.samplers.ancestral import ancestral_step
from engine.samplers.interfaces import Churn, Run

LMS_ORDER = 4


def slope(x: mx.array, sigma: float, denoised: mx.array) -> mx.array:
    """Derivative of the latents by the noise level."""
    return (x - denoised) / sigma


def _churned(run: Run, x: mx.array, sigma: float, churn: Churn, steps: int) -> tuple[mx.array, float]:
    """Latents with churn's noise, and their noise level. k-diffusion draws that noise whether it is added or not."""
    if churn.amount <= 0:
        return x, sigma
    noise = run.noise.next()
    raised = churn.raise_level(sigma, steps)
    if raised > sigma:
        x = x + noise * (churn.noise * (raised**2 - sigma**2) ** 0.5)
    return x, raised


def euler(run: Run, x: mx.array, sigmas: Sequence[float], churn: Churn) -> mx.array:
    """A straight line to the next noise level."""
    steps = len(sigmas) - 1
    for step in range(steps):
        x, sigma = _churned(run, x, sigmas[step], churn, steps)
        denoised = run.denoise(x, sigma)
        x = x + slope(x, sigma, denoised) * (sigmas[step + 1] - sigma)
        run.finish_step(step, x, denoised)
    return x


def heun(run: Run, x: mx.array, sigmas: Sequence[float], churn: Churn) -> mx.array:
    """The mean of the slopes at both ends of a step."""
    steps = len(sigmas) - 1
    for step in range(steps):
        x, sigma = _churned(run, x, sigmas[step], churn, steps)
        x, denoised = heun_step(run, x, sigma, sigmas[step + 1])
        run.finish_step(step, x, denoised)
    return x


def heun_step(run: Run, x: mx.array, sigma: float, sigma_next: float) -> tuple[mx.array, mx.array]:
    """Latents after one step of Heun's method, and its denoised image; a straight line where the next level is 0."""
    denoised = run.denoise(x, sigma)
    first = slope(x, sigma, denoised)
    there = x + first * (sigma_next - sigma)
    if sigma_next == 0:
        return there, denoised
    second = slope(there, sigma_next, run.denoise(there, sigma_next))
    return x + (first + second) * (0.5 * (sigma_next - sigma)), denoised


def euler_ancestral(run: Run, x: mx.array, sigmas: Sequence[float], eta: float) -> mx.array:
    """Euler with fresh noise after each step."""
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = run.denoise(x, sigma)
        down, up = ancestral_step(sigma, sigma_next, eta)
        x = x + slope(x, sigma, denoised) * (down - sigma)
        if sigma_next > 0:
            x = x + run.noise.next() * up
        run.finish_step(step, x, denoised)
    return x


def lms(run: Run, x: mx.array, sigmas: Sequence[float]) -> mx.array:
    """A polynomial through the last slopes, at most four of them, integrated over the step."""
    slopes: list[mx.array] = []
    for step in range(len(sigmas) - 1):
        denoised = run.denoise(x, sigmas[step])
        slopes = [slope(x, sigmas[step], denoised), *slopes][:LMS_ORDER]
        passed = [sigmas[step - back] for back in range(len(slopes))]
        for weight, one in zip(multistep_weights(passed, sigmas[step + 1]), slopes, strict=True):
            x = x + one * weight
        run.finish_step(step, x, denoised)
    return x


def multistep_weights(passed: Sequence[float], end: float) -> list[float]:
    """Integrals from the first of `passed` to `end` of the Lagrange polynomials through all of `passed`."""
    # Gauss's rule with two points is exact for polynomials up to the third degree.
    points, shares = np.polynomial.legendre.leggauss(2)
    half = 0.5 * (end - passed[0])
    places = passed[0] + half * (points + 1.0)
    weights = []
    for index, node in enumerate(passed):
        others = [other for place, other in enumerate(passed) if place != index]
        values = np.ones_like(places)
        for other in others:
            values = values * (places - other) / (node - other)
        weights.append(float(half * (shares * values).sum()))
    return weights


def dpm2(run: Run, x: mx.array, sigmas: Sequence[float], churn: Churn) -> mx.array:
    """The slope in the middle of the step, by the logarithm of the noise level."""
    steps = len(sigmas) - 1
    for step in range(steps):
        x, sigma = _churned(run, x, sigmas[step], churn, steps)
        denoised = run.denoise(x, sigma)
        x = _midpoint_step(run, x, sigma, sigmas[step + 1], denoised)
        run.finish_step(step, x, denoised)
    return x


def dpm2_ancestral(run: Run, x: mx.array, sigmas: Sequence[float], eta: float, noise_factor: float) -> mx.array:
    """DPM2 with fresh noise after each step."""
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = run.denoise(x, sigma)
        down, up = ancestral_step(sigma, sigma_next, eta)
        x = _midpoint_step(run, x, sigma, down, denoised)
        if down > 0:
            x = x + run.noise.next() * (noise_factor * up)
        run.finish_step(step, x, denoised)
    return x


def _midpoint_step(run: Run, x: mx.array, sigma: float, end: float, denoised: mx.array) -> mx.array:
    first = slope(x, sigma, denoised)
    if end == 0:
        return x + first * (end - sigma)
    middle = (sigma * end) ** 0.5
    there = x + first * (middle - sigma)
    return x + slope(there, middle, run.denoise(there, middle)) * (end - sigma)
