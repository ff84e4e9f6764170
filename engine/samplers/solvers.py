"""From a sampler's name to its function with all arguments, and to how often that evaluates and reports.

Source: A1111 1.10.1 modules/sd_samplers_kdiffusion.py, sd_samplers_timesteps.py: which options reach which sampler.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf

import mlx.core as mx

from engine.protocol.sampling import Sampling
from engine.samplers import ddim, dpm_multistep, dpm_singlestep, dpm_solver, euler, lcm, restart, unipc
from engine.samplers.ancestral import ancestral_step
from engine.samplers.interfaces import Churn, Run
from engine.samplers.noise_levels import LcmLevels, NoiseLevels
from engine.samplers.traits import TRAITS

DIVIDES_BY_STEPS = ("LMS", "DPM++ 2M", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE")
"""Samplers that divide by the length of a step. Long schedules repeat levels; A1111's result is then not finite."""


@dataclass(frozen=True, slots=True)
class Solver:
    """A sampler with its arguments. `calls` and `steps` are exact but for DPM adaptive, whose most they are."""

    solve: Callable[[Run, mx.array], mx.array]
    calls: int
    steps: int


def keeping() -> Solver:
    """What leaves latents as they are."""
    return Solver(lambda run, x: x, 0, 0)


def on_sigmas(sampling: Sampling, sigmas: Sequence[float], levels: NoiseLevels) -> Solver:
    """Sampler in the variance-exploding scale, on falling noise levels."""
    if sampling.sampler in DIVIDES_BY_STEPS:
        sigmas = [*(level for level, following in pairwise(sigmas) if level != following), sigmas[-1]]
    eta, factor = _eta(sampling), sampling.s_noise
    churn = Churn(sampling.s_churn, sampling.s_tmin, sampling.s_tmax or inf, factor)
    steps, pairs = len(sigmas) - 1, list(pairwise(sigmas))
    if sampling.sampler == "Restart":
        pairs = restart.restart_steps(sigmas)
    # Samplers of second order evaluate once where they step down to no noise.
    calls = sum(2 if end > 0 else 1 for _, end in pairs)
    ancestral_calls = sum(2 if ancestral_step(*pair, eta)[0] > 0 else 1 for pair in pairwise(sigmas))
    match sampling.sampler:
        case "Euler a":
            return Solver(lambda run, x: euler.euler_ancestral(run, x, sigmas, eta), steps, steps)
        case "LMS":
            return Solver(lambda run, x: euler.lms(run, x, sigmas), steps, steps)
        case "Heun":
            return Solver(lambda run, x: euler.heun(run, x, sigmas, churn), calls, steps)
        case "DPM2":
            return Solver(lambda run, x: euler.dpm2(run, x, sigmas, churn), calls, steps)
        case "DPM2 a":
            return Solver(lambda run, x: euler.dpm2_ancestral(run, x, sigmas, eta, factor), ancestral_calls, steps)
        case "DPM++ 2M":
            return Solver(lambda run, x: dpm_multistep.dpmpp_2m(run, x, sigmas), steps, steps)
        case "DPM++ 2M SDE" | "DPM++ 2M SDE Heun":
            is_heun = sampling.sampler == "DPM++ 2M SDE Heun"
            return Solver(
                lambda run, x: dpm_multistep.dpmpp_2m_sde(run, x, sigmas, eta, factor, is_heun=is_heun), steps, steps
            )
        case "DPM++ 3M SDE":
            return Solver(lambda run, x: dpm_multistep.dpmpp_3m_sde(run, x, sigmas, eta, factor), steps, steps)
        case "DPM++ 2S a":
            return Solver(
                lambda run, x: dpm_singlestep.dpmpp_2s_ancestral(run, x, sigmas, eta, factor), ancestral_calls, steps
            )
        case "DPM++ SDE":
            return Solver(lambda run, x: dpm_singlestep.dpmpp_sde(run, x, sigmas, eta, factor), calls, steps)
        case "Restart":
            return Solver(lambda run, x: restart.restart(run, x, pairs), calls, len(pairs))
        case "LCM":
            distilled = LcmLevels(levels)
            return Solver(lambda run, x: lcm.lcm(run, x, sigmas, distilled), steps, steps)
    return Solver(lambda run, x: euler.euler(run, x, sigmas, churn), steps, steps)


def between(sampling: Sampling, sigma_max: float, sigma_min: float, evaluations: int) -> Solver:
    """DPM fast, with that many evaluations, or DPM adaptive. Both take only the ends of a schedule."""
    eta = _eta(sampling)
    if sigma_min >= sigma_max:
        # One noise level has no step to take; A1111 fails here.
        return Solver(lambda run, x: euler.euler(run, x, [sigma_max, 0.0], Churn()), 1, 1)
    if sampling.sampler == "DPM fast":
        return Solver(
            lambda run, x: dpm_solver.dpm_fast(run, x, sigma_max, sigma_min, evaluations, eta, sampling.s_noise),
            evaluations,
            len(dpm_solver.orders_of(evaluations)),
        )
    return Solver(
        lambda run, x: dpm_solver.dpm_adaptive(run, x, sigma_max, sigma_min, eta),
        3 * dpm_solver.MOST_ADAPTIVE_STEPS,
        dpm_solver.MOST_ADAPTIVE_STEPS,
    )


def on_timesteps(sampling: Sampling, timesteps: Sequence[int], start: int, levels: NoiseLevels) -> Solver:
    """Sampler in the variance-preserving scale, on rising timesteps; the latents begin with the noise of `start`.

    Where the timesteps are too few for one step, as in A1111 they can be, the latents are denoised once.
    """
    eta, sampler = _eta(sampling), sampling.sampler
    steps = len(timesteps) if sampler == "UniPC" else len(timesteps) - 1
    if steps < 1:
        return Solver(lambda run, x: ddim.denoise_once(run, x, start, levels), 1, 1)
    if sampler == "PLMS":
        return Solver(lambda run, x: ddim.plms(run, x, timesteps, levels), steps + 1, steps)
    if sampler == "UniPC":
        # From noise alone time begins at 1, and else at the last timestep that is left.
        time = 1.0 if start == timesteps[-1] else unipc.time_of(timesteps[-1])
        return Solver(lambda run, x: unipc.unipc(run, x, steps, levels, time), steps, steps)
    is_cfg_plus_plus = sampler == "DDIM CFG++"
    return Solver(
        lambda run, x: ddim.ddim(run, x, timesteps, levels, eta, is_cfg_plus_plus=is_cfg_plus_plus), steps, steps
    )


def _eta(sampling: Sampling) -> float:
    return TRAITS[sampling.sampler].eta if sampling.eta is None else sampling.eta
