"""Draws one object (a plain shape or a simple icon) onto a Pillow canvas."""

from collections.abc import Callable, Sequence
from math import cos, pi, sin

from PIL import ImageDraw

Rgb = tuple[int, int, int]
Point = tuple[float, float]


class Pen:
    """Draws in the coordinates of one object: unit radius around its centre, turned by an angle."""

    def __init__(self, draw: ImageDraw.ImageDraw, centre: Point, radius: float, angle: float = 0.0) -> None:
        self._draw = draw
        self._centre = centre
        self._radius = radius
        self._cos, self._sin = cos(angle), sin(angle)

    def at(self, x: float, y: float) -> Point:
        """Canvas position of a point of the object."""
        return (
            self._centre[0] + self._radius * (x * self._cos - y * self._sin),
            self._centre[1] + self._radius * (x * self._sin + y * self._cos),
        )

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


Painter = Callable[[Pen, Rgb, Rgb], None]
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


def _house(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.box(-0.75, -0.15, 0.75, 0.95, colour)
    pen.polygon([(0, -1.05), (1.0, -0.1), (-1.0, -0.1)], shade(colour, 0.6))
    pen.box(-0.2, 0.35, 0.2, 0.95, shade(colour, 0.35))
    pen.box(0.32, 0.1, 0.6, 0.38, (250, 245, 200))


def _tree(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.box(-0.17, 0.2, 0.17, 1.05, (110, 70, 35))
    for x, y, r in ((-0.42, 0.02, 0.48), (0.42, 0.02, 0.48), (0, -0.45, 0.6)):
        pen.disc(x, y, r, colour)


def _sun(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.disc(0, 0, 0.55, colour)
    for i in range(8):
        a = 2 * pi * i / 8
        pen.line([(0.68 * cos(a), 0.68 * sin(a)), (1.05 * cos(a), 1.05 * sin(a))], 0.16, colour)


def _moon(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.disc(0, 0, 1.0, colour)
    pen.disc(0.45, -0.12, 0.85, ground)


def _flower(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.box(-0.07, 0.0, 0.07, 1.1, (50, 130, 50))
    for i in range(6):
        a = 2 * pi * i / 6
        pen.disc(0.42 * cos(a), -0.35 + 0.42 * sin(a), 0.3, colour)
    pen.disc(0, -0.35, 0.25, (245, 200, 50) if colour[0] + colour[1] < 400 or colour[2] > 150 else (140, 80, 30))


def _boat(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.polygon([(-1.0, 0.35), (1.0, 0.35), (0.6, 0.85), (-0.6, 0.85)], colour)
    pen.box(-0.06, -1.0, 0.06, 0.35, (110, 70, 35))
    pen.polygon([(0.12, -0.95), (0.8, 0.2), (0.12, 0.2)], shade(colour, 1.55))
    pen.polygon([(-0.12, -0.7), (-0.65, 0.2), (-0.12, 0.2)], shade(colour, 1.55))


def _car(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.polygon([(-0.55, -0.15), (-0.35, -0.6), (0.35, -0.6), (0.6, -0.15)], colour)
    pen.polygon([(-0.4, -0.15), (-0.27, -0.47), (0.27, -0.47), (0.43, -0.15)], (205, 230, 245))
    pen.box(-1.1, -0.15, 1.1, 0.35, colour)
    for x in (-0.6, 0.6):
        pen.disc(x, 0.38, 0.27, (40, 40, 45))
        pen.disc(x, 0.38, 0.12, (190, 190, 190))


def _fish(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.polygon([(-0.55, 0.0), (-1.15, -0.55), (-1.15, 0.55)], shade(colour, 0.75))
    pen.oval(0.15, 0, 0.9, 0.55, colour)
    pen.disc(0.62, -0.12, 0.15, (255, 255, 255))
    pen.disc(0.65, -0.12, 0.08, (20, 20, 20))


def _face(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    dark = (40, 30, 25) if sum(colour) > 200 else (245, 245, 245)
    pen.disc(0, 0, 1.0, colour)
    pen.disc(-0.36, -0.25, 0.14, dark)
    pen.disc(0.36, -0.25, 0.14, dark)
    pen.line([(0.55 * cos(a * pi / 10), 0.12 + 0.5 * sin(a * pi / 10)) for a in range(1, 10)], 0.13, dark)


def _apple(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.disc(-0.32, 0.15, 0.66, colour)
    pen.disc(0.32, 0.15, 0.66, colour)
    pen.oval(0, 0.4, 0.62, 0.55, colour)
    pen.line([(0, -0.35), (0.08, -0.9)], 0.14, (100, 65, 35))
    pen.oval(0.42, -0.75, 0.32, 0.17, (70, 160, 60))


def _cloud(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    for x, y, r in ((-0.65, 0.15, 0.42), (-0.2, -0.2, 0.5), (0.35, -0.1, 0.45), (0.75, 0.2, 0.36)):
        pen.disc(x, y, r, colour)
    pen.box(-0.65, 0.1, 0.75, 0.56, colour)


def _mushroom(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.box(-0.3, 0.0, 0.3, 0.95, (240, 228, 205))
    pen.polygon([(cos(pi + pi * i / 24), 0.15 + 1.05 * sin(pi + pi * i / 24)) for i in range(25)], colour)
    for x, y, r in ((-0.45, -0.2, 0.15), (0.1, -0.5, 0.17), (0.5, -0.12, 0.13)):
        pen.disc(x, y, r, shade(colour, 1.8))


SHAPES: dict[str, Painter] = {
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

ICONS: dict[str, Painter] = {
    "house": _house,
    "tree": _tree,
    "sun": _sun,
    "moon": _moon,
    "flower": _flower,
    "boat": _boat,
    "car": _car,
    "fish": _fish,
    "face": _face,
    "apple": _apple,
    "cloud": _cloud,
    "mushroom": _mushroom,
}

ICON_COLOURS: dict[str, tuple[str, ...]] = {
    "house": ("orange", "red", "brown"),
    "tree": ("green",),
    "sun": ("yellow",),
    "moon": ("yellow",),
    "flower": ("pink", "purple", "red"),
    "boat": ("brown", "blue"),
    "car": ("red", "blue"),
    "fish": ("orange", "blue"),
    "face": ("yellow",),
    "apple": ("red",),
    "cloud": ("white",),
    "mushroom": ("red",),
}
"""Colours an icon takes when the prompt names none."""

TILTS = {"circle": 0.0, "ring": 0.0, "square": 0.2, "triangle": 0.22, "diamond": 0.15, "rectangle": 0.2}
"""Rotation in radians an object may be drawn with; a square turned further would read as a diamond."""


def tilt(kind: str) -> float:
    """The rotation, to either side, that a kind may be drawn with."""
    return TILTS.get(kind, 0.1 if kind in ICONS else 0.3)


def paint(
    draw: ImageDraw.ImageDraw, kind: str, centre: Point, radius: float, colour: Rgb, ground: Rgb, angle: float = 0.0
) -> None:
    """Draws one object of a kind."""
    (SHAPES.get(kind) or ICONS[kind])(Pen(draw, centre, radius, angle), colour, ground)
