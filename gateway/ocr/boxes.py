"""Boxes of text lines: four corners, and geometry derived from them. Pure.

Coordinates are pixels, x to the right and y down; corners are clockwise from the top left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]
Corners = tuple[Point, Point, Point, Point]


@dataclass(frozen=True, slots=True)
class Box:
    """Box of a line, or of what a detector takes for one. `score` is the detector's confidence, 0 to 1."""

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
        """Length of the upper edge."""
        return math.dist(self.corners[0], self.corners[1])

    @property
    def across(self) -> float:
        """Length of the left edge: the height of the line, however it is rotated."""
        return math.dist(self.corners[0], self.corners[3])

    @property
    def is_wide(self) -> bool:
        """Whether it is clearly longer than high."""
        return self.along >= 2 * self.across

    @property
    def is_tall(self) -> bool:
        """Whether it is clearly higher than long: a line on its side, or a few letters above each other."""
        return self.across >= 2 * self.along

    def moved(self, x: float, y: float) -> Box:
        return Box(_four([(px + x, py + y) for px, py in self.corners]), self.score)

    def scaled(self, factor: float) -> Box:
        return Box(_four([(px * factor, py * factor) for px, py in self.corners]), self.score)

    def turned_back(self, quarters: int, width: float, height: float) -> Box:
        """The box before its image of `width` x `height` was rotated `quarters` quarter turns to the left."""
        points = list(self.corners)
        for quarter in range(quarters, 0, -1):
            wide = width if quarter % 2 else height  # width of the image before this turn
            points = [(wide - y, x) for x, y in points]
        return Box(clockwise(points), self.score)


def rectangle(left: float, top: float, right: float, bottom: float, score: float = 1.0) -> Box:
    return Box(((left, top), (right, top), (right, bottom), (left, bottom)), score)


def overlap(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Overlap of two intervals; negative: the distance between them."""
    return min(a[1], b[1]) - max(a[0], b[0])


def clockwise(points: Sequence[Point]) -> Corners:
    """Corners of a box, clockwise from the top left."""
    by_x = sorted(points)
    (top_left, bottom_left), right = sorted(by_x[:2], key=_y), sorted(by_x[2:], key=_y)
    return (top_left, right[0], right[1], bottom_left)


def _y(point: Point) -> float:
    return point[1]


def _four(points: Sequence[Point]) -> Corners:
    a, b, c, d = points
    return (a, b, c, d)
