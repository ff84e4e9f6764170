"""Restart: Heun's method that goes back up to more noise and down again, once or twice.

Source: A1111 1.10.1 modules/sd_samplers_extra.py; Xu et al., "Restart Sampling" (2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import mlx.core as mx
import numpy as np

from engine.samplers.euler import heun_step
from engine.samplers.interfaces import Run
from engine.samplers.schedules import karras

LEAST_STEPS = 20
"""Steps from which on it restarts; with fewer it is Heun's method."""
TWICE_FROM = 36
RESTART_STEPS = 9
RESTART_FROM, RESTART_TO = 0.1, 2.0
"""Noise levels between which it restarts; the nearest ones of the schedule are taken."""


def restart_steps(sigmas: Sequence[float]) -> list[tuple[float, float]]:
    """All steps as pairs of noise levels; a step that begins above where the last one ended is a restart."""
    steps = len(sigmas) - 1
    if steps < LEAST_STEPS:
        return list(pairwise(sigmas))
    length, times = (steps // 4, 2) if steps >= TWICE_FROM else (RESTART_STEPS, 1)
    levels = karras(steps - length * times, sigmas[-2], sigmas[0])
    low, high = (int(np.abs(levels - np.float32(level)).argmin()) for level in (RESTART_FROM, RESTART_TO))
    loop: list[tuple[float, float]] = []
    if high < low:
        again = karras(length + 1, float(levels[low]), float(levels[high]))[:-1].tolist()
        loop = list(pairwise(again)) * times
    whole = levels.tolist()
    pairs = list(pairwise(whole))
    return [*pairs[:low], *loop, *pairs[low:]]


def restart(run: Run, x: mx.array, steps: Sequence[tuple[float, float]]) -> mx.array:
    """Steps of Heun's method, with fresh noise where they restart."""
    reached = steps[0][0]
    for step, (sigma, sigma_next) in enumerate(steps):
        if reached < sigma:
            x = x + run.noise.next() * (sigma**2 - reached**2) ** 0.5
        x, denoised = heun_step(run, x, sigma, sigma_next)
        reached = sigma_next
        run.finish_step(step, x, denoised)
    return x
