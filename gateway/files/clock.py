"""Clock of a shared place: the ages of its files, whatever the clocks of the machines that use it show."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

MEASURED_S = 600.0
"""Seconds after which the clock is read again."""
JUMP_S = 2.0
"""A clock of this machine that is off by more than that was set, or the machine slept."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """What the place's clock showed, and this machine's two clocks at the same moment; all in seconds."""

    there: float
    date: float
    elapsed: float


class PlaceClock:
    """The clock of a place, read by `read`, which returns Unix time and may raise. Thread-safe."""

    def __init__(
        self,
        read: Callable[[], float],
        *,
        date: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self.read, self._date, self._elapsed = read, date, elapsed
        self._reading: _Reading | None = None
        self._lock = threading.Lock()

    def note(self, there: float) -> None:
        """Record what the place's clock shows now."""
        self._reading = _Reading(there, self._date(), self._elapsed())

    def now(self) -> float:
        """What the place's clock shows now. Raises: as `read`."""
        last = self._reading
        # One thread reads it anew, which may take long; others go on with the old reading, if there is one.
        if (last is None or self._is_old(last)) and self._lock.acquire(blocking=last is None):
            try:
                if self._reading is last:
                    self.note(self.read())
            finally:
                self._lock.release()
        last = self._reading
        assert last is not None
        return last.there + self._elapsed() - last.elapsed

    def _is_old(self, last: _Reading) -> bool:
        passed = self._elapsed() - last.elapsed
        return passed > MEASURED_S or abs(self._date() - last.date - passed) > JUMP_S

    def made(self, date: float) -> tuple[float, float]:
        """When a file with this date of the place was made, by this machine's clock, and its age in seconds."""
        age_s = max(0.0, self.now() - date)
        return self._date() - age_s, age_s
