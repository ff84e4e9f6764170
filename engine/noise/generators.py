"""What the generators have in common, and the generator of a random source."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.noise.cpu_generator import CpuGenerator
from engine.noise.philox import PhiloxGenerator
from engine.protocol.sampling import RandomSource

Shape = tuple[int, int, int]
"""Channels, height and width, in latent pixels."""


class NormalGenerator(Protocol):
    """Sequence of normally distributed values that a seed begins."""

    def restart(self, seed: int) -> None:
        """Begin the sequence of another seed."""
        ...

    def normal(self, count: int) -> NDArray[np.float32]:
        """The next `count` values."""
        ...


def create_generator(source: RandomSource, seed: int) -> NormalGenerator:
    """A new generator of that source at the beginning of the seed's sequence."""
    return PhiloxGenerator(seed) if source == "NV" else CpuGenerator(seed)


def draw(generator: NormalGenerator, shape: Shape) -> NDArray[np.float32]:
    """The generator's next values, in that shape."""
    return generator.normal(math.prod(shape)).reshape(shape)
