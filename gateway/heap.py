"""Memory that was freed, given back to the system: glibc keeps it, and a burst of large bodies would be kept for ever.

Only on Linux with glibc; elsewhere nothing is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import sys
import threading

WAIT_S = 3.0
"""From the first large body that was freed: others of the same burst are freed by then."""
LARGE_BYTES = 1024 * 1024


class HeapTrim:
    """Called with the bytes that were freed; trims the heap once, a while after. For the event loop's thread."""

    def __init__(self, wait_s: float = WAIT_S) -> None:
        self._wait_s = wait_s
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self, freed_bytes: int) -> None:
        if freed_bytes >= LARGE_BYTES and self._timer is None and sys.platform == "linux":
            self._timer = asyncio.get_running_loop().call_later(self._wait_s, self._go)

    def _go(self) -> None:
        self._timer = None
        threading.Thread(target=trim, name="heap trim", daemon=True).start()


def trim() -> None:
    """Give free pages of every arena back. Takes up to some tenths of a second, without the interpreter's lock."""
    with contextlib.suppress(OSError, AttributeError):  # no glibc: musl has no malloc_trim
        ctypes.CDLL("libc.so.6").malloc_trim(0)
