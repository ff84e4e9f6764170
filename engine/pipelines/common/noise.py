"""Noise of an image: its share for a denoise, and interpolation between two seeds. It knows no family."""

from __future__ import annotations

from collections.abc import Callable
from math import exp

import mlx.core as mx

from engine.protocol import steps_to_run

MOST_SCHEDULER_STEPS = 200
REFERENCE_SHIFT = 1.15
"""Shift of the noise schedule at which A1111 and ComfyUI begin img2img with FLUX."""


def slerp(one: mx.array, other: mx.array, share: float) -> mx.array:
    """Spherical interpolation between two noises, which keeps their length: `share` from 0 (`one`) to 1 (`other`)."""
    cosine = (one * other).sum() / (mx.linalg.norm(one.reshape(-1)) * mx.linalg.norm(other.reshape(-1)))
    angle = mx.arccos(mx.clip(cosine, -1.0, 1.0))
    return (mx.sin((1 - share) * angle) * one + mx.sin(share * angle) * other) / mx.sin(angle)


def img2img_schedule(steps: int, denoise: float, sigma_of: Callable[[int, int], float]) -> tuple[int, float]:
    """Scheduler steps and mflux's `image_strength` for `steps_to_run` steps that begin at the noise for `denoise`.

    `sigma_of(scheduler_steps, first)` is the share of noise at step `first`. mflux's own mapping begins at noise 0.77
    for denoise 0.1 at 4 steps, which repaints the image. The end of a longer schedule begins as low as requested and
    takes no more steps.
    """
    run = steps_to_run(steps, denoise)
    target_sigma = shift_sigma(REFERENCE_SHIFT, denoise)
    lengths = range(run + 1, max(run + 2, MOST_SCHEDULER_STEPS))
    best = min(lengths, key=lambda length: abs(sigma_of(length, length - run) - target_sigma))
    # mflux begins at int(steps * strength); the half avoids rounding errors.
    return best, (best - run + 0.5) / best


def shift_sigma(shift: float, time_left: float) -> float:
    """Share of noise when `time_left` (above 0, up to 1) of the schedule is left."""
    return exp(shift) / (exp(shift) + 1.0 / time_left - 1.0)
