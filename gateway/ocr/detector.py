"""Detector: image to boxes of lines, by rapidocr's detector, in tiles if the image is large. Runs in the child."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from gateway.ocr.boxes import Box, Corners, clockwise
from gateway.ocr.tiles import TILE_PX, Tile, merged, tiles_of, with_large

Pixels = Any
"""Array of height x width x 3, BGR, eight bits."""
LEAST_PX = 64
"""Least height; a lower image gets a margin."""
STEP_PX = 32
"""The detector takes sizes that are multiples of this."""
SMALL_PX = 14
"""Height of a detected box below which the image is searched again at twice the size."""
LONG = 2.5
"""Ratio of sides from which a tall or wide image is searched at full size at once: letters may have any size."""
MOST_LEFT = 0.02
"""Share of an image's edges that may be outside the boxes if all lines have been found."""
LEAST_EDGES = 24
"""Pixels of strong contrast that make a part worth searching."""


class Detector:
    """Detector of lines; `det` is rapidocr's TextDetector."""

    def __init__(self, det: Any) -> None:
        self._det = det

    def glance(self, image: Pixels) -> list[Box]:
        """Boxes in the whole image, scaled to at most TILE_PX."""
        scale = min(1.0, TILE_PX / max(image.shape[:2]))
        return [box.scaled(1 / scale) for box in self._detect(_resized(image, scale))]

    def boxes(self, image: Pixels, glanced: list[Box], goes_on: Callable[[float], bool]) -> list[Box]:
        """All lines of an upright image; `glanced` are the boxes that `glance` found.

        `goes_on` is called with the share that is done, 0 to 1, and returns whether there is time for more.
        """
        height, width = image.shape[:2]
        boxes = glanced
        if max(width, height) > 2 * TILE_PX and max(width, height) < LONG * min(width, height):
            boxes = with_large(self._tiled(image, 0.5, goes_on), glanced)
            if _is_all_there(image, boxes, 2 * SMALL_PX):
                return boxes
        if max(width, height) > TILE_PX:
            return with_large(self._tiled(image, 1.0, goes_on), glanced)
        if _has_edges(image) if not boxes else _are_small(boxes, SMALL_PX):
            boxes = with_large(self._tiled(image, 2.0, goes_on), boxes)
        return boxes

    def _tiled(self, image: Pixels, scale: float, goes_on: Callable[[float], bool]) -> list[Box]:
        height, width = image.shape[:2]
        tiles = tiles_of(width, height, scale)
        parts: list[list[Box]] = []
        for number, tile in enumerate(tiles):
            if not goes_on(number / len(tiles)):
                break
            parts.append(self._in(image, tile, scale))
        return merged(parts)

    def _in(self, image: Pixels, tile: Tile, scale: float) -> list[Box]:
        part = image[tile.top : tile.bottom, tile.left : tile.right]
        if not _has_edges(part):
            return []
        boxes = self._detect(_resized(part, scale))
        return [box.scaled(1 / scale).moved(tile.left, tile.top) for box in boxes]

    def _detect(self, image: Pixels) -> list[Box]:
        """Boxes in an image of at most TILE_PX. It is not scaled, but gets a margin if it is too small."""
        height, width = image.shape[:2]
        wide, high = (max(LEAST_PX, -(-side // STEP_PX) * STEP_PX) for side in (width, height))
        left, top = (wide - width) // 2, (high - height) // 2
        padded = cv2.copyMakeBorder(image, top, high - height - top, left, wide - width - left, cv2.BORDER_REPLICATE)
        ready = ((padded.astype(np.float32) / 255 - 0.5) / 0.5).transpose(2, 0, 1)[np.newaxis]
        corners, scores = self._det.postprocess_op(self._det.session(np.ascontiguousarray(ready)), (high, wide))
        boxes = []
        for four, score in zip(np.asarray(corners).tolist(), scores, strict=True):
            box = Box(_inside(four, left, top, width, height), float(score))
            if min(box.along, box.across) >= 3:
                boxes.append(box)
        return boxes


def _inside(points: list[list[float]], left: int, top: int, width: int, height: int) -> Corners:
    """Corners in the image without its margin."""
    return clockwise([(min(max(x - left, 0), width), min(max(y - top, 0), height)) for x, y in points])


def _resized(image: Pixels, scale: float) -> Pixels:
    if scale == 1:
        return image
    height, width = image.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def _has_edges(image: Pixels) -> bool:
    """Whether the image has any strong edges."""
    return bool(_edges(image).sum() >= LEAST_EDGES)


def _edges(image: Pixels) -> Any:
    """Edge pixels, which differ from their neighbours: an array of 0 and 1."""
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_BGR2GRAY)
    steps = cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8))
    return cv2.threshold(steps, 24, 1, cv2.THRESH_BINARY)[1]


def _are_small(boxes: list[Box], small_px: float) -> bool:
    """Whether there are lines lower than `small_px`, beyond single specks."""
    return sum(box.across < small_px for box in boxes) > len(boxes) // 10


def _is_all_there(image: Pixels, boxes: list[Box], small_px: float) -> bool:
    """Whether a search at a larger scale would find no more: no line is small, and no text-like edges are outside."""
    if _are_small(boxes, small_px):
        return False
    edges = _edges(image)
    # Long strokes are rulings and frames.
    for shape in ((1, 60), (60, 1)):
        edges -= cv2.morphologyEx(edges, cv2.MORPH_OPEN, np.ones(shape, np.uint8))
    everything = int(edges.sum())
    cv2.fillPoly(edges, [np.asarray(box.corners, np.int32) for box in boxes], 0)
    return int(edges.sum()) <= max(LEAST_EDGES, MOST_LEFT * everything)
