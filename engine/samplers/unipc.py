"""UniPC: a predictor and a corrector of up to third order that share their evaluations; A1111's variant "bh1".

Latents are in the variance-preserving scale. Time goes from 1 to 1/1000, evenly, and is a timestep divided by 1000 plus
1/1000; alphas between timesteps are interpolated in their logarithm.

Source: A1111 1.10.1 modules/models/diffusion/uni_pc/uni_pc.py; Zhao et al., "UniPC" (2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, expm1, log, sqrt

import mlx.core as mx
import numpy as np

from engine.samplers.interfaces import Run
from engine.samplers.noise_levels import TIMESTEPS, NoiseLevels
from engine.samplers.variance_preserving import predict

MOST_ORDER = 3


@dataclass(frozen=True, slots=True)
class _Point:
    """A time, and the logarithm of the root of its alpha."""

    time: float
    log_signal: float

    @property
    def alpha(self) -> float:
        return exp(2.0 * self.log_signal)

    @property
    def signal(self) -> float:
        return exp(self.log_signal)

    @property
    def noise(self) -> float:
        return sqrt(-expm1(2.0 * self.log_signal))

    @property
    def half_log_snr(self) -> float:
        return self.log_signal - log(self.noise)

    @property
    def timestep(self) -> float:
        return (self.time - 1.0 / TIMESTEPS) * 1000.0


def time_of(timestep: int) -> float:
    """Time of a timestep."""
    return (timestep + 1) / TIMESTEPS


def unipc(run: Run, x: mx.array, steps: int, levels: NoiseLevels, start_time: float = 1.0) -> mx.array:
    """UniPC with `steps` evaluations; its order falls to 1 at the end. A1111 refuses fewer than three steps."""
    points = _points(steps, levels, start_time)
    order = min(MOST_ORDER, steps)
    denoised = predict(run.denoise, x, points[0].alpha, points[0].timestep).denoised
    known = [(points[0], denoised)]
    for step in range(1, steps + 1):
        at = points[step]
        now = min(order, step, steps + 1 - step)
        base, predicted, weights = _predict_step(x, known[:now], at)
        if step == steps:
            x = predicted
        else:
            denoised = predict(run.denoise, predicted, at.alpha, at.timestep).denoised
            x = _correct_step(base, weights, known[:now], at, denoised)
            known = [(at, denoised), *known][:order]
        run.finish_step(step - 1, x, denoised)
    return x


def _points(steps: int, levels: NoiseLevels, start_time: float) -> list[_Point]:
    times = np.linspace(start_time, 1.0 / TIMESTEPS, steps + 1)
    table = 0.5 * np.log(levels.alphas_cumprod.astype(np.float64))
    logarithms = np.interp(times, np.arange(1, TIMESTEPS + 1) / TIMESTEPS, table)
    return [_Point(float(time), float(value)) for time, value in zip(times, logarithms, strict=True)]


Known = Sequence[tuple[_Point, mx.array]]
"""Points with their denoised images, the latest first."""


@dataclass(frozen=True, slots=True)
class _Weights:
    """A step of h in the half logarithm of the signal-to-noise ratio, and what its system of equations is made of."""

    h: float
    ratios: tuple[float, ...]
    """Places of the known points but the latest, and of the step's end, in units of h."""

    def corrector(self) -> list[float]:
        """Weights of the known differences, and of that to the end."""
        return [0.5] if len(self.ratios) == 1 else self._solve(len(self.ratios))

    def predictor(self) -> list[float]:
        """Weights of the known differences."""
        known = len(self.ratios) - 1
        return [0.5] if known == 1 else self._solve(known)

    def _solve(self, size: int) -> list[float]:
        places = np.array(self.ratios[:size])
        powers = np.stack([places**power for power in range(size)])
        return [float(value) for value in np.linalg.solve(powers, self._moments(size))]

    def _moments(self, size: int) -> list[float]:
        negative = -self.h
        moments, factorial, phi = [], 1.0, expm1(negative) / negative - 1.0
        for order in range(1, size + 1):
            moments.append(phi * factorial / negative)
            factorial *= order + 1.0
            phi = phi / negative - 1.0 / factorial
        return moments


def _predict_step(x: mx.array, known: Known, at: _Point) -> tuple[mx.array, mx.array, _Weights]:
    """Latents of first order at a point, those of the predictor, and the weights."""
    latest, denoised = known[0]
    h = at.half_log_snr - latest.half_log_snr
    ratios = [(point.half_log_snr - latest.half_log_snr) / h for point, _ in known[1:]]
    weights = _Weights(h, (*ratios, 1.0))
    base = x * (at.noise / latest.noise) - denoised * (at.signal * expm1(-h))
    predicted = base
    if ratios:
        predicted = base + _combined(weights.predictor(), weights, known) * (at.signal * h)
    return base, predicted, weights


def _correct_step(base: mx.array, weights: _Weights, known: Known, at: _Point, denoised: mx.array) -> mx.array:
    """Latents at a point once its denoised image is known."""
    *shares, last = weights.corrector()
    total = (denoised - known[0][1]) * last
    if shares:
        total = total + _combined(shares, weights, known)
    return base + total * (at.signal * weights.h)


def _combined(shares: Sequence[float], weights: _Weights, known: Known) -> mx.array:
    latest = known[0][1]
    terms = [
        (image - latest) * (share / ratio)
        for share, ratio, (_, image) in zip(shares, weights.ratios[: len(shares)], known[1:], strict=True)
    ]
    return sum(terms[1:], terms[0])
