"""Icons of everyday things, drawn by hand in the coordinates of one object."""

from math import cos, pi, sin

from PIL import ImageDraw

from .drawing import SHAPES, DrawFunction, Pen, Point, Rgb, shade


def _against(colour: Rgb) -> Rgb:
    """Colour for details, visible on another colour."""
    return (40, 30, 25) if sum(colour) > 200 else (245, 245, 245)


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
    dark = _against(colour)
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


def _cat(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    for side in (-1, 1):
        pen.polygon([(0.85 * side, -1.0), (0.15 * side, -0.55), (0.85 * side, 0.0)], colour)
    pen.oval(0, 0.15, 0.92, 0.78, colour)
    dark = _against(colour)
    for x in (-0.35, 0.35):
        pen.oval(x, 0.02, 0.12, 0.18, dark)
    pen.polygon([(-0.14, 0.33), (0.14, 0.33), (0, 0.48)], (240, 130, 150))
    for side in (-1, 1):
        for y in (0.35, 0.55):
            pen.line([(0.35 * side, 0.42), (1.05 * side, y)], 0.05, dark)


def _bird(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.polygon([(-0.5, 0.1), (-1.15, -0.25), (-1.1, 0.3)], shade(colour, 0.7))
    pen.oval(-0.05, 0.15, 0.75, 0.5, colour)
    pen.disc(0.52, -0.35, 0.4, colour)
    pen.polygon([(0.85, -0.5), (1.25, -0.3), (0.85, -0.15)], (245, 150, 30))
    pen.disc(0.6, -0.42, 0.09, _against(colour))
    pen.oval(-0.1, 0.1, 0.42, 0.26, shade(colour, 0.7))
    for x in (-0.1, 0.2):
        pen.line([(x, 0.6), (x, 0.98)], 0.08, (245, 150, 30))


def _butterfly(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    for side in (-1, 1):
        pen.oval(0.55 * side, -0.38, 0.5, 0.52, colour)
        pen.oval(0.45 * side, 0.48, 0.38, 0.4, shade(colour, 0.75))
        pen.disc(0.58 * side, -0.38, 0.2, shade(colour, 1.6))
    pen.oval(0, 0.05, 0.1, 0.75, (50, 40, 40))


def _cup(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.disc(0.62, 0.15, 0.42, colour)
    pen.disc(0.62, 0.15, 0.24, ground)
    pen.polygon([(-0.85, -0.45), (0.6, -0.45), (0.45, 0.8), (-0.7, 0.8)], colour)
    pen.oval(-0.125, -0.45, 0.72, 0.16, shade(colour, 0.55))


def _rocket(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.polygon([(-0.25, 0.6), (0.25, 0.6), (0, 1.15)], (250, 160, 30))
    for side in (-1, 1):
        pen.polygon([(0.3 * side, 0.1), (0.75 * side, 0.75), (0.25 * side, 0.62)], shade(colour, 0.6))
    pen.oval(0, -0.2, 0.38, 0.95, colour)
    pen.disc(0, -0.35, 0.2, (205, 230, 245))


def _key(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.disc(-0.6, 0, 0.48, colour)
    pen.disc(-0.6, 0, 0.22, ground)
    pen.box(-0.2, -0.13, 1.1, 0.13, colour)
    pen.box(0.55, 0.1, 0.72, 0.45, colour)
    pen.box(0.88, 0.1, 1.05, 0.5, colour)


def _umbrella(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.polygon([(1.05 * cos(pi + pi * i / 24), 1.05 * sin(pi + pi * i / 24)) for i in range(25)], colour)
    for x in (-0.7, 0, 0.7):
        pen.disc(x, 0.06, 0.3, ground)
    pen.box(-0.06, -0.2, 0.06, 0.85, (110, 70, 35))
    pen.line([(0.0, 0.8), (0.08, 0.98), (0.25, 0.98), (0.32, 0.8)], 0.11, (110, 70, 35))


def _balloon(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.line([(0, 0.4), (0.1, 0.7), (-0.05, 1.1)], 0.06, (120, 120, 120))
    pen.polygon([(-0.15, 0.62), (0.15, 0.62), (0, 0.4)], shade(colour, 0.7))
    pen.oval(0, -0.3, 0.65, 0.78, colour)
    pen.oval(-0.25, -0.55, 0.13, 0.2, shade(colour, 1.7))


def _cherry(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.line([(-0.45, 0.4), (0.15, -0.9)], 0.09, (60, 120, 40))
    pen.line([(0.45, 0.4), (0.15, -0.9)], 0.09, (60, 120, 40))
    pen.oval(0.5, -0.8, 0.4, 0.18, (70, 160, 60))
    for x in (-0.48, 0.48):
        pen.disc(x, 0.5, 0.44, colour)
        pen.disc(x - 0.14, 0.36, 0.11, shade(colour, 1.7))


def _carrot(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    for x in (-0.3, 0.0, 0.3):
        pen.oval(x, -0.75, 0.15, 0.38, (60, 150, 55))
    pen.polygon([(-0.45, -0.5), (0.45, -0.5), (0, 1.1)], colour)


def _candle(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.box(-0.32, -0.25, 0.32, 1.0, colour)
    pen.line([(0, -0.25), (0, -0.5)], 0.08, (60, 50, 50))
    pen.polygon([(0, -1.1), (0.22, -0.62), (0, -0.4), (-0.22, -0.62)], (250, 170, 30))
    pen.box(-0.65, 0.88, 0.65, 1.05, (150, 110, 60))


def _bell(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.disc(0, 0.82, 0.2, shade(colour, 0.6))
    pen.disc(0, -0.3, 0.55, colour)
    pen.polygon([(-0.55, -0.3), (0.55, -0.3), (0.95, 0.7), (-0.95, 0.7)], colour)
    pen.disc(0, -0.9, 0.16, colour)


def _clock(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.disc(0, 0, 1.0, colour)
    pen.disc(0, 0, 0.78, (250, 250, 245))
    pen.line([(0, 0), (0, -0.58)], 0.11, (30, 30, 30))
    pen.line([(0, 0), (0.42, 0.15)], 0.11, (30, 30, 30))


def _book(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.box(-1.1, -0.7, 1.1, 0.85, colour)
    for side in (-1, 1):
        pen.polygon([(0, -0.55), (0.95 * side, -0.75), (0.95 * side, 0.6), (0, 0.75)], (250, 248, 235))
        for y in (-0.35, -0.05, 0.25):
            pen.line([(0.2 * side, y), (0.75 * side, y - 0.1)], 0.06, (150, 150, 150))
    pen.line([(0, -0.55), (0, 0.75)], 0.06, (120, 120, 120))


def _envelope(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.box(-1.1, -0.7, 1.1, 0.7, colour)
    pen.polygon([(-1.1, -0.7), (1.1, -0.7), (0, 0.2)], shade(colour, 0.7))


def _flag(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.box(-0.75, -1.0, -0.6, 1.1, (110, 70, 35))
    pen.polygon([(-0.6, -0.95), (1.0, -0.95), (0.65, -0.45), (1.0, 0.05), (-0.6, 0.05)], colour)


def _gift(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    ribbon = (250, 220, 60) if colour[0] > 150 > colour[2] else (230, 60, 70)
    pen.box(-0.85, -0.15, 0.85, 0.95, colour)
    pen.box(-1.0, -0.5, 1.0, -0.1, shade(colour, 0.8))
    pen.box(-0.15, -0.5, 0.15, 0.95, ribbon)
    for side in (-1, 1):
        pen.oval(0.32 * side, -0.72, 0.32, 0.22, ribbon)


def _crown(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    points = [(-1.0, -0.6), (-0.5, 0.0), (0, -0.85), (0.5, 0.0), (1.0, -0.6), (0.8, 0.75), (-0.8, 0.75)]
    pen.polygon(points, colour)
    for x, y in ((-1.0, -0.65), (0, -0.9), (1.0, -0.65)):
        pen.disc(x, y, 0.14, colour)
    for x in (-0.4, 0, 0.4):
        pen.disc(x, 0.45, 0.12, (220, 40, 80))


def _hat(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.oval(0, 0.65, 1.1, 0.22, colour)
    pen.box(-0.6, -0.85, 0.6, 0.65, colour)
    pen.box(-0.6, 0.2, 0.6, 0.48, (200, 40, 50) if sum(colour) < 300 else (60, 60, 70))


def _shirt(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.box(-0.6, -0.75, 0.6, 0.95, colour)
    for side in (-1, 1):
        pen.polygon([(0.5 * side, -0.75), (1.15 * side, -0.3), (0.9 * side, 0.1), (0.5 * side, -0.2)], colour)
    pen.oval(0, -0.78, 0.28, 0.2, ground)


def _hammer(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.box(-0.14, -0.5, 0.14, 1.1, (150, 100, 55))
    pen.box(-0.8, -0.95, 0.55, -0.4, colour)
    pen.polygon([(0.55, -0.95), (0.95, -0.75), (0.55, -0.5)], colour)


def _lock(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.disc(0, -0.35, 0.6, (140, 140, 145))
    pen.disc(0, -0.35, 0.38, ground)
    pen.box(-0.8, -0.25, 0.8, 0.95, colour)
    pen.disc(0, 0.25, 0.17, (40, 40, 45))
    pen.box(-0.08, 0.25, 0.08, 0.62, (40, 40, 45))


def _bottle(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.box(-0.18, -1.1, 0.18, -0.35, colour)
    pen.polygon([(-0.18, -0.6), (0.18, -0.6), (0.5, -0.1), (-0.5, -0.1)], colour)
    pen.box(-0.5, -0.12, 0.5, 1.05, colour)
    pen.box(-0.5, 0.2, 0.5, 0.65, (245, 240, 220))
    pen.box(-0.22, -1.15, 0.22, -0.95, (110, 70, 35))


def _leaf(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    edge = [(0.62 * sin(pi * i / 16), -1.05 + 1.75 * i / 16) for i in range(17)]
    pen.polygon([*edge, *[(-x, y) for x, y in reversed(edge)]], colour)
    pen.line([(0, -0.7), (0, 1.1)], 0.1, shade(colour, 0.55))
    for side in (-1, 1):
        pen.line([(0, 0.3), (0.35 * side, -0.05)], 0.07, shade(colour, 0.55))


def _snowman(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.disc(0, 0.5, 0.6, colour)
    pen.disc(0, -0.35, 0.42, colour)
    dark = _against(colour)
    for x in (-0.14, 0.14):
        pen.disc(x, -0.42, 0.07, dark)
    for y in (0.3, 0.6):
        pen.disc(0, y, 0.08, dark)
    pen.polygon([(0, -0.32), (0.45, -0.25), (0, -0.2)], (245, 130, 30))
    pen.box(-0.45, -0.82, 0.45, -0.7, (60, 50, 60))
    pen.box(-0.28, -1.15, 0.28, -0.75, (60, 50, 60))


def _cactus(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.oval(0, -0.1, 0.3, 0.95, colour)
    for side, y in ((-1, 0.1), (1, -0.15)):
        pen.line([(0, y), (0.62 * side, y), (0.62 * side, y - 0.5)], 0.24, colour)
        pen.disc(0.62 * side, y - 0.5, 0.12, colour)
        pen.disc(0.62 * side, y, 0.12, colour)
    pen.polygon([(-0.5, 0.6), (0.5, 0.6), (0.38, 1.1), (-0.38, 1.1)], (190, 95, 50))


def _ghost(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.disc(0, -0.25, 0.75, colour)
    pen.box(-0.75, -0.25, 0.75, 0.75, colour)
    for x in (-0.5, 0, 0.5):
        pen.disc(x, 0.75, 0.25, colour)
    dark = _against(colour)
    for x in (-0.28, 0.28):
        pen.oval(x, -0.25, 0.13, 0.19, dark)
    pen.disc(0, 0.2, 0.13, dark)


def _robot(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.line([(0, -0.7), (0, -1.05)], 0.09, shade(colour, 0.6))
    pen.disc(0, -1.05, 0.13, (230, 60, 60))
    pen.box(-0.75, -0.75, 0.75, 0.4, colour)
    pen.box(-0.5, 0.5, 0.5, 1.05, shade(colour, 0.7))
    for x in (-0.35, 0.35):
        pen.disc(x, -0.3, 0.2, (250, 245, 160))
        pen.disc(x, -0.3, 0.09, (30, 30, 30))
    pen.box(-0.4, 0.08, 0.4, 0.22, (40, 40, 45))


def _bus(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.box(-1.1, -0.7, 1.1, 0.5, colour)
    for x in (-0.95, -0.32, 0.31):
        pen.box(x, -0.5, x + 0.5, -0.05, (205, 230, 245))
    for x in (-0.6, 0.6):
        pen.disc(x, 0.55, 0.27, (40, 40, 45))
        pen.disc(x, 0.55, 0.11, (190, 190, 190))


def _chair(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.box(-0.7, -1.05, -0.45, 1.05, colour)
    pen.box(-0.7, 0.05, 0.75, 0.3, colour)
    pen.box(0.5, 0.05, 0.75, 1.05, colour)
    pen.box(-0.5, -0.95, -0.2, 0.05, shade(colour, 0.75))


def _camera(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.box(-0.35, -0.8, 0.35, -0.4, colour)
    pen.box(-1.05, -0.5, 1.05, 0.75, colour)
    pen.disc(0, 0.12, 0.48, (225, 225, 230))
    pen.disc(0, 0.12, 0.3, (45, 55, 75))
    pen.disc(0.8, -0.28, 0.11, (250, 230, 120))


def _lightning(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.polygon([(0.25, -1.1), (-0.65, 0.15), (-0.05, 0.15), (-0.3, 1.1), (0.65, -0.3), (0.05, -0.3)], colour)


def _drop(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.disc(0, 0.35, 0.68, colour)
    pen.polygon([(0, -1.1), (0.6, 0.05), (-0.6, 0.05)], colour)
    pen.oval(-0.28, 0.4, 0.12, 0.25, shade(colour, 1.7))


def _egg(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    for x, y, r in ((-0.3, -0.15, 0.65), (0.35, 0.0, 0.62), (-0.05, 0.3, 0.62)):
        pen.disc(x, y, r, colour)
    pen.disc(0, 0.05, 0.36, (250, 190, 30) if colour[2] > 60 else (220, 60, 40))


def _lollipop(pen: Pen, colour: Rgb, ground: Rgb) -> None:
    pen.box(-0.07, 0.1, 0.07, 1.15, (235, 225, 205))
    for r, tone in ((0.68, 1.0), (0.5, 1.6), (0.33, 1.0), (0.16, 1.6)):
        pen.disc(0, -0.4, r, shade(colour, tone))


ICONS: dict[str, DrawFunction] = {
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
    "cat": _cat,
    "bird": _bird,
    "butterfly": _butterfly,
    "cup": _cup,
    "rocket": _rocket,
    "key": _key,
    "umbrella": _umbrella,
    "balloon": _balloon,
    "cherry": _cherry,
    "carrot": _carrot,
    "candle": _candle,
    "bell": _bell,
    "clock": _clock,
    "book": _book,
    "envelope": _envelope,
    "flag": _flag,
    "gift": _gift,
    "crown": _crown,
    "hat": _hat,
    "shirt": _shirt,
    "hammer": _hammer,
    "lock": _lock,
    "bottle": _bottle,
    "leaf": _leaf,
    "snowman": _snowman,
    "cactus": _cactus,
    "ghost": _ghost,
    "robot": _robot,
    "bus": _bus,
    "chair": _chair,
    "camera": _camera,
    "lightning": _lightning,
    "drop": _drop,
    "egg": _egg,
    "lollipop": _lollipop,
}

ICON_COLOURS: dict[str, tuple[str, ...]] = {
    "house": (
        "orange",
        "red",
    ),
    "tree": ("green",),
    "sun": (
        "yellow",
        "orange",
    ),
    "moon": (
        "yellow",
        "white",
    ),
    "flower": (
        "pink",
        "purple",
    ),
    "boat": (
        "brown",
        "blue",
    ),
    "car": (
        "red",
        "blue",
    ),
    "fish": (
        "orange",
        "blue",
    ),
    "face": (
        "yellow",
        "orange",
    ),
    "apple": (
        "red",
        "green",
    ),
    "cloud": (
        "white",
        "gray",
    ),
    "mushroom": (
        "red",
        "brown",
    ),
    "cat": (
        "gray",
        "orange",
    ),
    "bird": (
        "blue",
        "red",
    ),
    "butterfly": (
        "purple",
        "orange",
    ),
    "cup": (
        "blue",
        "white",
    ),
    "rocket": (
        "red",
        "white",
    ),
    "key": (
        "yellow",
        "gray",
    ),
    "umbrella": (
        "purple",
        "red",
    ),
    "balloon": (
        "red",
        "blue",
    ),
    "cherry": (
        "red",
        "pink",
    ),
    "carrot": (
        "orange",
        "purple",
    ),
    "candle": (
        "white",
        "red",
    ),
    "bell": (
        "yellow",
        "orange",
    ),
    "clock": (
        "brown",
        "blue",
    ),
    "book": (
        "blue",
        "red",
    ),
    "envelope": (
        "white",
        "yellow",
    ),
    "flag": (
        "red",
        "green",
    ),
    "gift": (
        "green",
        "purple",
    ),
    "crown": (
        "yellow",
        "orange",
    ),
    "hat": (
        "black",
        "brown",
    ),
    "shirt": (
        "cyan",
        "white",
    ),
    "hammer": (
        "gray",
        "black",
    ),
    "lock": (
        "orange",
        "yellow",
    ),
    "bottle": (
        "green",
        "brown",
    ),
    "leaf": (
        "green",
        "orange",
    ),
    "snowman": (
        "white",
        "cyan",
    ),
    "cactus": (
        "green",
        "cyan",
    ),
    "ghost": (
        "white",
        "gray",
    ),
    "robot": (
        "gray",
        "cyan",
    ),
    "bus": (
        "yellow",
        "orange",
    ),
    "chair": (
        "brown",
        "orange",
    ),
    "camera": (
        "black",
        "gray",
    ),
    "lightning": (
        "yellow",
        "orange",
    ),
    "drop": (
        "cyan",
        "blue",
    ),
    "egg": (
        "white",
        "yellow",
    ),
    "lollipop": (
        "pink",
        "purple",
    ),
}
"""Colours of an icon when the prompt names none: the first that is not the background's."""

KINDS: dict[str, DrawFunction] = SHAPES | ICONS


def paint(draw: ImageDraw.ImageDraw, kind: str, centre: Point, radius: float, colour: Rgb, ground: Rgb) -> None:
    """Draw one object of a kind."""
    KINDS[kind](Pen(draw, centre, radius), colour, ground)
