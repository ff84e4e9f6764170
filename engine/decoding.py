"""Thread that decodes an image while the next one is denoised, of the same job or the next. It knows no image and no
backend.

MLX gives each thread a stream of its own.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable

CHECK_EVERY_S = 0.05
"""Interval of the caller's checks while it waits."""
SWITCH_S = 0.0005
"""Interval of Python's switches between threads, a tenth of the usual one: decoding on a CPU leaves Python for some
microseconds at a time, and would wait that long after each for a thread that builds a step.
"""


class DecodingThread:
    """One piece of work at a time. All methods belong to one other thread."""

    def __init__(self) -> None:
        self._pieces: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._idle = threading.Event()
        self._idle.set()
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None

    @property
    def is_idle(self) -> bool:
        return self._idle.is_set()

    def start(self, work: Callable[[], None]) -> None:
        """Begin a piece of work. The one before has ended, and its error was raised."""
        if self._thread is None:
            sys.setswitchinterval(SWITCH_S)
            self._thread = threading.Thread(target=self._serve, name="decoding", daemon=True)
            self._thread.start()
        self._idle.clear()
        self._pieces.put(work)

    def check(self) -> None:
        """Raises: the error of the work, where it failed; once."""
        if self._idle.is_set() and self._error is not None:
            error, self._error = self._error, None
            raise error

    def wait(self, check: Callable[[], None] = lambda: None) -> None:
        """Wait for the work. `check` is called meanwhile, and may raise. Raises: as `check`."""
        while not self._idle.wait(CHECK_EVERY_S):
            check()
        self.check()

    def settle(self, check: Callable[[], None] = lambda: None) -> None:
        """Wait for the work of an earlier job, whose error is not raised. `check` is called meanwhile."""
        while not self._idle.wait(CHECK_EVERY_S):
            check()
        self._error = None

    def _serve(self) -> None:
        while True:
            work = self._pieces.get()
            try:
                work()
            except Exception as error:
                self._error = error
            del work  # it holds an image
            self._idle.set()
