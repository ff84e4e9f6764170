"""Tiles of large images, which overlap, and merging of lines that were found in several of them. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.ocr.boxes import Box, overlap, rectangle

TILE_PX = 960
"""Longest side that the detector sees at once: there it finds letters of 8 to 250 pixels."""
OVERLAP_PX = 160
"""Overlap of two neighbours. A line that is not higher is whole in one of them."""
MOST_TILES = 64
"""Tiles of one page at one scale."""
SAME_LINE = 0.6
"""Share of the lower one's height by which two parts of one line overlap."""
LARGE_PX = 0.75 * OVERLAP_PX
"""Height from which a line may be cut in every tile."""
LIKE = 0.6
"""Least ratio of the heights of two boxes of one line."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A part of an image, in its pixels."""

    left: int
    top: int
    right: int
    bottom: int


def tiles_of(width: int, height: int, scale: float) -> list[Tile]:
    """Tiles that cover an image, at most TILE_PX long after scaling; none if there would be too many."""
    across, down = _starts(width, scale), _starts(height, scale)
    if len(across) * len(down) > MOST_TILES:
        return []
    size = math.ceil(TILE_PX / scale)
    return [Tile(x, y, min(width, x + size), min(height, y + size)) for y in down for x in across]


def _starts(length: int, scale: float) -> list[int]:
    size, shared = math.ceil(TILE_PX / scale), OVERLAP_PX / scale
    if length <= size:
        return [0]
    number = math.ceil((length - shared) / (size - shared))
    return [round(n * (length - size) / (number - 1)) for n in range(number)]


def merged(parts: Sequence[Sequence[Box]]) -> list[Box]:
    """The boxes of all tiles with each line once: parts of one line that touch or overlap are joined."""
    boxes = [box for part in parts for box in part]
    tile = [number for number, part in enumerate(parts) for _ in part]
    parent = list(range(len(boxes)))

    def root(n: int) -> int:
        while parent[n] != n:
            parent[n] = parent[parent[n]]
            n = parent[n]
        return n

    by_top = sorted(range(len(boxes)), key=lambda n: boxes[n].top)
    for place, a in enumerate(by_top):
        for b in by_top[place + 1 :]:
            if boxes[b].top >= boxes[a].bottom:
                break
            if tile[a] != tile[b] and _are_one(boxes[a], boxes[b]):
                parent[root(a)] = root(b)
    groups: dict[int, list[Box]] = {}
    for n, box in enumerate(boxes):
        groups.setdefault(root(n), []).append(box)
    return [_joined(group) for group in groups.values()]


def _are_one(a: Box, b: Box) -> bool:
    """Whether two boxes of different tiles are the same line, or parts of it."""
    low, high = sorted((a.height, b.height))
    down = overlap((a.top, a.bottom), (b.top, b.bottom))
    across = overlap((a.left, a.right), (b.left, b.right))
    if down < SAME_LINE * low:
        return False
    if low >= LIKE * high:
        return across > -0.3 * low
    # A box that was cut at a border is inside the whole line, which the other tile has.
    return across >= 0.7 * min(a.width, b.width)


def _joined(group: Sequence[Box]) -> Box:
    """One box around all of them; the widest keeps its corners if it covers the others."""
    score = max(box.score for box in group)
    left, right = min(box.left for box in group), max(box.right for box in group)
    top, bottom = min(box.top for box in group), max(box.bottom for box in group)
    widest = max(group, key=lambda box: (box.width * box.height, box.score))
    slack = 0.25 * widest.across
    if (
        widest.left - left <= slack
        and right - widest.right <= slack
        and widest.top - top <= slack
        and bottom - widest.bottom <= slack
    ):
        return Box(widest.corners, score)
    # Parts of one rotated line: its edges go from the first part's edges to the last one's.
    first = min(group, key=lambda box: box.left)
    last = max(group, key=lambda box: box.right)
    if (right - left) >= 2 * (bottom - top) and first is not last:
        corners = (first.corners[0], last.corners[1], last.corners[2], first.corners[3])
        if corners[1][0] > corners[0][0]:
            return Box(corners, score)
    return rectangle(left, top, right, bottom, score)


def with_large(fine: Sequence[Box], coarse: Sequence[Box]) -> list[Box]:
    """Boxes of the search at a large scale and at a small scale, each line once.

    Only the large scale separates small letters, and only the small scale has letters whole that are higher than the
    overlap of tiles.
    """
    boxes = list(fine)
    for far in coarse:
        within = [box for box in boxes if _share(box, far) > 0.5]
        if not within:
            if not any(_share(far, box) > 0.3 for box in boxes):
                boxes.append(far)
        elif len(within) > 1 and far.height > LARGE_PX and all(box.height >= LIKE * far.height for box in within):
            boxes = [box for box in boxes if box not in within]
            boxes.append(far)
    return boxes


def _share(box: Box, other: Box) -> float:
    """Share of `box` that is inside `other`: 0 to 1."""
    across = max(0.0, overlap((box.left, box.right), (other.left, other.right)))
    down = max(0.0, overlap((box.top, box.bottom), (other.top, other.bottom)))
    return across * down / max(1.0, box.width * box.height)
