"""PyTorch's generator on a CPU: MT19937, and normally distributed float32 values by the Box-Muller transform.

Source: PyTorch 2.13 aten/src/ATen/core/MT19937RNGEngine.h, DistributionsHelper.h, and
aten/src/ATen/native/cpu/DistributionTemplates.h (`normal_fill`, `normal_kernel`).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

BLOCK = 16
"""Number of values that PyTorch transforms together; a smaller number is drawn one value after the other."""
HALF = BLOCK // 2
LOWEST_32_BITS = 0xFFFFFFFF


class CpuGenerator:
    """`torch.Generator("cpu").manual_seed(seed)`; only the lowest 32 bits of the seed count.

    Logarithm, cosine and sine are rounded from float64. PyTorch's own differ by at most 5e-7 from build to build: its
    vectorised builds (AVX2, AVX-512) approximate them, and others call the system's mathematical library.
    """

    def __init__(self, seed: int) -> None:
        self._words = np.random.RandomState(seed & LOWEST_32_BITS)
        self._kept: float | None = None

    def restart(self, seed: int) -> None:
        """Begin the values of another seed; much faster than a new generator."""
        self._words.seed(seed & LOWEST_32_BITS)
        self._kept = None

    def normal(self, count: int) -> NDArray[np.float32]:
        """`torch.randn(count)`: the next values, of shape (count,)."""
        if count < BLOCK:
            return np.array([self._single() for _ in range(count)], np.float32)
        values = self._uniform(count)
        whole = count - count % BLOCK
        result = np.empty(count, np.float32)
        result[:whole] = _normal_blocks(values[:whole])
        if whole < count:
            # The last block is drawn anew, over the end of the block before it.
            result[-BLOCK:] = _normal_blocks(self._uniform(BLOCK))
        return result

    def _draw(self, count: int) -> NDArray[np.uint32]:
        return self._words.randint(0, 1 << 32, count, np.uint32)

    def _uniform(self, count: int) -> NDArray[np.float32]:
        """Values of 24 bits, in [0, 1)."""
        return (self._draw(count) & np.uint32(0xFFFFFF)).astype(np.float32) * np.float32(2.0**-24)

    def _single(self) -> float:
        """One value from two uniform ones of 53 bits; the second value of the pair is kept for the next such call."""
        if self._kept is not None:
            kept, self._kept = self._kept, None
            return kept
        words = [int(word) for word in self._draw(4)]
        first, second = (((high << 32 | low) & (1 << 53) - 1) * 2.0**-53 for high, low in (words[:2], words[2:]))
        radius, angle = math.sqrt(-2.0 * math.log1p(-second)), 2.0 * math.pi * first
        self._kept = radius * math.sin(angle)
        return radius * math.cos(angle)


def _normal_blocks(uniform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Normal values from uniform ones, in blocks of 16: radii from the first half of a block, angles from the other."""
    blocks = uniform.reshape(-1, BLOCK)
    logarithm = np.log((np.float32(1.0) - blocks[:, :HALF]).astype(np.float64)).astype(np.float32)
    radius = np.sqrt(np.float32(-2.0) * logarithm)
    angle = (2.0 * math.pi * blocks[:, HALF:].astype(np.float64)).astype(np.float32).astype(np.float64)
    result = np.empty_like(blocks)
    result[:, :HALF] = radius * np.cos(angle).astype(np.float32)
    result[:, HALF:] = radius * np.sin(angle).astype(np.float32)
    return result.reshape(-1)
