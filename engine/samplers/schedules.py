"""Noise levels for a number of steps, by A1111's names of schedules.

Source: A1111 1.10.1 modules/sd_schedulers.py and modules/sd_samplers_kdiffusion.py `get_sigmas`; k-diffusion 0.1.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from engine.protocol.sampling import Sampling, ScheduleName
from engine.samplers import beta_distribution, single_precision
from engine.samplers.noise_levels import LcmLevels, Levels, NoiseLevels
from engine.samplers.single_precision import Floats, append_zero, rounded
from engine.samplers.traits import TRAITS

KARRAS_RHO, POLYEXPONENTIAL_RHO = 7.0, 1.0
BETA_SHAPE = 0.6
ALIGNED_SD = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
ALIGNED_SDXL = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)
"""Noise levels of "Align Your Steps" for 11 steps (NVIDIA, 2024)."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a schedule is computed from. Schedules use of it what they know."""

    steps: int
    levels: Levels
    sigma_min: float
    sigma_max: float
    rho: float | None
    is_sdxl: bool


def sigmas_for(sampling: Sampling, steps: int, levels: NoiseLevels, *, is_sdxl: bool) -> Floats:
    """Noise levels of `steps` steps from the highest on, with 0 at the end (KL Optimal ends at the lowest instead).

    "Automatic" is the sampler's own schedule. Some schedules have another number of levels than asked for: DDIM where
    the number does not divide 1000. LCM has noise levels of its own.

    Raises: ValueError where `steps`, `sigma_min` or `sigma_max` are out of range.
    """
    if steps < 1:
        raise ValueError("steps must be at least 1")
    traits = TRAITS[sampling.sampler]
    discards = traits.discards_penultimate or sampling.discard_penultimate_sigma
    name: ScheduleName = traits.schedule if sampling.schedule == "Automatic" else sampling.schedule
    known: Levels = LcmLevels(levels) if sampling.sampler == "LCM" else levels
    bounds = Bounds(
        steps + discards,
        known,
        sampling.sigma_min or float(known.sigmas[0]),
        sampling.sigma_max or float(known.sigmas[-1]),
        sampling.rho or None,
        is_sdxl,
    )
    if not 0.0 < bounds.sigma_min < bounds.sigma_max < float("inf"):
        raise ValueError("sigma_min must be above 0 and below sigma_max")
    sigmas = SCHEDULES[name](bounds)
    return np.delete(sigmas, -2) if discards else sigmas


def karras(steps: int, sigma_min: float, sigma_max: float, rho: float = KARRAS_RHO) -> Floats:
    """Noise levels of Karras et al. (2022): evenly spaced in their `rho`-th root."""
    ramp = single_precision.linspace(0.0, 1.0, steps)
    low, high = sigma_min ** (1.0 / rho), sigma_max ** (1.0 / rho)
    roots = np.float32(high) + ramp * np.float32(low - high)
    return append_zero(rounded(roots.astype(np.float64) ** rho))


def _karras(of: Bounds) -> Floats:
    return karras(of.steps, of.sigma_min, of.sigma_max, of.rho or KARRAS_RHO)


def _uniform(of: Bounds) -> Floats:
    """Evenly spaced in timesteps, whatever the plan's bounds."""
    last = float(of.levels.timestep(float(of.levels.sigmas[-1])))
    first = float(of.levels.timestep(float(of.levels.sigmas[0])))
    return _at_timesteps(of, single_precision.linspace(last, first, of.steps))


def _normal(of: Bounds) -> Floats:
    """Evenly spaced in timesteps."""
    first, last = of.levels.timestep(of.sigma_max), of.levels.timestep(of.sigma_min)
    return _at_timesteps(of, single_precision.linspace(first, last, of.steps))


def _sgm_uniform(of: Bounds) -> Floats:
    """Evenly spaced in timesteps, without the last one."""
    first, last = of.levels.timestep(of.sigma_max), of.levels.timestep(of.sigma_min)
    return _at_timesteps(of, single_precision.linspace(first, last, of.steps + 1)[:-1])


def _at_timesteps(of: Bounds, timesteps: Floats) -> Floats:
    return append_zero(np.array([of.levels.sigma(float(timestep)) for timestep in timesteps], np.float32))


def _exponential(of: Bounds) -> Floats:
    """Evenly spaced in their logarithm."""
    logarithms = single_precision.linspace(np.log(of.sigma_max), np.log(of.sigma_min), of.steps)
    return append_zero(single_precision.exp(logarithms))


def _polyexponential(of: Bounds) -> Floats:
    """Spaced in their logarithm by a power."""
    ramp = single_precision.linspace(1.0, 0.0, of.steps).astype(np.float64) ** (of.rho or POLYEXPONENTIAL_RHO)
    low, high = np.log(of.sigma_min), np.log(of.sigma_max)
    logarithms = rounded(ramp) * np.float32(high - low) + np.float32(low)
    return append_zero(single_precision.exp(logarithms))


def _kl_optimal(of: Bounds) -> Floats:
    """Evenly spaced in their arc tangent; the lowest level is the end."""
    low, high = (np.float32(np.arctan(np.float64(np.float32(end)))) for end in (of.sigma_min, of.sigma_max))
    share = np.arange(of.steps + 1, dtype=np.float32) / np.float32(of.steps)
    angles = share * low + (np.float32(1.0) - share) * high
    return rounded(np.tan(angles.astype(np.float64)))


def _align_your_steps(of: Bounds) -> Floats:
    """NVIDIA's levels, interpolated in their logarithm for other numbers of steps than 11."""
    aligned = np.array(ALIGNED_SDXL if of.is_sdxl else ALIGNED_SD)
    if of.steps != len(aligned):
        known, wanted = np.linspace(0, 1, len(aligned)), np.linspace(0, 1, of.steps)
        aligned = np.exp(np.interp(wanted, known, np.log(aligned[::-1])))[::-1]
    return append_zero(rounded(aligned))


def _simple(of: Bounds) -> Floats:
    """Every so many of the trained levels, from the highest on."""
    spacing = len(of.levels.sigmas) / of.steps
    return append_zero(of.levels.sigmas[[-(1 + int(step * spacing)) for step in range(of.steps)]])


def _ddim(of: Bounds) -> Floats:
    """Every so many of the trained levels, from the second lowest on."""
    spacing = max(len(of.levels.sigmas) // of.steps, 1)
    return append_zero(of.levels.sigmas[1::spacing][::-1])


def _beta(of: Bounds) -> Floats:
    """Quantiles of the beta distribution: dense at both ends (Lee et al., "Beta Sampling is All You Need", 2024)."""
    shares = beta_distribution.quantile(1.0 - np.linspace(0, 1, of.steps), BETA_SHAPE)
    return append_zero(rounded(of.sigma_min + shares * (of.sigma_max - of.sigma_min)))


SCHEDULES: dict[ScheduleName, Callable[[Bounds], Floats]] = {
    "Automatic": _uniform,
    "Uniform": _uniform,
    "Karras": _karras,
    "Exponential": _exponential,
    "Polyexponential": _polyexponential,
    "SGM Uniform": _sgm_uniform,
    "KL Optimal": _kl_optimal,
    "Align Your Steps": _align_your_steps,
    "Simple": _simple,
    "Normal": _normal,
    "DDIM": _ddim,
    "Beta": _beta,
}
