"""Time as the store counts it: dates, which may jump, and steady seconds, which only pass. Knows no row.

Steady time is Unix time at the store's making plus the seconds in which a gateway has run since: it stands still while
none runs, so no jump of the clock, and no absence, makes anything older. Durations follow from it, dates are shown.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

TOLERANCE_S = 5.0
"""A clock that is slewed is noted once it is off by this much."""
SPANS_MOST = 64


class StoreClock:
    """`date` is Unix time, `elapsed` counts seconds from anywhere and never goes back. Any thread may ask."""

    def __init__(self, date: Callable[[], float], elapsed: Callable[[], float]) -> None:
        self.date = date
        self._elapsed = elapsed
        self._lock = threading.Lock()
        self._spans: list[tuple[float, float]] = []
        """(steady time, date minus steady time), oldest first: from then on dates were that far ahead."""
        self.is_noted = True
        """Whether `to_text` says what it said when it was kept last."""
        self.start(date())

    def start(self, at: float) -> None:
        """Go on from this steady time."""
        self._began, self._began_at = at, self._elapsed()

    def steady(self) -> float:
        """Steady time now."""
        return self._began + max(0.0, self._elapsed() - self._began_at)

    def age_s(self, date: float) -> float:
        """Steady seconds since the clock last showed this date, such as a file's; 0 for a date that is to come.

        Dates that were skipped by a jump count as the moment before it.
        """
        with self._lock:
            self._note()
            now = self.steady()
            ends = [*(began for began, _ in self._spans[1:]), now]
            spans = [(began, end, date - ahead) for (began, ahead), end in zip(self._spans, ends, strict=True)]
            shown = [at for began, end, at in spans if began <= at < end]
            before = [end for _, end, at in spans if at >= end]
            if shown or before:
                return max(0.0, now - (shown or before)[-1])
            return now - spans[0][2]

    def jumps(self, within_s: float) -> int:
        """How often the clock was set in the last steady seconds, as far as is remembered."""
        since = self.steady() - within_s
        return sum(began >= since for began, _ in self._spans[1:])

    def note(self) -> None:
        """See whether the clock was set."""
        with self._lock:
            self._note()

    def _note(self) -> None:
        now = self.steady()
        ahead = self.date() - now
        if not self._spans or abs(ahead - self._spans[-1][1]) > TOLERANCE_S:
            self._spans = [*self._spans[1 - SPANS_MOST :], (now, ahead)]
            self.is_noted = False

    def to_text(self) -> str:
        """As `read_text` reads it."""
        with self._lock:
            self.is_noted = True
            return json.dumps(self._spans)

    def read_text(self, text: str) -> None:
        """Raises: ValueError, TypeError for what was not written by `to_text`."""
        spans = [(float(began), float(ahead)) for began, ahead in json.loads(text)]
        with self._lock:
            self._spans = spans
