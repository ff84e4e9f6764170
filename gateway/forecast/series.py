"""Series: seconds of one part as a function of size, from the newest values at each size and a line through them. Pure.

Robust: every figure is a mean of the newest values in which outliers are limited to a distance from the median, so that
one image that met a busy machine changes little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

FADE = 0.6
"""Factor by which a value's weight falls with each newer one of its size."""
FAR = 3.0
"""Spreads from the median to which an outlier is limited."""
PER_SIZE = 12
SIZES = 8
FIRST_SPREAD = 0.5
"""Relative spread of a guess before any value."""
LEAST_SPREAD = 0.03


@dataclass(frozen=True, slots=True)
class LinearFit:
    """Line: seconds = base + slope * size."""

    base: float
    slope: float

    def at(self, size: float) -> float:
        return self.base + self.slope * size


@dataclass(frozen=True, slots=True)
class Cost:
    """Expected seconds and their standard deviation."""

    seconds: float
    spread: float


@dataclass(slots=True)
class Series:
    """Values by size, newest last; sizes in the order of their newest value."""

    values: dict[float, list[float]] = field(default_factory=dict)

    def learn(self, size: float, seconds: float) -> None:
        size = round(size, 4)
        values = self.values.pop(size, [])
        self.values[size] = [*values, max(0.0, seconds)][-PER_SIZE:]
        while len(self.values) > SIZES:
            del self.values[next(iter(self.values))]

    def cost(self, size: float, guess: LinearFit) -> Cost:
        """Cost at a size: from its own values, otherwise from a line through all sizes; `guess` before any value."""
        line = self.line(guess)
        own = self.values.get(round(size, 4), [])
        mean, spread = robust(own) if own else (0.0, 0.0)
        count = len(own)
        seconds = (count * mean + line.at(size)) / (count + 1)
        if not self.values:
            return Cost(seconds, FIRST_SPREAD * seconds)
        relative = spread / mean if count >= 3 and mean else 0.5 / (1 + count) + LEAST_SPREAD
        return Cost(seconds, max(LEAST_SPREAD, relative) * seconds)

    def line(self, guess: LinearFit) -> LinearFit:
        """Line through the means of the sizes by least relative squares; for a single size the guess, scaled to it."""
        points = [(size, robust(values)[0], min(len(values), 4)) for size, values in self.values.items()]
        points = [(size, mean, weight) for size, mean, weight in points if mean > 0]
        if not points:
            return guess if not self.values else LinearFit(0.0, 0.0)
        sizes = [size for size, _, _ in points]
        if max(sizes) > 1.2 * min(sizes) and (line := _fitted(points)) is not None:
            return line
        ratios = sorted(mean / guess.at(size) for size, mean, _ in points if guess.at(size) > 0)
        ratio = ratios[len(ratios) // 2] if ratios else 1.0
        return LinearFit(guess.base * ratio, guess.slope * ratio)


def robust(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation of values, newest last: newer ones weigh more, and outliers are limited."""
    weights = [FADE**age for age in range(len(values) - 1, -1, -1)]
    middle = _weighted_median(values, weights)
    spread = 1.48 * _weighted_median([abs(value - middle) for value in values], weights)
    reach = FAR * max(spread, LEAST_SPREAD * middle)
    drawn_in = [min(max(value, middle - reach), middle + reach) for value in values]
    return sum(w * v for w, v in zip(weights, drawn_in, strict=True)) / sum(weights), spread


def _weighted_median(values: Sequence[float], weights: Sequence[float]) -> float:
    half, passed = sum(weights) / 2, 0.0
    ordered = sorted(zip(values, weights, strict=True))
    for at, (value, weight) in enumerate(ordered):
        passed += weight
        if passed > half or at == len(ordered) - 1:
            return value
        if passed == half:
            return (value + ordered[at + 1][0]) / 2
    return 0.0


def _fitted(points: Sequence[tuple[float, float, int]]) -> LinearFit | None:
    """A line with base and slope of at least 0; None if there is no slope."""
    weighted = [(size, mean, weight / mean**2) for size, mean, weight in points]
    total = sum(w for _, _, w in weighted)
    x = sum(w * size for size, _, w in weighted) / total
    y = sum(w * mean for _, mean, w in weighted) / total
    across = sum(w * (size - x) ** 2 for size, _, w in weighted)
    if across <= 0 or x <= 0:
        return None
    slope = sum(w * (size - x) * (mean - y) for size, mean, w in weighted) / across
    if slope < 0:
        return LinearFit(y, 0.0)
    base = y - slope * x
    return LinearFit(base, slope) if base >= 0 else LinearFit(0.0, y / x)
