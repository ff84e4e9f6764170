"""Reading order of lines: columns one after the other, tables and receipts row by row. Pure.

First a cut between columns is searched (recursive X-Y cut); parts without columns are split at horizontal gaps, then
read in rows. Lines that cross a cut, such as headings, separate the columns above from those below.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gateway.ocr.boxes import Box, overlap

SAME_ROW = 0.5
"""Share of the lower box's height by which two boxes in one row overlap vertically."""
FILLED = 0.7
"""Share of its column's width that a line of running text fills."""
PROSE_ASPECT = 8.0
"""Length in heights from which a line may be running text: about sixteen letters."""
LEVEL = 0.6
"""Share of the lower box's height by which two cells in one row of a table overlap vertically."""
GUTTER = 0.5
"""Least distance between two columns, as a share of a line's height."""
WIDE = 8
"""One of so many lines of running text may reach into the gutter, such as the box of a heading."""
GAP = 1.2
"""Least height of a gap that separates what is above from what is below, in heights of a line."""
COLUMN_LINES = 2
"""Least number of lines in a column: two captions side by side are a row."""
ALIGNED = 0.8
"""Share of the shorter column's lines that are beside a line of the other one if both belong to a table."""
MOST_EDGES = 24
"""Positions tried for a cut, starting with those where most lines begin."""
MOST_DEPTH = 40


@dataclass(frozen=True, slots=True, eq=False)
class _Line:
    """A box after the page was straightened."""

    number: int
    left: float
    right: float
    top: float
    bottom: float

    @property
    def middle(self) -> float:
        return (self.top + self.bottom) / 2

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def y(self) -> tuple[float, float]:
        return self.top, self.bottom


def in_reading_order(boxes: Sequence[Box]) -> list[Box]:
    """The boxes of an upright page in reading order."""
    lines = _straightened(boxes)
    return [boxes[line.number] for line in _ordered(lines, 0)]


def _straightened(boxes: Sequence[Box]) -> list[_Line]:
    """Boxes of a slightly rotated page, rotated back about its corner by the angle of its long lines."""
    slopes = [
        (math.atan2(b.corners[1][1] - b.corners[0][1], b.corners[1][0] - b.corners[0][0]), b.along)
        for b in boxes
        if b.along >= 4 * b.across
    ]
    angle = _weighted_median(slopes)
    cos, sin = math.cos(-angle), math.sin(-angle)
    lines = []
    for number, box in enumerate(boxes):
        xs = [x * cos - y * sin for x, y in box.corners]
        ys = [x * sin + y * cos for x, y in box.corners]
        lines.append(_Line(number, min(xs), max(xs), min(ys), max(ys)))
    return lines


def _weighted_median(pairs: Sequence[tuple[float, float]]) -> float:
    """Median of values with weights; 0 without values."""
    half, so_far = sum(weight for _, weight in pairs) / 2, 0.0
    for value, weight in sorted(pairs):
        so_far += weight
        if so_far >= half:
            return value
    return 0.0


def _ordered(lines: list[_Line], depth: int) -> Iterator[_Line]:
    if len(lines) <= 1 or depth > MOST_DEPTH:
        yield from sorted(lines, key=lambda line: (line.middle, line.left))
        return
    if (cut := _column_cut(lines)) is not None:
        for part in _along_cut(lines, cut):
            yield from _ordered(part, depth + 1)
    elif len(parts := _stacked(lines)) > 1:
        for part in parts:
            yield from _ordered(part, depth + 1)
    else:
        yield from (line for row in rows(lines) for line in row)


def rows(lines: Sequence[_Line]) -> list[list[_Line]]:
    """Lines in rows from top to bottom, each row from left to right."""
    rows_so_far: list[list[_Line]] = []
    for line in sorted(lines, key=lambda line: line.middle):
        row = next((row for row in reversed(rows_so_far[-3:]) if _beside(line, row)), None)
        if row is None:
            rows_so_far.append([line])
        else:
            row.append(line)
    rows_so_far.sort(key=lambda row: statistics.fmean(line.middle for line in row))
    return [sorted(row, key=lambda line: line.left) for row in rows_so_far]


def _beside(line: _Line, row: Sequence[_Line]) -> bool:
    """Whether a line is in the row: it is beside all of its lines, and neither above nor below any."""
    return all(
        overlap(line.y, other.y) >= SAME_ROW * min(line.height, other.height)
        and overlap((line.left, line.right), (other.left, other.right)) < 0.5 * min(line.width, other.width)
        for other in row
    )


# ---- columns ---------------------------------------------------------------------------------------


def _column_cut(lines: Sequence[_Line]) -> float | None:
    """The best x at which the lines split into columns; None if there are none."""
    best: tuple[int, float, float] | None = None
    for x in _edges(lines):
        number, width = 0, math.inf
        for _, left, right in _bands(lines, x):
            if left and right and _are_columns(left, right):
                number += min(len(left), len(right))
                width = min(width, min(line.left for line in right) - max(line.right for line in left))
        if number and (best is None or (number, width) > best[:2]):
            best = (number, width, x)
    return None if best is None else best[2]


def _edges(lines: Sequence[_Line]) -> list[float]:
    """Where a column may begin: the left edges of lines that begin below each other."""
    height = statistics.median(line.height for line in lines)
    edges: list[tuple[float, int]] = []
    for left in sorted(line.left for line in lines):
        if edges and left - edges[-1][0] <= height / 2:
            edges[-1] = (edges[-1][0], edges[-1][1] + 1)
        else:
            edges.append((left, 1))
    several = [(left, number) for left, number in edges[1:] if number >= COLUMN_LINES]
    several.sort(key=lambda edge: -edge[1])
    return sorted(left - 1 for left, _ in several[:MOST_EDGES])


def _bands(lines: Sequence[_Line], x: float) -> list[tuple[list[_Line], list[_Line], list[_Line]]]:
    """Lines that cross x, from the top, each with the lines left and right of x between it and the next one."""
    crossing = sorted((line for line in lines if line.left < x < line.right), key=lambda line: line.middle)
    bands: list[tuple[list[_Line], list[_Line], list[_Line]]] = [([], [], [])]
    rest = iter(sorted((line for line in lines if not line.left < x < line.right), key=lambda line: line.middle))
    waiting = next(rest, None)
    for heading in [*crossing, None]:
        while waiting is not None and (heading is None or waiting.middle < heading.middle):
            bands[-1][1 if waiting.right <= x else 2].append(waiting)
            waiting = next(rest, None)
        if heading is not None:
            if bands[-1][1] or bands[-1][2]:
                bands.append(([], [], []))
            bands[-1][0].append(heading)
    return bands


def _along_cut(lines: Sequence[_Line], x: float) -> Iterator[list[_Line]]:
    """The parts in order. Neighbouring bands without columns at x are one part, which is searched again."""
    whole: list[_Line] = []
    for crossing, left, right in _bands(lines, x):
        whole += crossing
        if left and right and _are_columns(left, right):
            if whole:
                yield whole
            yield left
            yield right
            whole = []
        else:
            whole += [*left, *right]
    if whole:
        yield whole


def _are_columns(left: Sequence[_Line], right: Sequence[_Line]) -> bool:
    """Whether all of `left` is read before all of `right`, and not row by row."""
    if min(len(rows(left)), len(rows(right))) < COLUMN_LINES:
        return False
    prose = _is_prose(left) and _is_prose(right)
    height = statistics.median(line.height for line in (*left, *right))
    if _gutter(left, right, spared=1 / WIDE if prose else 0) < GUTTER * height:
        return False
    few, many = sorted((left, right), key=len)
    # The bubbles of a chat are also left and right, but not beside each other.
    if sum(any(overlap(line.y, other.y) > 0 for other in many) for line in few) < len(few) / 2:
        return False
    if prose:
        return True
    level = sum(any(_is_level(line, other) for other in many) for line in few)
    return level < ALIGNED * len(few)


def _gutter(left: Sequence[_Line], right: Sequence[_Line], spared: float) -> float:
    """Width of the gap between two columns, without the share `spared` of lines that reach furthest into it."""
    ends, starts = sorted(line.right for line in left), sorted(line.left for line in right)
    return starts[int(len(starts) * spared)] - ends[-1 - int(len(ends) * spared)]


def _is_level(line: _Line, other: _Line) -> bool:
    return overlap(line.y, other.y) >= LEVEL * min(line.height, other.height)


def _is_prose(lines: Sequence[_Line]) -> bool:
    """Whether most lines fill the width of their column, as in running text and unlike the cells of a table."""
    columns: list[list[float]] = []
    for line in sorted(lines, key=lambda line: line.left):
        if columns and line.left < columns[-1][1]:
            columns[-1][1] = max(columns[-1][1], line.right)
        else:
            columns.append([line.left, line.right])
    filled = 0
    for line in lines:
        left, right = next(c for c in columns if c[0] <= line.left <= c[1])
        filled += line.width >= FILLED * (right - left) and line.width >= PROSE_ASPECT * line.height
    return filled >= len(lines) / 2


# ---- parts above each other ------------------------------------------------------------------------


def _stacked(lines: Sequence[_Line]) -> list[list[_Line]]:
    """Lines split at every horizontal gap that is higher than a line."""
    height = statistics.median(line.height for line in lines)
    parts: list[list[_Line]] = []
    bottom = -math.inf
    for line in sorted(lines, key=lambda line: line.top):
        if not parts or line.top - bottom > GAP * height:
            parts.append([])
        parts[-1].append(line)
        bottom = max(bottom, line.bottom)
    return parts
