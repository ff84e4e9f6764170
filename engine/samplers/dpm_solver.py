"""DPM-Solver in the logarithm of the noise level: DPM fast with a number of evaluations, DPM adaptive with a tolerance.

Time is -ln(sigma), and `h` a step of it. Both take only the ends of a schedule. As A1111 runs them they add fresh noise
after each step (`eta` 1).

Source: k-diffusion 0.1.1 sampling.py `DPMSolver`; Lu et al., "DPM-Solver" (2022).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import atan, exp, expm1, isfinite, log

import mlx.core as mx

from engine.samplers.ancestral import ancestral_step
from engine.samplers.interfaces import Run

RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE = 0.05, 0.0078
FIRST_STEP = 0.05
THIRD = 1.0 / 3.0
ACCEPTED_FACTOR = 0.81
"""Least factor of the step size by which a step counts as accurate enough."""
END_TOLERANCE = 1e-5
MOST_ADAPTIVE_STEPS = 300
"""Bound on the steps of DPM adaptive, rejected ones included; ordinary images take 20 to 60."""


def orders_of(evaluations: int) -> list[int]:
    """Orders of the steps of DPM fast, with that many evaluations in all."""
    whole, rest = divmod(evaluations, 3)
    return [3] * (whole - 1) + [2, 1] if rest == 0 else [3] * whole + [rest]


def dpm_fast(
    run: Run,
    x: mx.array,
    sigma_max: float,
    sigma_min: float,
    evaluations: int,
    eta: float,
    noise_factor: float,
) -> mx.array:
    """Steps of third order and two of lower order, evenly spaced."""
    start, end = -log(sigma_max), -log(sigma_min)
    orders = orders_of(evaluations)
    for step, order in enumerate(orders):
        time, time_next = (start + (end - start) * (at / len(orders)) for at in (step, step + 1))
        target, up = _ancestral(time, time_next, end, eta)
        solver = _Step(run, x, time, target)
        x = (solver.first, solver.second, solver.third)[order - 1]()
        x = x + run.noise.next() * (noise_factor * up)
        run.finish_step(step, x, solver.denoised)
    return x


def dpm_adaptive(run: Run, x: mx.array, sigma_max: float, sigma_min: float, eta: float) -> mx.array:
    """Steps of third order whose size follows from their difference to steps of second order.

    Latents that are not finite are returned at once.

    Raises: ArithmeticError where the steps come to no end.
    """
    time, end = -log(sigma_max), -log(sigma_min)
    size = _StepSize(FIRST_STEP, 1.5 if eta else 3.0)
    earlier = x
    for step in range(MOST_ADAPTIVE_STEPS):
        if time >= end - END_TOLERANCE:
            return x
        time_next = min(end, time + size.h)
        target, up = _ancestral(time, time_next, end, eta)
        solver = _Step(run, x, time, target)
        low, high = solver.second(THIRD), solver.third()
        tolerance = mx.maximum(ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE * mx.maximum(mx.abs(low), mx.abs(earlier)))
        error = float(mx.sqrt(mx.mean(mx.square((low - high) / tolerance))))
        if not isfinite(error):
            return high
        if size.accepts(error):
            earlier, time = low, time_next
            x = high + run.noise.next() * up
        run.finish_step(step, x, solver.denoised)
    raise ArithmeticError(f"DPM adaptive has not ended after {MOST_ADAPTIVE_STEPS} steps")


def _ancestral(time: float, time_next: float, end: float, eta: float) -> tuple[float, float]:
    """Time to step to, at most the end, and the noise to add then."""
    if not eta:
        return time_next, 0.0
    down, _ = ancestral_step(exp(-time), exp(-time_next), eta)
    target = min(end, -log(down)) if down > 0 else end
    return target, max(exp(-2.0 * time_next) - exp(-2.0 * target), 0.0) ** 0.5


@dataclass(slots=True)
class _StepSize:
    """Controller of the step size: an integral controller of the inverse of the error."""

    h: float
    order: float

    def accepts(self, error: float) -> bool:
        """Whether a step with that error counts. The next step's size follows either way."""
        factor = (1.0 / (error + 1e-8)) ** (1.0 / self.order)
        factor = 1.0 + atan(factor - 1.0)
        self.h *= factor
        return factor >= ACCEPTED_FACTOR


@dataclass(slots=True)
class _Step:
    """One step of first, second or third order; what was evaluated is used again."""

    run: Run
    x: mx.array
    time: float
    time_next: float
    denoised: mx.array = field(init=False)
    _noise: mx.array = field(init=False)
    _noise_ahead: dict[float, mx.array] = field(default_factory=dict)
    """Noise where a straight line leads, by the share of the step."""

    def __post_init__(self) -> None:
        sigma = exp(-self.time)
        self.denoised = self.run.denoise(self.x, sigma)
        self._noise = (self.x - self.denoised) / sigma

    @property
    def h(self) -> float:
        return self.time_next - self.time

    def first(self) -> mx.array:
        return self._straight(1.0)

    def second(self, share: float = 0.5) -> mx.array:
        change = self._ahead(share) - self._noise
        return self._straight(1.0) - change * (exp(-self.time_next) / (2.0 * share) * expm1(self.h))

    def third(self) -> mx.array:
        part = 2.0 / 3.0
        bend = exp(-self._time_at(part)) * (part / THIRD) * self._curvature(part)
        there = self._straight(part) - (self._ahead(THIRD) - self._noise) * bend
        change = self._noise_at(there, part) - self._noise
        return self._straight(1.0) - change * (exp(-self.time_next) / part * self._curvature(1.0))

    def _ahead(self, share: float) -> mx.array:
        if share not in self._noise_ahead:
            self._noise_ahead[share] = self._noise_at(self._straight(share), share)
        return self._noise_ahead[share]

    def _curvature(self, share: float) -> float:
        h = share * self.h
        return expm1(h) / h - 1.0 if h else 0.0

    def _time_at(self, share: float) -> float:
        return self.time + share * self.h

    def _straight(self, share: float) -> mx.array:
        """Latents at a share of the step if the noise stays what it is."""
        return self.x - self._noise * (exp(-self._time_at(share)) * expm1(share * self.h))

    def _noise_at(self, x: mx.array, share: float) -> mx.array:
        sigma = exp(-self._time_at(share))
        return (x - self.run.denoise(x, sigma)) / sigma
