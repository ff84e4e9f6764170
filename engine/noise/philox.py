"""PyTorch's generator on NVIDIA's cards: Philox4x32-10, and normally distributed float32 values.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011); A1111 1.10.1 modules/rng_philox.py.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
WORD = 0xFFFFFFFF
UNIT = 2.0**-32
TURN = float(np.float32(2.0 * np.pi * UNIT))
"""Angle of one step of 2^32, in the single precision of NVIDIA's library."""

Words = NDArray[np.uint64]
"""Words of 32 bits, in 64 so that a product has room."""


class PhiloxGenerator:
    """`torch.Generator("cuda").manual_seed(seed)`; the lowest 64 bits of the seed count.

    Each call draws one value per thread of the card, so the values agree up to the number of threads that a card has:
    from about 125,000 on some to more on larger ones. SDXL's noise for 1024x1024 pixels has 65,536 values.
    """

    def __init__(self, seed: int) -> None:
        self.restart(seed)

    def restart(self, seed: int) -> None:
        """Begin the values of another seed."""
        self._key = (seed & WORD, seed >> 32 & WORD)
        self._calls = 0

    def normal(self, count: int) -> NDArray[np.float32]:
        """`torch.randn(count, device="cuda")`: the next values, of shape (count,)."""
        zeros = np.zeros(count, np.uint64)
        counter = (zeros + np.uint64(self._calls), zeros, np.arange(count, dtype=np.uint64), zeros)
        self._calls += 1
        first, second, _, _ = philox4x32(counter, self._key)
        radius = np.sqrt(-2.0 * np.log(first * UNIT + UNIT / 2))
        values: NDArray[np.float32] = (radius * np.sin(second * TURN + TURN / 2)).astype(np.float32)
        return values


def philox4x32(counter: tuple[Words, Words, Words, Words], key: tuple[int, int]) -> tuple[Words, Words, Words, Words]:
    """Four random words for each counter of four words, by ten rounds with a key of two words."""
    word, shift = np.uint64(WORD), np.uint64(32)
    first, second = (np.uint64(value) for value in MULTIPLIERS)
    a, b, c, d = counter
    for step in range(ROUNDS):
        key_a, key_b = (np.uint64(k + step * more & WORD) for k, more in zip(key, KEY_INCREMENTS, strict=True))
        product_a, product_c = a * first, c * second
        a, b = (product_c >> shift) ^ b ^ key_a, product_c & word
        c, d = (product_a >> shift) ^ d ^ key_b, product_a & word
    return a, b, c, d
