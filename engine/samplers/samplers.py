"""From the plan of a sampling to a run of its sampler, with everything decided that does not need the network.

Source: A1111 1.10.1 modules/sd_samplers_kdiffusion.py, sd_samplers_timesteps.py, sd_samplers_common.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt

import mlx.core as mx

from engine.protocol.sampling import Sampling
from engine.samplers import ddim, solvers
from engine.samplers.img2img import Part, part_to_run
from engine.samplers.interfaces import Denoiser, NoiseSupply, OnStep, Run
from engine.samplers.noise_levels import NoiseLevels
from engine.samplers.schedules import sigmas_for
from engine.samplers.solvers import Solver
from engine.samplers.traits import TRAITS


@dataclass(frozen=True, slots=True)
class SamplingRun:
    """One pass of sampling that is ready to run."""

    steps_per_prompt: int
    """Steps over which A1111 spreads prompt editing: those asked for, doubled for samplers of second order."""
    counted_calls: int
    """Evaluations as A1111 counts them in advance, for shares of the steps such as `skip_early_cond`."""
    noise_factor: float
    """Factor of the first noise in the latents at the start."""
    latents_factor: float | None
    """Factor of the input image's latents at the start; None without an input image."""
    blends_before: bool
    """Whether masks are blended before each evaluation, by `Denoiser.before`, instead of into its result."""
    guidance_factor: float
    """Factor of the plan's guidance: 1, or 1/12.5 for DDIM CFG++."""
    brownian_range: tuple[float, float] | None
    """Lowest and highest noise level of the Brownian motion; None for samplers without one."""
    _solver: Solver = field(repr=False)

    @property
    def calls(self) -> int:
        """Evaluations of the denoiser; for DPM adaptive the most that it makes."""
        return self._solver.calls

    @property
    def steps(self) -> int:
        """Steps that are reported; for DPM adaptive the most that it takes."""
        return self._solver.steps

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
        return self._solver.solve(Run(denoise, noise, on_step), x)


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
    which moreover knows no `initial_noise_multiplier`. With a denoise of 0 that keeps the latents. A schedule for a
    sampler that knows none is ignored.

    Raises: ValueError where a parameter is out of range.
    """
    if steps < 1:
        raise ValueError("steps must be at least 1")
    order = 2 if TRAITS[sampling.sampler].is_second_order else 1
    fixed_steps = fixed_steps or second_pass or sampling.img2img_fix_steps
    if fixed_steps and denoise == 0:
        return _run(sampling, order * steps, 0, solvers.keeping(), 0.0, 1.0)
    part = None if denoise is None else part_to_run(steps, denoise, fixed_steps=fixed_steps)
    multiplier = 1.0 if second_pass else sampling.initial_noise_multiplier
    counted = order * (part.last + 1 if part else steps)
    if TRAITS[sampling.sampler].uses_timesteps:
        return _plan_on_timesteps(sampling, steps, counted, levels, part, multiplier)
    whole = [float(sigma) for sigma in sigmas_for(sampling, part.steps if part else steps, levels, is_sdxl=is_sdxl)]
    sigmas = _levels_to_run(whole, part) if part else whole
    if sampling.sampler in ("DPM fast", "DPM adaptive"):
        # Without an input image they run between the model's levels, whatever the schedule.
        ends = (sigmas[0], sigmas[-2]) if part else (float(levels.sigmas[-1]), float(levels.sigmas[0]))
        solver = solvers.between(sampling, *ends, len(sigmas) - 1 if part else steps)
    else:
        solver = solvers.on_sigmas(sampling, sigmas, levels)
    if part:
        noise_factor = multiplier * (sigmas[0] + sampling.img2img_extra_noise)
    else:
        noise_factor = sqrt(1.0 + sigmas[0] ** 2) if sampling.sgm_noise_multiplier else sigmas[0]
    positive = [sigma for sigma in whole if sigma > 0]
    motion = (min(positive), max(positive)) if TRAITS[sampling.sampler].has_brownian_noise else None
    return _run(sampling, order * steps, counted, solver, noise_factor, 1.0 if part else None, motion)


def _levels_to_run(whole: Sequence[float], part: Part) -> Sequence[float]:
    """End of a schedule; of one with fewer levels than steps were asked for, as many as can be."""
    start = part.steps - part.last - 1
    return whole[min(start, max(len(whole) - part.last - 2, 0)) :]


def _plan_on_timesteps(
    sampling: Sampling, steps: int, counted: int, levels: NoiseLevels, part: Part | None, multiplier: float
) -> SamplingRun:
    timesteps = ddim.timesteps_for((part.steps if part else steps) + sampling.discard_penultimate_sigma)
    if part is None:
        solver = solvers.on_timesteps(sampling, timesteps, timesteps[-1], levels)
        return _run(sampling, steps, counted, solver, 1.0, None)
    place = min(part.last, len(timesteps) - 1)
    solver = solvers.on_timesteps(sampling, timesteps[:place], timesteps[place], levels)
    alpha = float(levels.alphas_cumprod[timesteps[place]])
    noise_factor = multiplier * (sqrt(1.0 - alpha) + sampling.img2img_extra_noise * sqrt(alpha))
    return _run(sampling, steps, counted, solver, noise_factor, sqrt(alpha))


def _run(
    sampling: Sampling,
    steps_per_prompt: int,
    counted_calls: int,
    solver: Solver,
    noise_factor: float,
    latents_factor: float | None,
    brownian_range: tuple[float, float] | None = None,
) -> SamplingRun:
    """A run with what follows from the sampler alone."""
    is_cfg_plus_plus = sampling.sampler == "DDIM CFG++"
    return SamplingRun(
        steps_per_prompt,
        counted_calls,
        noise_factor,
        latents_factor,
        blends_before=TRAITS[sampling.sampler].uses_timesteps,
        guidance_factor=ddim.GUIDANCE_OF_CFG_PLUS_PLUS if is_cfg_plus_plus else 1.0,
        brownian_range=brownian_range,
        _solver=solver,
    )
