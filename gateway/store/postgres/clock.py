"""Clock of a shared store: the database's, so that machines whose clocks differ agree."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class DatabaseClock:
    """The database's clock, read at each transaction and continued by this machine's steady clock. Thread-safe.

    It never goes back: where the database's clock is set back, it stands still until that has caught up.
    """

    def __init__(self, elapsed: Callable[[], float] = time.monotonic) -> None:
        self._elapsed = elapsed
        self._lock = threading.Lock()
        self._ahead = time.time() - elapsed()
        self._newest = 0.0

    def read(self, now: float) -> None:
        """Take the database's Unix time, in seconds, which it has just given."""
        with self._lock:
            self._ahead = now - self._elapsed()

    def steady(self) -> float:
        """Unix time in seconds, which never decreases."""
        with self._lock:
            self._newest = max(self._newest, self._elapsed() + self._ahead)
            return self._newest

    def date(self) -> float:
        return self.steady()

    def age_s(self, date: float) -> float:
        """Seconds since this date; 0 for a future one."""
        return max(0.0, self.steady() - date)

    def jumps(self, within_s: float) -> int:
        """How often the clock was changed: a shared store counts none."""
        return 0
