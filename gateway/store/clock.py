"""Clock of the store: dates, which may jump, and steady seconds, which only increase. Knows no row.

Steady time is the Unix time at which the store was created plus the seconds in which a gateway has run since. It stands
still while no gateway runs, so neither a clock change nor a pause makes anything older. Durations are computed from
steady time; dates are only shown.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Protocol

TOLERANCE_S = 5.0
"""A clock that is adjusted slowly is noticed once it is off by this much."""
SPANS_MOST = 64


class Clock(Protocol):
    """What a store needs of its clock."""

    @property
    def date(self) -> Callable[[], float]:
        """The Unix time now, in seconds."""
        ...

    def steady(self) -> float: ...

    def age_s(self, date: float) -> float: ...

    def jumps(self, within_s: float) -> int: ...


class StoreClock:
    """`date` returns Unix time; `elapsed` returns seconds from any origin and never decreases. Thread-safe."""

    def __init__(self, date: Callable[[], float], elapsed: Callable[[], float]) -> None:
        self.date = date
        self._elapsed = elapsed
        self._lock = threading.Lock()
        self._spans: list[tuple[float, float]] = []
        """(steady time, date minus steady time), oldest first: from each steady time on dates were that far ahead."""
        self.is_noted = True
        """Whether `to_text` is the same as when it was stored last."""
        self.start(date())

    def start(self, at: float) -> None:
        """Continue from this steady time."""
        self._began, self._began_at = at, self._elapsed()

    def steady(self) -> float:
        """The steady time now."""
        return self._began + max(0.0, self._elapsed() - self._began_at)

    def age_s(self, date: float) -> float:
        """Steady seconds since the clock last showed this date, such as a file's; 0 for a future date.

        Dates that a clock change skipped count as the moment before it.
        """
        with self._lock:
            self._note()
            now = self.steady()
            ends = [*(began for began, _ in self._spans[1:]), now]
            spans = [(began, end, date - ahead) for (began, ahead), end in zip(self._spans, ends, strict=True)]
            moments = [at for began, end, at in spans if began <= at < end]
            before = [end for _, end, at in spans if at >= end]
            if moments or before:
                return max(0.0, now - (moments or before)[-1])
            return now - spans[0][2]

    def jumps(self, within_s: float) -> int:
        """How often the clock was changed within the last `within_s` steady seconds, as far as recorded."""
        since = self.steady() - within_s
        return sum(began >= since for began, _ in self._spans[1:])

    def note(self) -> None:
        """Check whether the clock was changed."""
        with self._lock:
            self._note()

    def _note(self) -> None:
        now = self.steady()
        ahead = self.date() - now
        if not self._spans or abs(ahead - self._spans[-1][1]) > TOLERANCE_S:
            self._spans = [*self._spans[1 - SPANS_MOST :], (now, ahead)]
            self.is_noted = False

    def to_text(self) -> str:
        """The clock's state as text, for `read_text`."""
        with self._lock:
            self.is_noted = True
            return json.dumps(self._spans)

    def read_text(self, text: str) -> None:
        """Restore the state. Raises: ValueError, TypeError for text that `to_text` did not write."""
        spans = [(float(began), float(ahead)) for began, ahead in json.loads(text)]
        with self._lock:
            self._spans = spans
