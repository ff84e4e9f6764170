"""How good forecasts have been, and how wide the next one must be. Pure.

The interval is conformal: the quantiles of how far earlier forecasts were off, in units of what was expected of each.
Every miss widens it and every hit narrows it a little, so that it holds where the machine changes, too.
Source: Gibbs and Candes, Adaptive Conformal Inference Under Distribution Shift, 2021.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, exp, floor, hypot
from statistics import median
from typing import Any

from gateway.forecast.series import Cost

MISSED = 0.06
"""Of the forecasts may lie outside their interval: a little less than is promised, as those of a burst err together."""
ADAPT = 0.1
"""How much a miss widens the interval, as a logarithm; hits take that back in sixteen steps."""
WIDTHS = (0.5, 4.0)
SCORES = 30, 100
"""Scores kept, least and most."""
NEWEST = 0.7
"""Share of all scores that is kept between the two: what a beginner missed widens no interval for long."""
RECORDED = 500
AT_LEAST_S = 2.0
"""Shorter waits count for no error: a tenth of a second would be much of them."""
AT_FIRST = (-1.6, -1.0, -0.6, -0.3, 0.0, 0.3, 0.6, 1.0, 1.6, 2.0)
OWN_SPREAD = 0.05
"""Relative spread that all parts of a job share, such as the machine's other work."""
LEAST_S = 0.03


@dataclass(frozen=True, slots=True)
class Record:
    """Of the newest forecasts made at submit whose jobs have succeeded since."""

    count: int
    median_error: float | None
    """Of the time until done, relative to what it was; of waits of 2 s and more. None before any."""
    median_wait_error: float | None
    """The same of the time until it began."""
    coverage: float | None
    """How many were done within their 90 % interval."""


class Accuracy:
    """Forecasts held against what came."""

    def __init__(self) -> None:
        self._scores: deque[float] = deque(AT_FIRST, maxlen=SCORES[1])
        self._errors: deque[float] = deque(maxlen=RECORDED)
        self._wait_errors: deque[float] = deque(maxlen=RECORDED)
        self._held: deque[bool] = deque(maxlen=RECORDED)
        self._width = 1.0
        self.count = 0

    def interval(self, expected: Cost) -> tuple[float, float]:
        """Seconds within which nine of ten are done."""
        scores, unit = sorted(self._scores), unit_of(expected)
        low = expected.seconds + unit * self._width * _lower(scores, MISSED / 2)
        high = expected.seconds + unit * self._width * _upper(scores, MISSED / 2)
        return max(0.0, min(low, expected.seconds)), max(high, expected.seconds)

    def note(self, expected: Cost, interval: tuple[float, float], actual_s: float) -> None:
        """A job was done after `actual_s`."""
        self._scores.append((actual_s - expected.seconds) / unit_of(expected))
        held = interval[0] <= actual_s <= interval[1]
        self._held.append(held)
        self._width = min(max(self._width * exp(ADAPT * ((not held) - MISSED)), WIDTHS[0]), WIDTHS[1])
        if actual_s >= AT_LEAST_S:
            self._errors.append(abs(actual_s - expected.seconds) / actual_s)
        self.count += 1
        while len(self._scores) > max(SCORES[0], NEWEST * (self.count + len(AT_FIRST))):
            self._scores.popleft()

    def note_wait(self, expected_s: float, actual_s: float) -> None:
        """A job began after `actual_s`."""
        if actual_s >= AT_LEAST_S:
            self._wait_errors.append(abs(actual_s - expected_s) / actual_s)

    @property
    def record(self) -> Record:
        return Record(
            count=self.count,
            median_error=median(self._errors) if self._errors else None,
            median_wait_error=median(self._wait_errors) if self._wait_errors else None,
            coverage=sum(self._held) / len(self._held) if self._held else None,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "scores": [round(score, 3) for score in self._scores],
            "errors": [round(error, 4) for error in self._errors],
            "wait_errors": [round(error, 4) for error in self._wait_errors],
            "held": [int(held) for held in self._held],
            "width": self._width,
            "count": self.count,
        }

    def read_json(self, kept: dict[str, Any]) -> None:
        """Raises: KeyError, ValueError, TypeError for what was not written by `to_json`."""
        self._scores = deque((float(score) for score in kept["scores"]), maxlen=SCORES[1])
        self._errors.extend(float(error) for error in kept["errors"])
        self._wait_errors.extend(float(error) for error in kept["wait_errors"])
        self._held.extend(bool(held) for held in kept["held"])
        self._width, self.count = float(kept["width"]), int(kept["count"])


def unit_of(expected: Cost) -> float:
    """How far off a forecast may be expected to be."""
    return hypot(expected.spread, OWN_SPREAD * expected.seconds, LEAST_S)


def _lower(scores: Sequence[float], share: float) -> float:
    """Below it lies at most this share of what comes."""
    return scores[max(0, floor((len(scores) + 1) * share) - 1)]


def _upper(scores: Sequence[float], share: float) -> float:
    return scores[min(len(scores) - 1, ceil((len(scores) + 1) * (1 - share)) - 1)]
