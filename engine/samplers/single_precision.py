"""Arithmetic in single precision as PyTorch does it, for noise levels that are to be A1111's to the last digits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def linspace(start: float, end: float, count: int) -> Floats:
    """`torch.linspace` in float32: the first half counts up from the start, the other down from the end."""
    first, last = np.float32(start), np.float32(end)
    if count < 2:
        return np.full(count, first)
    step = (last - first) / np.float32(count - 1)
    index = np.arange(count)
    up = first + step * index.astype(np.float32)
    down = last - step * (count - 1 - index).astype(np.float32)
    return np.where(index < count // 2, up, down).astype(np.float32)


def append_zero(sigmas: Floats) -> Floats:
    """The same noise levels with 0 at the end."""
    return np.append(sigmas, np.float32(0.0))


def rounded(values: NDArray[np.float64]) -> Floats:
    """Values of double precision, rounded."""
    return values.astype(np.float32)


def exp(values: Floats) -> Floats:
    """Exponential function, rounded correctly."""
    return rounded(np.exp(values.astype(np.float64)))
