"""Which part of a schedule img2img runs, and with how much noise it begins.

Source: A1111 1.10.1 modules/sd_samplers_common.py `setup_img2img_steps`.
"""

from __future__ import annotations

from dataclasses import dataclass

MOST_DENOISE = 0.999
MOST_STEPS = 10_000
"""Bound on the steps of a schedule of which only the end runs. A1111 has none; beyond it the part hardly changes."""


@dataclass(frozen=True, slots=True)
class Part:
    """Part of a schedule that runs."""

    steps: int
    """Steps of the whole schedule."""
    last: int
    """Index of the last step that runs, counted from the first one that runs; A1111's `t_enc`."""


def part_to_run(steps: int, denoise: float, *, fixed_steps: bool) -> Part:
    """Part of a schedule for a denoise of 0 to 1.

    Of `steps` that share runs, and one more; with `fixed_steps` exactly `steps` of a longer schedule.

    Raises: ValueError where `steps` or `denoise` is out of range, also where `denoise` is 0 with `fixed_steps`.
    """
    if steps < 1:
        raise ValueError("steps must be at least 1")
    if not 0.0 <= denoise <= 1.0:
        raise ValueError("denoise must be from 0 to 1")
    share = min(denoise, MOST_DENOISE)
    if not fixed_steps:
        return Part(steps, int(share * steps))
    if not share:
        raise ValueError("denoise must be above 0 for a fixed number of steps")
    return Part(max(steps, int(min(steps / share, MOST_STEPS))), steps - 1)
