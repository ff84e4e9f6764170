"""The samplers with which the training looks at its progress."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch

from .geometry import GRID, LATENT_CHANNELS
from .noise_levels import SIGMAS

Denoise = Callable[[torch.Tensor, float], torch.Tensor]


def timestep_of(sigma: float) -> float:
    """Fractional timestep of a noise level, interpolated in its logarithm."""
    return float(np.interp(np.log(sigma), np.log(SIGMAS), np.arange(1000)))


def even_sigmas(steps: int) -> list[float]:
    """Noise levels at even timesteps from 999 to 0, and 0."""
    return [*np.exp(np.interp(np.linspace(999, 0, steps), np.arange(1000), np.log(SIGMAS))).tolist(), 0.0]


def ddim_sigmas(steps: int) -> list[float]:
    """Noise levels of DDIM: timesteps 1, 1 + 1000/n, ... from the greatest down; 0 where the last one is."""
    timesteps = np.clip(np.arange(0, 1000, 1000 // steps) + 1, 0, 999)
    return [*SIGMAS[timesteps[:0:-1]].tolist(), 0.0]


def karras_sigmas(steps: int) -> list[float]:
    """Karras' noise levels with rho 7, and 0."""
    ends = SIGMAS[-1] ** (1 / 7), SIGMAS[0] ** (1 / 7)
    return [*((ends[0] + np.linspace(0, 1, steps) * (ends[1] - ends[0])) ** 7).tolist(), 0.0]


def euler(denoise: Denoise, x: torch.Tensor, sigmas: list[float], noise: Callable[[], torch.Tensor]) -> torch.Tensor:
    for sigma, following in pairwise(sigmas):
        x = x + (x - denoise(x, sigma)) / sigma * (following - sigma)
    return x


def euler_ancestral(
    denoise: Denoise, x: torch.Tensor, sigmas: list[float], noise: Callable[[], torch.Tensor]
) -> torch.Tensor:
    for sigma, following in pairwise(sigmas):
        up = min(following, (following**2 * (sigma**2 - following**2) / sigma**2) ** 0.5)
        down = (following**2 - up**2) ** 0.5
        x = x + (x - denoise(x, sigma)) / sigma * (down - sigma)
        x = x + noise() * up if following else x
    return x


def dpmpp_2m(denoise: Denoise, x: torch.Tensor, sigmas: list[float], noise: Callable[[], torch.Tensor]) -> torch.Tensor:
    """DPM-Solver++ of second order with the two last evaluations."""
    before: torch.Tensor | None = None
    for i, (sigma, following) in enumerate(pairwise(sigmas)):
        clean = denoise(x, sigma)
        if following == 0:
            return clean
        step = np.log(sigma / following)
        direction = clean
        if before is not None:
            ratio = np.log(sigmas[i - 1] / sigma) / step
            direction = (1 + 1 / (2 * ratio)) * clean - before / (2 * ratio)
        x = following / sigma * x - np.expm1(-step) * direction
        before = clean
    return x


class Network(Protocol):
    """What draws: a text encoder and a U-Net."""

    def context(self, texts: list[str], clip_skip: int = 1) -> torch.Tensor: ...

    def noise(self, scaled: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor) -> torch.Tensor: ...


SAMPLERS = {
    "Euler": (euler, even_sigmas),
    "Euler a": (euler_ancestral, even_sigmas),
    "DPM++ 2M Karras": (dpmpp_2m, karras_sigmas),
    "DDIM": (euler, ddim_sigmas),
}


@torch.no_grad()
def draw(
    model: Network,
    prompts: list[str],
    seed: int,
    *,
    negatives: list[str] | None = None,
    cfg: float = 5.0,
    steps: int = 20,
    sampler: str = "Euler",
    clip_skip: int = 1,
) -> torch.Tensor:
    """Latents of prompts, N x 4 x 16 x 16."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(prompts), LATENT_CHANNELS, GRID, GRID)
    context = torch.cat([model.context(texts, clip_skip) for texts in (negatives or [""] * len(prompts), prompts)])

    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        scaled = (x / (sigma**2 + 1) ** 0.5).repeat(2, 1, 1, 1).contiguous(memory_format=torch.channels_last)
        timesteps = torch.full((len(scaled),), timestep_of(sigma))
        without, with_prompt = (x - sigma * part for part in model.noise(scaled, timesteps, context).chunk(2))
        return without + cfg * (with_prompt - without)

    method, schedule = SAMPLERS[sampler]
    sigmas = schedule(steps)
    start = torch.randn(shape, generator=generator) * sigmas[0]
    return method(denoise, start, sigmas, lambda: torch.randn(shape, generator=generator))
