"""Evaluations of the network by samplers whose latents are in the variance-preserving scale."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx

from engine.samplers.interfaces import Denoiser


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the network finds in latents."""

    noise: mx.array
    denoised: mx.array
    unconditional_noise: mx.array | None = None


def predict(
    denoise: Denoiser, x: mx.array, alpha: float, timestep: float, *, with_unconditional: bool = False
) -> Prediction:
    """Noise and denoised image of latents of which `alpha` is the share of signal in their variance."""
    signal, noise = alpha**0.5, (1.0 - alpha) ** 0.5
    blended = denoise.before(x)
    denoised = denoise(blended / signal, noise / signal, timestep)
    unconditional = (blended - denoise.unconditional * signal) / noise if with_unconditional else None
    found = (blended - denoised * signal) / noise
    # The noise is that of the blended latents, but what it is taken from is not blended.
    own = denoised if blended is x else (x - found * noise) / signal
    return Prediction(found, own, unconditional)
