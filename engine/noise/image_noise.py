"""All noise of one image: the first one, with variation and seed resize, and what samplers add later.

Source: A1111 1.10.1 modules/rng.py.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.noise.generators import Shape, create_generator, draw
from engine.protocol.sampling import RandomSource

Noise = NDArray[np.float32]
"""Normally distributed values of shape (channels, height, width)."""
ALIKE = 0.9995
"""Mean cosine of two noises above which they are mixed linearly."""


class ImageNoise:
    """Noise of one image in the order in which it is drawn; each image of a batch has its own.

    Both passes of hires fix begin anew with the same seeds, each at its own size.
    """

    def __init__(
        self,
        source: RandomSource,
        seed: int,
        shape: Shape,
        *,
        subseed: int | None = None,
        subseed_strength: float = 0.0,
        seed_resize: tuple[int, int] | None = None,
        eta_noise_seed_delta: int = 0,
    ) -> None:
        """Begin the noise of a seed.

        `shape` is (channels, height, width) in latent pixels, an eighth of the image's. `subseed_strength` from 0 to 1
        goes from the noise of the seed to that of the subseed. `seed_resize` is the width and height, in latent pixels,
        of the noise that is pasted into the middle. `eta_noise_seed_delta` is added to the seed of all later noise.

        Raises: ValueError where a size is not positive.
        """
        if min(*shape, *(seed_resize or ())) <= 0:
            raise ValueError("shape and seed_resize must be positive")
        self._source: RandomSource = source
        self._seed, self._shape = seed, shape
        self._subseed = subseed if subseed_strength != 0 else None
        self._subseed_strength = subseed_strength
        self._first_shape = (shape[0], seed_resize[1], seed_resize[0]) if seed_resize else shape
        self._delta = eta_noise_seed_delta
        self._generator = create_generator(source, seed)
        self._is_begun = False

    def first(self) -> Noise:
        """Noise with which the image begins.

        Raises: RuntimeError where noise was drawn before.
        """
        if self._is_begun:
            raise RuntimeError("the first noise of an image is drawn once")
        self._is_begun = True
        resized = self._first_shape != self._shape
        noise = self._new(self._seed) if resized else draw(self._generator, self._shape)
        if self._subseed is not None:
            noise = slerp(noise, self._new(self._subseed), self._subseed_strength)
        if resized:
            noise = paste_into_middle(noise, draw(self._generator, self._shape))
        if self._delta:
            self._generator = create_generator(self._source, self._seed + self._delta)
        return noise

    def next(self) -> Noise:
        """The next noise that a sampler adds; before the first one, the first one."""
        return draw(self._generator, self._shape) if self._is_begun else self.first()

    def _new(self, seed: int) -> Noise:
        return draw(create_generator(self._source, seed), self._first_shape)


def slerp(one: Noise, other: Noise, share: float) -> Noise:
    """Spherical interpolation of two noises from `one` (share 0) to `other` (share 1), along each column of pixels.

    Noises that are nearly alike are mixed linearly, and with exchanged weights, as A1111 has it.
    """
    low, high = one.astype(np.float64), other.astype(np.float64)
    cosine = ((low / _length(low)) * (high / _length(high))).sum(axis=1, keepdims=True)
    if cosine.mean() > ALIKE:
        return (low * share + high * (1.0 - share)).astype(np.float32)
    angle = np.arccos(np.clip(cosine, -1.0, 1.0))
    # Columns in one line have no angle between them: there both weights have the limits of their quotients.
    sine = np.sin(angle)
    straight = sine < 1e-9
    divisor = np.where(straight, 1.0, sine)
    low_weight = np.where(straight, 1.0 - share, np.sin((1.0 - share) * angle) / divisor)
    high_weight = np.where(straight, share, np.sin(share * angle) / divisor)
    return (low_weight * low + high_weight * high).astype(np.float32)


def _length(noise: NDArray[np.float64]) -> NDArray[np.float64]:
    length: NDArray[np.float64] = np.linalg.norm(noise, axis=1, keepdims=True)
    return length


def paste_into_middle(small: Noise, large: Noise) -> Noise:
    """A copy of `large` with `small` in its middle; where `small` is the larger one, its own middle is taken."""
    result = large.copy()
    (rows, from_rows), (columns, from_columns) = (
        _overlap(whole, part) for whole, part in zip(large.shape[1:], small.shape[1:], strict=True)
    )
    result[:, rows, columns] = small[:, from_rows, from_columns]
    return result


def _overlap(whole: int, part: int) -> tuple[slice, slice]:
    """Places of the common middle of a side in the whole and in the part."""
    before = (whole - part) // 2
    # A part that is larger by an odd number loses one more value than it must, as in A1111.
    count = part if before >= 0 else part + 2 * before
    return slice(max(before, 0), max(before, 0) + count), slice(max(-before, 0), max(-before, 0) + count)
