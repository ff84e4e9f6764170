"""What samplers need of whoever runs them: a denoiser, noise, and to be watched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx

OnStep = Callable[[int, mx.array], None]
"""Called at the end of each step with its index and its denoised image; what it raises ends the run."""


class Denoiser(Protocol):
    """The network with guidance."""

    @property
    def unconditional(self) -> mx.array:
        """Denoised image of the last call by the negative prompt alone; only DDIM CFG++ asks for it."""
        ...

    def __call__(self, x: mx.array, sigma: float, timestep: float | None = None) -> mx.array:
        """Denoised image of latents with noise `sigma`, in the variance-exploding scale.

        `timestep` is what the network gets; None: the timestep of `sigma`. Masks are blended into the result, except
        for samplers that blend before.
        """
        ...

    def before(self, x: mx.array) -> mx.array:
        """Latents with the input image where the mask keeps it; `x` itself without a mask.

        Samplers with `blends_before` call it with latents in the variance-preserving scale before each evaluation. The
        kept part is the input image without noise and unscaled, as A1111 has it.
        """
        ...


class NoiseSupply(Protocol):
    """Noise in the shape and layout of the latents."""

    def next(self) -> mx.array:
        """The image's next noise."""
        ...

    def brownian(self, sigma: float, sigma_next: float) -> mx.array:
        """Noise of the Brownian motion between two noise levels."""
        ...


@dataclass(frozen=True, slots=True)
class Churn:
    """Noise that is added before each step of Euler, Heun and DPM2 (Karras et al. 2022, algorithm 2)."""

    amount: float = 0.0
    sigma_min: float = 0.0
    sigma_max: float = float("inf")
    noise: float = 1.0
    """Factor of all noise that a sampler adds."""

    def raise_level(self, sigma: float, steps: int) -> float:
        """Noise level to which a step first raises its latents."""
        gamma = min(self.amount / steps, 2.0**0.5 - 1.0) if self.sigma_min <= sigma <= self.sigma_max else 0.0
        return sigma * (1.0 + gamma)


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a sampler."""

    denoise: Denoiser
    noise: NoiseSupply
    on_step: OnStep

    def finish_step(self, step: int, x: mx.array, denoised: mx.array) -> None:
        """Compute a step's latents, and report it."""
        mx.eval(x)
        self.on_step(step, denoised)
