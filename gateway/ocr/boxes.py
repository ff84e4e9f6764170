"""Boxes of lines of text: four corners, and what follows from them. Pure.

Coordinates are pixels, x to the right and y downwards; corners go clockwise from the top left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]
Corners = tuple[Point, Point, Point, Point]


@dataclass(frozen=True, slots=True)
class Box:
    """A line, or what a detector takes for one. `score` is how sure it is: 0 to 1."""

    corners: Corners
    score: float = 1.0

    @property
    def left(self) -> float:
        return min(x for x, _ in self.corners)

    @property
    def right(self) -> float:
        return max(x for x, _ in self.corners)

    @property
    def top(self) -> float:
        return min(y for _, y in self.corners)

    @property
    def bottom(self) -> float:
        return max(y for _, y in self.corners)

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def along(self) -> float:
        """Length of its upper edge."""
        return math.dist(self.corners[0], self.corners[1])

    @property
    def across(self) -> float:
        """Length of its left edge: how high the line is, however it is turned."""
        return math.dist(self.corners[0], self.corners[3])

    @property
    def is_wide(self) -> bool:
        """Clearly longer than high."""
        return self.along >= 2 * self.across

    @property
    def is_tall(self) -> bool:
        """Clearly higher than long: a line on its side, or one of few letters above each other."""
        return self.across >= 2 * self.along

    def moved(self, x: float, y: float) -> Box:
        return Box(_four([(px + x, py + y) for px, py in self.corners]), self.score)

    def scaled(self, factor: float) -> Box:
        return Box(_four([(px * factor, py * factor) for px, py in self.corners]), self.score)

    def turned_back(self, quarters: int, width: float, height: float) -> Box:
        """Its place in a picture of `width` x `height` that was turned `quarters` times to the left to find it."""
        points = list(self.corners)
        for quarter in range(quarters, 0, -1):
            wide = width if quarter % 2 else height  # of the picture before this turn
            points = [(wide - y, x) for x, y in points]
        return Box(clockwise(points), self.score)


def rectangle(left: float, top: float, right: float, bottom: float, score: float = 1.0) -> Box:
    return Box(((left, top), (right, top), (right, bottom), (left, bottom)), score)


def overlap(a: tuple[float, float], b: tuple[float, float]) -> float:
    """How much two intervals share; below 0: how far apart they are."""
    return min(a[1], b[1]) - max(a[0], b[0])


def clockwise(points: Sequence[Point]) -> Corners:
    """The corners of a box, from the top left."""
    by_x = sorted(points)
    (top_left, bottom_left), right = sorted(by_x[:2], key=_y), sorted(by_x[2:], key=_y)
    return (top_left, right[0], right[1], bottom_left)


def _y(point: Point) -> float:
    return point[1]


def _four(points: Sequence[Point]) -> Corners:
    a, b, c, d = points
    return (a, b, c, d)
