"""Accuracy of forecasts: how good they were, and how wide the next interval must be. Pure.

The interval is conformal: it consists of quantiles of earlier errors, in units of what was expected. Every miss widens
it and every hit narrows it a little, so that it adapts when the machine changes.
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
"""Share of forecasts that may lie outside their interval: less than promised, as errors in a burst are correlated."""
ADAPT = 0.1
"""How much a miss widens the interval, as a logarithm; sixteen hits undo it."""
WIDTHS = (0.5, 4.0)
SCORES = 30, 100
"""Least and most scores that are kept."""
NEWEST = 0.7
"""Share of all scores that is kept between those bounds: early misses do not widen intervals for long."""
RECORDED = 500
AT_LEAST_S = 2.0
"""Shorter waits are not counted: an error of 0.1 s would be a large part of them."""
AT_FIRST = (-1.6, -1.0, -0.6, -0.3, 0.0, 0.3, 0.6, 1.0, 1.6, 2.0)
OWN_SPREAD = 0.05
"""Relative spread that all parts of a job share, such as other work on the machine."""
LEAST_S = 0.03


@dataclass(frozen=True, slots=True)
class Record:
    """Accuracy of the newest forecasts made at submit whose jobs have succeeded since."""

    count: int
    median_error: float | None
    """Median error of the time until done, relative to the actual time, for waits of 2 s or more. None before any."""
    median_wait_error: float | None
    """The same for the time until the start."""
    coverage: float | None
    """Share of jobs that were done within their 90 % interval."""


class Accuracy:
    """Forecasts compared with actual times."""

    def __init__(self) -> None:
        self._scores: deque[float] = deque(AT_FIRST, maxlen=SCORES[1])
        self._errors: deque[float] = deque(maxlen=RECORDED)
        self._wait_errors: deque[float] = deque(maxlen=RECORDED)
        self._hits: deque[bool] = deque(maxlen=RECORDED)
        self._width = 1.0
        self.count = 0

    def interval(self, expected: Cost) -> tuple[float, float]:
        """Seconds within which nine of ten jobs are done."""
        scores, unit = sorted(self._scores), unit_of(expected)
        low = expected.seconds + unit * self._width * _lower(scores, MISSED / 2)
        high = expected.seconds + unit * self._width * _upper(scores, MISSED / 2)
        return max(0.0, min(low, expected.seconds)), max(high, expected.seconds)

    def note(self, expected: Cost, interval: tuple[float, float], actual_s: float) -> None:
        """Record that a job was done after `actual_s`."""
        self._scores.append((actual_s - expected.seconds) / unit_of(expected))
        is_hit = interval[0] <= actual_s <= interval[1]
        self._hits.append(is_hit)
        self._width = min(max(self._width * exp(ADAPT * ((not is_hit) - MISSED)), WIDTHS[0]), WIDTHS[1])
        if actual_s >= AT_LEAST_S:
            self._errors.append(abs(actual_s - expected.seconds) / actual_s)
        self.count += 1
        while len(self._scores) > max(SCORES[0], NEWEST * (self.count + len(AT_FIRST))):
            self._scores.popleft()

    def note_wait(self, expected_s: float, actual_s: float) -> None:
        """Record that a job started after `actual_s`."""
        if actual_s >= AT_LEAST_S:
            self._wait_errors.append(abs(actual_s - expected_s) / actual_s)

    @property
    def record(self) -> Record:
        return Record(
            count=self.count,
            median_error=median(self._errors) if self._errors else None,
            median_wait_error=median(self._wait_errors) if self._wait_errors else None,
            coverage=sum(self._hits) / len(self._hits) if self._hits else None,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "scores": [round(score, 3) for score in self._scores],
            "errors": [round(error, 4) for error in self._errors],
            "wait_errors": [round(error, 4) for error in self._wait_errors],
            "held": [int(is_hit) for is_hit in self._hits],
            "width": self._width,
            "count": self.count,
        }

    def read_json(self, state: dict[str, Any]) -> None:
        """Restore the state. Raises: KeyError, ValueError, TypeError for data that `to_json` did not write."""
        self._scores = deque((float(score) for score in state["scores"]), maxlen=SCORES[1])
        self._errors.extend(float(error) for error in state["errors"])
        self._wait_errors.extend(float(error) for error in state["wait_errors"])
        self._hits.extend(bool(is_hit) for is_hit in state["held"])
        self._width, self.count = float(state["width"]), int(state["count"])


def unit_of(expected: Cost) -> float:
    """The error to be expected of a forecast, in seconds."""
    return hypot(expected.spread, OWN_SPREAD * expected.seconds, LEAST_S)


def _lower(scores: Sequence[float], share: float) -> float:
    """A lower quantile: at most this share of future scores is below it."""
    return scores[max(0, floor((len(scores) + 1) * share) - 1)]


def _upper(scores: Sequence[float], share: float) -> float:
    return scores[min(len(scores) - 1, ceil((len(scores) + 1) * (1 - share)) - 1)]
