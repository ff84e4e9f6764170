"""Brownian motion over noise levels: the noise of SDE samplers, which does not depend on how many steps they take.

A binary tree halves the range again and again. The seed of each node's values follows from the seed of the image and
the node's place, so any part of the motion is found without the others.

Source: torchsde 0.2.6 `BrownianTree`; k-diffusion 0.1.1 `BrownianTreeNoiseSampler`; A1111 1.10.1
modules/sd_samplers_common.py, which draws each node's values by the generator of its setting.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.noise.generators import Shape, create_generator, draw
from engine.protocol.sampling import RandomSource

DIGITS = 6
"""Decimal places to which noise levels are rounded; they end the halving."""
POOL_WORDS = 24
MOST_KEPT = 96
MOST_KEPT_BYTES = 64 << 20
"""Bounds on the halved nodes whose values are kept, the last used ones: a step shares most of them with the next."""


@dataclass(frozen=True, slots=True)
class _Node:
    """Part of the range: its ends, and its place in the tree."""

    start: float
    end: float
    depth: int = 0
    key: int = 0

    @property
    def middle(self) -> float:
        return round(0.5 * (self.end + self.start), DIGITS)

    def halves(self) -> tuple[_Node, _Node]:
        return (
            _Node(self.start, self.middle, self.depth + 1, 2 * self.key),
            _Node(self.middle, self.end, self.depth + 1, 2 * self.key + 1),
        )


class BrownianNoise:
    """Brownian motion of an image's latents between two noise levels; each image of a batch has its own."""

    def __init__(self, seed: int, sigma_min: float, sigma_max: float, shape: Shape, source: RandomSource) -> None:
        """Begin the motion of a seed over [`sigma_min`, `sigma_max`], the lowest positive and the highest noise level.

        In img2img they are those of the whole schedule, not of the part that runs.

        Raises: ValueError where the range is not within positive numbers.
        """
        if not 0.0 < sigma_min <= sigma_max < math.inf:
            raise ValueError("sigma_min and sigma_max must be positive, and sigma_min at most sigma_max")
        self._seed, self._shape = seed, shape
        self._generator = create_generator(source, seed)
        self._root = _Node(round(sigma_min, DIGITS), round(sigma_max, DIGITS))
        word = np.random.SeedSequence(seed, pool_size=POOL_WORDS).generate_state(3)[0]
        self._whole = self._draw(int(word)) * np.float32(math.sqrt(sigma_max - sigma_min))
        self._kept: OrderedDict[_Node, NDArray[np.float32]] = OrderedDict()
        self._most_kept = min(MOST_KEPT, MOST_KEPT_BYTES // self._whole.nbytes + 1)

    def __call__(self, sigma: float, sigma_next: float) -> NDArray[np.float32]:
        """Noise of unit variance between two noise levels, of shape (channels, height, width).

        It is the motion from `sigma` to `sigma_next`, divided by the root of their distance. Levels outside of the
        range count as its ends.
        """
        low, high = sorted((self._clip(sigma), self._clip(sigma_next)))
        motion = np.zeros(self._shape, np.float32)
        for node in _parts(self._root, round(low, DIGITS), round(high, DIGITS)):
            motion += self._motion(node)
        distance = np.sqrt(np.abs(np.float32(sigma) - np.float32(sigma_next)))
        return motion if distance == 0 else (motion if sigma < sigma_next else -motion) / distance

    def _clip(self, sigma: float) -> float:
        return min(max(sigma, self._root.start), self._root.end)

    def _motion(self, node: _Node) -> NDArray[np.float32]:
        """Motion over a node: the root's, halved on the way down from the root."""
        at, motion = self._root, self._whole
        while at.depth < node.depth:
            is_right = node.key >> (node.depth - at.depth - 1) & 1
            left = self._left_half(at, motion)
            motion = motion - left if is_right else left
            at = at.halves()[is_right]
        return motion

    def _left_half(self, node: _Node, motion: NDArray[np.float32]) -> NDArray[np.float32]:
        """Motion over the left half of a node."""
        if node in self._kept:
            self._kept.move_to_end(node)
            return self._kept[node]
        left, right, width = node.middle - node.start, node.end - node.middle, node.end - node.start
        sequence = np.random.SeedSequence(self._seed, spawn_key=(node.key, node.depth), pool_size=POOL_WORDS)
        noise = self._draw(int(sequence.generate_state(4)[0]))
        mean = np.float32(left) * motion * np.float32(1.0 / width)
        half: NDArray[np.float32] = mean + np.float32(math.sqrt(left * right / width)) * noise
        self._kept[node] = half
        if len(self._kept) > self._most_kept:
            self._kept.popitem(last=False)
        return half

    def _draw(self, seed: int) -> NDArray[np.float32]:
        self._generator.restart(seed)
        return draw(self._generator, self._shape)


def _parts(node: _Node, low: float, high: float) -> Iterator[_Node]:
    """Nodes that together are exactly [`low`, `high`], from left to right; all ends are rounded."""
    if not low < high:
        return
    if (low, high) == (node.start, node.end):
        yield node
        return
    left, right = node.halves()
    yield from _parts(left, low, min(high, left.end))
    yield from _parts(right, max(low, right.start), high)
