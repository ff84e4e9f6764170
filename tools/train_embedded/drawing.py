"""Pen for one object on a Pillow canvas, and the plain shapes."""

from collections.abc import Callable, Sequence
from math import cos, pi, sin

from PIL import ImageDraw

Rgb = tuple[int, int, int]
Point = tuple[float, float]


class Pen:
    """Pen in the coordinates of one object: unit radius around its centre."""

    def __init__(self, draw: ImageDraw.ImageDraw, centre: Point, radius: float) -> None:
        self._draw = draw
        self._centre = centre
        self._radius = radius

    def at(self, x: float, y: float) -> Point:
        """Canvas position of a point of the object."""
        return self._centre[0] + self._radius * x, self._centre[1] + self._radius * y

    def polygon(self, points: Sequence[Point], colour: Rgb) -> None:
        self._draw.polygon([self.at(x, y) for x, y in points], fill=colour)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Rgb) -> None:
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], colour)

    def oval(self, x: float, y: float, rx: float, ry: float, colour: Rgb) -> None:
        steps = 48
        self.polygon(
            [(x + rx * cos(2 * pi * i / steps), y + ry * sin(2 * pi * i / steps)) for i in range(steps)], colour
        )

    def disc(self, x: float, y: float, r: float, colour: Rgb) -> None:
        self.oval(x, y, r, r, colour)

    def line(self, points: Sequence[Point], width: float, colour: Rgb) -> None:
        canvas = [self.at(x, y) for x, y in points]
        self._draw.line(canvas, fill=colour, width=max(1, round(width * self._radius)), joint="curve")


def _ngon(sides: int, start: float = -pi / 2) -> list[Point]:
    return [(cos(start + 2 * pi * i / sides), sin(start + 2 * pi * i / sides)) for i in range(sides)]


def _star_points(tips: int = 5, inner: float = 0.42) -> list[Point]:
    radii = (1.0, inner)
    return [
        (radii[i % 2] * cos(-pi / 2 + pi * i / tips), radii[i % 2] * sin(-pi / 2 + pi * i / tips))
        for i in range(2 * tips)
    ]


def _heart_points() -> list[Point]:
    points = []
    for i in range(60):
        t = 2 * pi * i / 60
        y = -(13 * cos(t) - 5 * cos(2 * t) - 2 * cos(3 * t) - cos(4 * t))
        points.append((16 * sin(t) ** 3 / 16.5, (y - 2.5) / 16.5))
    return points


def shade(colour: Rgb, factor: float) -> Rgb:
    """Darker (below 1) or lighter (above 1, towards white) variant of a colour."""
    if factor <= 1.0:
        return tuple(round(c * factor) for c in colour)  # type: ignore[return-value]
    return tuple(round(c + (255 - c) * (factor - 1.0)) for c in colour)  # type: ignore[return-value]


DrawFunction = Callable[[Pen, Rgb, Rgb], None]
"""Draws an object with a pen, in its colour; the third argument is the background, for holes."""


def _circle(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.disc(0, 0, 0.95, colour)


def _square(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.box(-0.82, -0.82, 0.82, 0.82, colour)


def _triangle(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.polygon([(0, -0.95), (1.0, 0.8), (-1.0, 0.8)], colour)


def _star(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.polygon([(1.1 * x, 1.1 * y) for x, y in _star_points()], colour)


def _heart(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.polygon(_heart_points(), colour)


def _diamond(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.polygon([(0, -1.1), (0.75, 0), (0, 1.1), (-0.75, 0)], colour)


def _hexagon(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.polygon(_ngon(6, 0.0), colour)


def _cross(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.box(-0.33, -1.0, 0.33, 1.0, colour)
    pen.box(-1.0, -0.33, 1.0, 0.33, colour)


def _ring(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.disc(0, 0, 1.0, colour)
    pen.disc(0, 0, 0.55, ground)


def _oval(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.oval(0, 0, 1.15, 0.65, colour)


def _rectangle(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.box(-1.15, -0.58, 1.15, 0.58, colour)


SHAPES: dict[str, DrawFunction] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "diamond": _diamond,
    "hexagon": _hexagon,
    "cross": _cross,
    "ring": _ring,
    "oval": _oval,
    "rectangle": _rectangle,
}
