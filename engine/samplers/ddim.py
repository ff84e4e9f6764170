"""Samplers on whole timesteps: DDIM, DDIM CFG++ and PLMS. Latents are in the variance-preserving scale.

Source: A1111 1.10.1 modules/sd_samplers_timesteps.py, sd_samplers_timesteps_impl.py; Song et al., "DDIM" (2020); Liu et
al., "PNDM" (2022); Chung et al., "CFG++" (2024).
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from engine.samplers.interfaces import Run
from engine.samplers.noise_levels import TIMESTEPS, NoiseLevels
from engine.samplers.variance_preserving import predict

GUIDANCE_OF_CFG_PLUS_PLUS = 1.0 / 12.5
ADAMS_BASHFORTH = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))
"""Weights of the last predictions, the latest first, by their number."""


def timesteps_for(steps: int) -> list[int]:
    """Rising timesteps for a number of steps: more of them where it does not divide 1000."""
    return [min(start + 1, TIMESTEPS - 1) for start in range(0, TIMESTEPS, max(TIMESTEPS // steps, 1))]


def ddim(
    run: Run, x: mx.array, timesteps: Sequence[int], levels: NoiseLevels, eta: float, *, is_cfg_plus_plus: bool = False
) -> mx.array:
    """DDIM from the last timestep down to the first, which is not evaluated.

    CFG++ goes on in the direction of the negative prompt's noise; its guidance is that of others divided by 12.5.
    """
    for step, (timestep, earlier) in enumerate(_downwards(timesteps)):
        alpha, alpha_next = (float(levels.alphas_cumprod[at]) for at in (timestep, earlier))
        found = predict(run.denoise, x, alpha, timestep, with_unconditional=is_cfg_plus_plus)
        direction = found.noise if found.unconditional_noise is None else found.unconditional_noise
        fresh = eta * ((1.0 - alpha_next) / (1.0 - alpha) * (1.0 - alpha / alpha_next)) ** 0.5
        x = found.denoised * alpha_next**0.5 + direction * max(1.0 - alpha_next - fresh**2, 0.0) ** 0.5
        if fresh:
            x = x + run.noise.next() * fresh
        run.finish_step(step, x, found.denoised)
    return x


def plms(run: Run, x: mx.array, timesteps: Sequence[int], levels: NoiseLevels) -> mx.array:
    """PLMS: DDIM with a linear combination of the last four predictions; the first step evaluates twice."""
    noises: list[mx.array] = []
    for step, (timestep, earlier) in enumerate(_downwards(timesteps)):
        alpha, alpha_next = (float(levels.alphas_cumprod[at]) for at in (timestep, earlier))
        noise = predict(run.denoise, x, alpha, timestep).noise
        noises = [noise, *noises][: len(ADAMS_BASHFORTH)]
        if step == 0:
            there, _ = _ddim_step(x, noise, alpha, alpha_next)
            combined = (noise + predict(run.denoise, there, alpha_next, earlier).noise) * 0.5
        else:
            weights = ADAMS_BASHFORTH[len(noises) - 1]
            combined = sum((one * weight for one, weight in zip(noises, weights, strict=True)), mx.zeros_like(x))
        x, denoised = _ddim_step(x, combined, alpha, alpha_next)
        run.finish_step(step, x, denoised)
    return x


def denoise_once(run: Run, x: mx.array, timestep: int, levels: NoiseLevels) -> mx.array:
    """The denoised image of latents, where a schedule is too short for a step: A1111 returns their noise."""
    denoised = predict(run.denoise, x, float(levels.alphas_cumprod[timestep]), timestep).denoised
    run.finish_step(0, denoised, denoised)
    return denoised


def _downwards(timesteps: Sequence[int]) -> list[tuple[int, int]]:
    """Each timestep but the first with the one before it, from the last on."""
    return list(zip(timesteps[:0:-1], timesteps[-2::-1], strict=True))


def _ddim_step(x: mx.array, noise: mx.array, alpha: float, alpha_next: float) -> tuple[mx.array, mx.array]:
    """Latents of the next timestep, and the denoised image."""
    denoised = (x - noise * (1.0 - alpha) ** 0.5) * alpha**-0.5
    return denoised * alpha_next**0.5 + noise * (1.0 - alpha_next) ** 0.5, denoised
