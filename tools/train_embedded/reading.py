"""Recognition of an image's content from its pixels: background, objects, their colours and outlines."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from .drawing import SHAPES
from .icons import KINDS, paint
from .scenes import COLOURS, NIGHT

CONTRAST = 60.0
"""Minimum RGB distance of an object's pixel from the background."""

DARK = 30.0
"""Maximum RGB distance from the colour of night."""

SMALLEST_AREA = 30
MASK_PX = 48
LOOK_PX = 32


@dataclass(frozen=True)
class Found:
    """One connected object: its mask over the image, area, centre (x, y) and colour name."""

    mask: np.ndarray
    area: int
    centre: tuple[float, float]
    colour: str


def nearest_colour(rgb: np.ndarray) -> str:
    """Name of the palette colour closest to an RGB value."""
    return min(COLOURS, key=lambda name: float(np.linalg.norm(rgb - np.array(COLOURS[name]))))


def _background_rgb(pixels: np.ndarray) -> np.ndarray:
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return np.median(border, axis=0)


def background(image: Image.Image) -> str:
    """Colour name of the border."""
    return nearest_colour(_background_rgb(np.asarray(image.convert("RGB"), dtype=float)))


def is_night(image: Image.Image) -> bool:
    """Whether the border is as dark as at night: nearer to that or to black than to any other colour."""
    rgb = _background_rgb(np.asarray(image.convert("RGB"), dtype=float))
    return float(np.linalg.norm(rgb - np.array(NIGHT))) < DARK or nearest_colour(rgb) == "black"


def _components(mask: np.ndarray) -> Iterator[np.ndarray]:
    """Four-connected components of a mask."""
    left = mask.copy()
    height, width = mask.shape
    for start in zip(*np.nonzero(mask), strict=True):
        if not left[start]:
            continue
        part = np.zeros_like(mask)
        stack = [start]
        left[start] = False
        while stack:
            y, x = stack.pop()
            part[y, x] = True
            for ny, nx in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= ny < height and 0 <= nx < width and left[ny, nx]:
                    left[ny, nx] = False
                    stack.append((ny, nx))
        yield part


def _foreground(pixels: np.ndarray) -> np.ndarray:
    return np.linalg.norm(pixels - _background_rgb(pixels), axis=-1) > CONTRAST


def _found(part: np.ndarray, pixels: np.ndarray) -> Found:
    ys, xs = np.nonzero(part)
    colour = nearest_colour(np.median(pixels[part], axis=0))
    return Found(part, int(part.sum()), (float(xs.mean()), float(ys.mean())), colour)


def objects(image: Image.Image) -> list[Found]:
    """Objects of an image, largest first; specks are left out."""
    pixels = np.asarray(image.convert("RGB"), dtype=float)
    parts = [part for part in _components(_foreground(pixels)) if part.sum() >= SMALLEST_AREA]
    found = sorted((_found(part, pixels) for part in parts), key=lambda thing: -thing.area)
    return [thing for thing in found if thing.area > 0.05 * found[0].area]


def whole(image: Image.Image) -> Found | None:
    """Everything but the background as one object: icons have parts that do not touch."""
    pixels = np.asarray(image.convert("RGB"), dtype=float)
    mask = _foreground(pixels)
    return _found(mask, pixels) if mask.sum() >= SMALLEST_AREA else None


def _normalised(mask: np.ndarray) -> np.ndarray:
    """The mask centred on its centroid and scaled to a common size of its bounding box."""
    ys, xs = np.nonzero(mask)
    centre_x, centre_y = (xs.min() + xs.max()) / 2, (ys.min() + ys.max()) / 2
    half = max(xs.max() - xs.min(), ys.max() - ys.min(), 1) / 2 + 1
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    box = (centre_x - half + 0.5, centre_y - half + 0.5, centre_x + half + 0.5, centre_y + half + 0.5)
    return np.asarray(image.resize((MASK_PX, MASK_PX), Image.Resampling.BILINEAR, box=_inside(image, box))) > 127


def _inside(image: Image.Image, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    return max(0.0, box[0]), max(0.0, box[1]), min(float(image.width), box[2]), min(float(image.height), box[3])


@cache
def _reference(kind: str) -> np.ndarray:
    image = Image.new("RGB", (192, 192), (255, 255, 255))
    paint(ImageDraw.Draw(image), kind, (96, 96), 60, (200, 0, 0), (255, 255, 255))
    return _normalised(np.asarray(image.convert("L")) < 235)


def outline_scores(thing: Found) -> dict[str, float]:
    """Overlap of an object's outline with every known kind, from 0 to 1."""
    mask = _normalised(thing.mask)
    return {kind: float((mask & _reference(kind)).sum() / (mask | _reference(kind)).sum()) for kind in KINDS}


def nearest_kind(thing: Found, kinds: tuple[str, ...] = tuple(SHAPES)) -> str:
    """The kind whose outline fits best."""
    scores = outline_scores(thing)
    return max(kinds, key=lambda kind: scores[kind])


def appearance(image: Image.Image) -> np.ndarray | None:
    """The object of an image, as `LOOK_PX` x `LOOK_PX` x 3 values from 0 to 1, whatever place and size."""
    thing = whole(image)
    if thing is None:
        return None
    ys, xs = np.nonzero(thing.mask)
    centre_x, centre_y = (xs.min() + xs.max() + 1) / 2, (ys.min() + ys.max() + 1) / 2
    half = max(xs.max() - xs.min(), ys.max() - ys.min()) / 2 + 2
    ground = tuple(round(value) for value in _background_rgb(np.asarray(image.convert("RGB"), dtype=float)))
    margin = image.width
    wide = Image.new("RGB", (image.width + 2 * margin, image.height + 2 * margin), ground)
    wide.paste(image, (margin, margin))
    box = tuple(value + margin for value in (centre_x - half, centre_y - half, centre_x + half, centre_y + half))
    return np.asarray(wide.resize((LOOK_PX, LOOK_PX), Image.Resampling.BILINEAR, box=box), dtype=float) / 255
