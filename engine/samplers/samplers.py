"""From the plan of a sampling to a run of its sampler, with everything decided that does not need the network.

Source: A1111 1.10.1 modules/sd_samplers_kdiffusion.py, sd_samplers_timesteps.py, sd_samplers_common.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import mlx.core as mx

from engine.protocol.sampling import Sampling
from engine.samplers import ddim, dpm_multistep, dpm_singlestep, dpm_solver, euler, lcm, restart, unipc
from engine.samplers.ancestral import ancestral_step
from engine.samplers.img2img import Part, part_to_run
from engine.samplers.interfaces import Churn, Denoiser, NoiseSupply, OnStep, Run
from engine.samplers.noise_levels import LcmLevels, NoiseLevels
from engine.samplers.schedules import sigmas_for
from engine.samplers.traits import TRAITS

Solver = Callable[[Run, mx.array], mx.array]


@dataclass(frozen=True, slots=True)
class SamplingRun:
    """One pass of sampling that is ready to run."""

    calls: int
    """Evaluations of the denoiser; for DPM adaptive the most that it makes."""
    steps: int
    """Steps that are reported; for DPM adaptive the most that it takes."""
    steps_per_prompt: int
    """Steps over which A1111 spreads prompt editing: those asked for, doubled for samplers of second order."""
    counted_calls: int
    """Evaluations as A1111 counts them in advance, for shares of the steps such as `skip_early_cond`."""
    blends_before: bool
    """Whether masks are blended before each evaluation, by `Denoiser.before`, instead of into its result."""
    guidance_factor: float
    """Factor of the plan's guidance: 1, or 1/12.5 for DDIM CFG++."""
    brownian_range: tuple[float, float] | None
    """Lowest and highest noise level of the Brownian motion; None for samplers without one."""
    noise_factor: float
    """Factor of the first noise in the latents at the start."""
    latents_factor: float | None
    """Factor of the input image's latents at the start; None without an input image."""
    _solver: Solver = field(repr=False)

    def start(self, noise: mx.array, latents: mx.array | None = None) -> mx.array:
        """Latents with which the run begins: noise, or the input image's latents with noise.

        Raises: ValueError where latents are given for a run without an input image, or are missing.
        """
        if (latents is None) != (self.latents_factor is None):
            raise ValueError("latents are needed exactly where there is a denoise")
        x = noise * self.noise_factor
        return x if latents is None or self.latents_factor is None else latents * self.latents_factor + x

    def run(self, denoise: Denoiser, x: mx.array, noise: NoiseSupply, on_step: OnStep) -> mx.array:
        """Latents that the sampler makes of those of the start."""
        return self._solver(Run(denoise, noise, on_step), x)


def plan_sampling(
    sampling: Sampling,
    steps: int,
    levels: NoiseLevels,
    *,
    is_sdxl: bool,
    denoise: float | None = None,
    fixed_steps: bool = False,
    second_pass: bool = False,
) -> SamplingRun:
    """Plan of one pass. `denoise` is None without an input image.

    `fixed_steps` runs exactly `steps` for an input image; so does the second pass of hires fix, with `second_pass`,
    which moreover knows no `initial_noise_multiplier`. A schedule for a sampler that knows none is ignored.

    Raises: ValueError where a parameter is out of range.
    """
    fixed_steps = fixed_steps or second_pass or sampling.img2img_fix_steps
    part = None if denoise is None else part_to_run(steps, denoise, fixed_steps=fixed_steps)
    if part is None and steps < 1:
        raise ValueError("steps must be at least 1")
    multiplier = 1.0 if second_pass else sampling.initial_noise_multiplier
    if TRAITS[sampling.sampler].uses_timesteps:
        return _plan_timesteps(sampling, steps, levels, part, multiplier)
    return _plan_sigmas(sampling, steps, levels, part, multiplier, is_sdxl=is_sdxl)


def _plan_sigmas(
    sampling: Sampling, steps: int, levels: NoiseLevels, part: Part | None, multiplier: float, *, is_sdxl: bool
) -> SamplingRun:
    """Plan of a sampler in the variance-exploding scale."""
    traits = TRAITS[sampling.sampler]
    whole = [float(s) for s in sigmas_for(sampling, part.steps if part else steps, levels, is_sdxl=is_sdxl)]
    sigmas = whole[part.steps - part.last - 1 :] if part else whole
    positive = [sigma for sigma in whole if sigma > 0]
    if part:
        noise_factor = multiplier * (sigmas[0] + sampling.img2img_extra_noise)
    else:
        noise_factor = (1.0 + sigmas[0] ** 2) ** 0.5 if sampling.sgm_noise_multiplier else sigmas[0]
    work = _work_on_sigmas(sampling, sigmas, levels, part, steps)
    order = 2 if traits.is_second_order else 1
    return SamplingRun(
        calls=work.calls,
        steps=work.steps,
        steps_per_prompt=order * steps,
        counted_calls=order * (part.last + 1 if part else steps),
        blends_before=False,
        guidance_factor=1.0,
        brownian_range=(min(positive), max(positive)) if traits.has_brownian_noise else None,
        noise_factor=noise_factor,
        latents_factor=1.0 if part else None,
        _solver=work.solver,
    )


def _plan_timesteps(
    sampling: Sampling, steps: int, levels: NoiseLevels, part: Part | None, multiplier: float
) -> SamplingRun:
    """Plan of a sampler on timesteps, in the variance-preserving scale."""
    timesteps = ddim.timesteps_for((part.steps if part else steps) + sampling.discard_penultimate_sigma)
    if part:
        start = min(part.last, len(timesteps) - 1)
        alpha = float(levels.alphas_cumprod[timesteps[start]])
        latents_factor: float | None = alpha**0.5
        noise_factor = multiplier * ((1.0 - alpha) ** 0.5 + sampling.img2img_extra_noise * alpha**0.5)
        work = _work_on_timesteps(sampling, timesteps[:start], timesteps[start], levels, is_img2img=True)
    else:
        latents_factor, noise_factor = None, 1.0
        work = _work_on_timesteps(sampling, timesteps, timesteps[-1], levels, is_img2img=False)
    is_cfg_plus_plus = sampling.sampler == "DDIM CFG++"
    return SamplingRun(
        calls=work.calls,
        steps=work.steps,
        steps_per_prompt=steps,
        counted_calls=part.last + 1 if part else steps,
        blends_before=True,
        guidance_factor=ddim.GUIDANCE_OF_CFG_PLUS_PLUS if is_cfg_plus_plus else 1.0,
        brownian_range=None,
        noise_factor=noise_factor,
        latents_factor=latents_factor,
        _solver=work.solver,
    )


@dataclass(frozen=True, slots=True)
class _Work:
    """A sampler with its arguments, its evaluations and steps."""

    solver: Solver
    calls: int
    steps: int


def _work_on_timesteps(
    sampling: Sampling, timesteps: Sequence[int], start: int, levels: NoiseLevels, *, is_img2img: bool
) -> _Work:
    eta = TRAITS[sampling.sampler].eta if sampling.eta is None else sampling.eta
    steps = len(timesteps) if sampling.sampler == "UniPC" else len(timesteps) - 1
    if steps < 1:
        return _Work(lambda run, x: ddim.denoise_once(run, x, start, levels), 1, 1)
    match sampling.sampler:
        case "PLMS":
            return _Work(lambda run, x: ddim.plms(run, x, timesteps, levels), steps + 1, steps)
        case "UniPC":
            time = (timesteps[-1] + 1) / 1000 if is_img2img else 1.0
            return _Work(lambda run, x: unipc.unipc(run, x, steps, levels, time), steps, steps)
    is_cfg_plus_plus = sampling.sampler == "DDIM CFG++"
    return _Work(
        lambda run, x: ddim.ddim(run, x, timesteps, levels, eta, is_cfg_plus_plus=is_cfg_plus_plus), steps, steps
    )


def _work_on_sigmas(
    sampling: Sampling, sigmas: Sequence[float], levels: NoiseLevels, part: Part | None, asked_steps: int
) -> _Work:
    steps = len(sigmas) - 1
    eta = TRAITS[sampling.sampler].eta if sampling.eta is None else sampling.eta
    factor = sampling.s_noise
    no_limit = float("inf")
    churn = Churn(sampling.s_churn, sampling.s_tmin, sampling.s_tmax or no_limit, factor)
    ends = list(pairwise(sigmas))
    twice_above_zero = sum(2 if end > 0 else 1 for _, end in ends)
    twice_ancestral = sum(2 if ancestral_step(*pair, eta)[0] > 0 else 1 for pair in ends)
    match sampling.sampler:
        case "Euler a":
            return _Work(lambda run, x: euler.euler_ancestral(run, x, sigmas, eta), steps, steps)
        case "LMS":
            return _Work(lambda run, x: euler.lms(run, x, sigmas), steps, steps)
        case "Heun":
            return _Work(lambda run, x: euler.heun(run, x, sigmas, churn), twice_above_zero, steps)
        case "DPM2":
            return _Work(lambda run, x: euler.dpm2(run, x, sigmas, churn), twice_above_zero, steps)
        case "DPM2 a":
            return _Work(lambda run, x: euler.dpm2_ancestral(run, x, sigmas, eta, factor), twice_ancestral, steps)
        case "DPM++ 2M":
            return _Work(lambda run, x: dpm_multistep.dpmpp_2m(run, x, sigmas), steps, steps)
        case "DPM++ 2M SDE" | "DPM++ 2M SDE Heun":
            heun = sampling.sampler == "DPM++ 2M SDE Heun"
            return _Work(
                lambda run, x: dpm_multistep.dpmpp_2m_sde(run, x, sigmas, eta, factor, is_heun=heun), steps, steps
            )
        case "DPM++ 3M SDE":
            return _Work(lambda run, x: dpm_multistep.dpmpp_3m_sde(run, x, sigmas, eta, factor), steps, steps)
        case "DPM++ 2S a":
            return _Work(
                lambda run, x: dpm_singlestep.dpmpp_2s_ancestral(run, x, sigmas, eta, factor), twice_ancestral, steps
            )
        case "DPM++ SDE":
            return _Work(lambda run, x: dpm_singlestep.dpmpp_sde(run, x, sigmas, eta, factor), twice_above_zero, steps)
        case "Restart":
            pairs = restart.restart_steps(sigmas)
            calls = sum(2 if end > 0 else 1 for _, end in pairs)
            return _Work(lambda run, x: restart.restart(run, x, pairs), calls, len(pairs))
        case "LCM":
            distilled = LcmLevels(levels)
            return _Work(lambda run, x: lcm.lcm(run, x, sigmas, distilled), steps, steps)
        case "DPM fast" | "DPM adaptive":
            return _work_between(sampling, sigmas, levels, part, steps if part else asked_steps, eta)
    return _Work(lambda run, x: euler.euler(run, x, sigmas, churn), steps, steps)


def _work_between(
    sampling: Sampling, sigmas: Sequence[float], levels: NoiseLevels, part: Part | None, evaluations: int, eta: float
) -> _Work:
    """Samplers that take only the ends of a schedule, and without an input image those of the model."""
    low, high = (sigmas[-2], sigmas[0]) if part else (float(levels.sigmas[0]), float(levels.sigmas[-1]))
    if low >= high:
        # One noise level has no step to take; A1111 fails here.
        return _Work(lambda run, x: euler.euler(run, x, [high, 0.0], Churn()), 1, 1)
    if sampling.sampler == "DPM fast":
        return _Work(
            lambda run, x: dpm_solver.dpm_fast(run, x, high, low, evaluations, eta, sampling.s_noise),
            evaluations,
            len(dpm_solver.orders_of(evaluations)),
        )
    return _Work(
        lambda run, x: dpm_solver.dpm_adaptive(run, x, high, low, eta),
        3 * dpm_solver.MOST_ADAPTIVE_STEPS,
        dpm_solver.MOST_ADAPTIVE_STEPS,
    )
