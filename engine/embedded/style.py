"""What a prompt leaves open to the embedded model (place, size, slant), said in four characters before it.

In four steps a model can't both settle such things and draw them sharply, so the seed settles them first. A character
stands for one level of one axis; none of them occurs in prompts.
"""

from collections.abc import Sequence
from random import Random

AXES = ("!#%(*", "+:<>@", "[]_", "`|~")
"""Levels, from least to most, of: place across, place down, size, slant."""

Numbers = tuple[float, ...]
"""One of each axis, from 0 to 1."""


def style_numbers(seed: int) -> Numbers:
    """What a seed settles."""
    rng = Random(seed)
    return tuple(rng.random() for _ in AXES)


def between(one: Numbers, other: Numbers, share: float) -> Numbers:
    """On the way from one (share 0) to another (share 1)."""
    return tuple((1 - share) * a + share * b for a, b in zip(one, other, strict=True))


def centre_position(numbers: Numbers) -> Numbers:
    """The same, but in the middle of the picture."""
    return (0.5, 0.5, *numbers[2:])


def levels(numbers: Sequence[float]) -> tuple[int, ...]:
    """The level of each axis, counted from 0."""
    return tuple(min(int(number * len(axis)), len(axis) - 1) for number, axis in zip(numbers, AXES, strict=True))


def with_style(prompt: str, numbers: Sequence[float]) -> str:
    """The prompt as the model reads it."""
    return "".join(axis[level] for axis, level in zip(AXES, levels(numbers), strict=True)) + f" {prompt}"
