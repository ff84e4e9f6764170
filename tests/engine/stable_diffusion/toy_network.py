"""The formula that stands for a network in the golden latents, and noise for one image, as samplers need them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from engine.noise import BrownianNoise, ImageNoise
from engine.protocol.sampling import Sampling
from engine.samplers.noise_levels import NoiseLevels
from engine.samplers.samplers import SamplingRun, plan_sampling

GOLDEN = Path(__file__).parents[2] / "golden" / "stable_diffusion"
SHAPE = (4, 4, 5)
SEED = 4294967291
GUIDANCE = 1.5

CASES: dict[str, list[dict[str, Any]]] = json.loads((GOLDEN / "samplers.json").read_text(encoding="utf-8"))


def golden_arrays() -> dict[str, Any]:
    """All golden arrays of samplers and schedules."""
    with np.load(GOLDEN / "samplers.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def levels_of(sampling: Sampling) -> NoiseLevels:
    return NoiseLevels(zero_terminal_snr=sampling.zero_terminal_snr, downcast=sampling.downcast_alphas_cumprod)


def predict(x: mx.array, timestep: float, *, is_conditional: bool) -> mx.array:
    """As `predict` of tools/golden_stable_diffusion/samplers.py."""
    time = timestep / 1000.0
    if is_conditional:
        return x * (0.3 + 0.65 * time) + 0.2 * mx.sin(2.0 * x)
    return x * (0.35 + 0.6 * time) - 0.1 * mx.cos(x)


def init_latents() -> mx.array:
    """Latents of the input image: one formula."""
    return mx.sin(mx.arange(float(np.prod(SHAPE)))).reshape(SHAPE)


class ToyDenoiser:
    """Guided denoiser on the formula; it notes its calls."""

    def __init__(self, levels: NoiseLevels, run: SamplingRun, case: dict[str, Any] | None = None) -> None:
        self.levels, self.predicts_velocity = levels, (case or {}).get("prediction") == "v"
        self.guidance = GUIDANCE * run.guidance_factor
        self.blends_before = run.blends_before
        self.kept = (mx.arange(int(np.prod(SHAPE))).reshape(SHAPE) % 3 == 0) if (case or {}).get("is_masked") else None
        self.sigmas: list[float] = []
        self.unconditional = mx.zeros(SHAPE)

    def __call__(self, x: mx.array, sigma: float, timestep: float | None = None) -> mx.array:
        self.sigmas.append(sigma)
        timestep = self.levels.timestep(sigma) if timestep is None else timestep
        scaled = x / (sigma**2 + 1.0) ** 0.5
        negative, positive = (predict(scaled, timestep, is_conditional=conditional) for conditional in (False, True))
        self.unconditional = self._denoised(x, sigma, negative)
        denoised = self._denoised(x, sigma, negative + self.guidance * (positive - negative))
        return denoised if self.blends_before else self._blend(denoised)

    def before(self, x: mx.array) -> mx.array:
        assert self.blends_before
        return self._blend(x)

    def _blend(self, latents: mx.array) -> mx.array:
        return latents if self.kept is None else mx.where(self.kept, init_latents(), latents)

    def _denoised(self, x: mx.array, sigma: float, output: mx.array) -> mx.array:
        if self.predicts_velocity:
            return x / (sigma**2 + 1.0) - output * (sigma / (sigma**2 + 1.0) ** 0.5)
        return x - output * sigma


class Noise:
    """Noise of one image, in PyTorch's layout."""

    def __init__(self, sampling: Sampling, run: SamplingRun) -> None:
        source = sampling.random_source
        self.image = ImageNoise(source, SEED, SHAPE, eta_noise_seed_delta=sampling.eta_noise_seed_delta)
        self.motion = BrownianNoise(SEED, *run.brownian_range, SHAPE, source) if run.brownian_range else None
        self.drawn = 0

    def next(self) -> mx.array:
        self.drawn += 1
        return mx.array(self.image.next())

    def brownian(self, sigma: float, sigma_next: float) -> mx.array:
        assert self.motion
        return mx.array(self.motion(sigma, sigma_next))


def plan(case: dict[str, Any]) -> tuple[Sampling, SamplingRun]:
    """The plan of a golden case."""
    sampling = Sampling.model_validate(case["sampling"])
    return sampling, plan_sampling(
        sampling,
        case["steps"],
        levels_of(sampling),
        is_sdxl=case.get("is_sdxl", False),
        denoise=case.get("denoise"),
        second_pass=case.get("second_pass", False),
    )


def sample(case: dict[str, Any]) -> tuple[Any, ToyDenoiser, SamplingRun, list[int]]:
    """Latents of a golden case, what evaluated them, its plan, and the steps that it reported."""
    sampling, run = plan(case)
    denoiser = ToyDenoiser(levels_of(sampling), run, case)
    noise, steps = Noise(sampling, run), list[int]()
    x = run.start(noise.next(), None if case.get("denoise") is None else init_latents())
    latents = run.run(denoiser, x, noise, lambda step, denoised: steps.append(step))
    return np.array(latents), denoiser, run, steps
