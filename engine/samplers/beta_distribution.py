"""Quantiles of the beta distribution with equal shape parameters below 1, for the schedule "Beta"."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TERMS = 64
"""Terms of the power series; at 0.5, where it converges slowest, each is less than half the one before."""
HALVINGS = 64


def quantile(shares: NDArray[np.float64], shape: float) -> NDArray[np.float64]:
    """Points below which these shares (0 to 1) of the distribution lie. Both shape parameters are `shape`."""
    # The distribution is symmetric, so the lower half suffices.
    is_upper = shares > 0.5
    targets = np.where(is_upper, 1.0 - shares, shares)
    whole = 2.0 * _integral(np.array([0.5]), shape)[0]
    low, high = np.zeros_like(targets), np.full_like(targets, 0.5)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        is_below = _integral(middle, shape) < targets * whole
        low, high = np.where(is_below, middle, low), np.where(is_below, high, middle)
    points = np.where(targets == 0.0, 0.0, 0.5 * (low + high))
    return np.where(is_upper, 1.0 - points, points)


def _integral(ends: NDArray[np.float64], shape: float) -> NDArray[np.float64]:
    """Integral of (t (1 - t))^(shape - 1) from 0 to ends of at most 0.5, by the series of the second factor."""
    total = np.zeros_like(ends)
    coefficient = 1.0
    for term in range(TERMS):
        total += coefficient * ends ** (shape + term) / (shape + term)
        coefficient *= (1.0 - shape + term) / (term + 1.0)
    return total
