"""Style of the embedded model's images (place, size, slant), as four characters before the prompt.

In four steps the model cannot both decide such things and draw them sharply, so the seed decides them first. A
character stands for one level of one axis; none of them occurs in prompts.
"""

from collections.abc import Sequence
from random import Random

AXES = ("!#%(*", "+:<>@", "[]_", "`|~")
"""Levels, from least to most, of: horizontal place, vertical place, size, slant."""

Numbers = tuple[float, ...]
"""One number for each axis, from 0 to 1."""


def style_numbers(seed: int) -> Numbers:
    """Style of a seed."""
    rng = Random(seed)
    return tuple(rng.random() for _ in AXES)


def between(one: Numbers, other: Numbers, share: float) -> Numbers:
    """Interpolation from `one` (share 0) to `other` (share 1)."""
    return tuple((1 - share) * a + share * b for a, b in zip(one, other, strict=True))


def centre_position(numbers: Numbers) -> Numbers:
    """The same style in the middle of the image."""
    return (0.5, 0.5, *numbers[2:])


def levels(numbers: Sequence[float]) -> tuple[int, ...]:
    """Level of each axis, counted from 0."""
    return tuple(min(int(number * len(axis)), len(axis) - 1) for number, axis in zip(numbers, AXES, strict=True))


def with_style(prompt: str, numbers: Sequence[float]) -> str:
    """The prompt with its style, as the model was trained."""
    return "".join(axis[level] for axis, level in zip(AXES, levels(numbers), strict=True)) + f" {prompt}"
