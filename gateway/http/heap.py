"""Memory that was freed, given back to the system: glibc keeps it, and a burst of large bodies would be kept for ever.

What refused requests held hangs in cycles of tracebacks until the garbage collector comes by, which may be never: it is
called here. Pages are given back on Linux with glibc only.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import sys
import threading

WAIT_S = 3.0
"""From the first large body that was freed: others of the same burst are freed by then."""
AGAIN_S = (9.0, 30.0)
"""From then to the next times, for what other threads and the children still held at the first."""
LARGE_BYTES = 1024 * 1024
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Source: malloc.h of glibc."""


class HeapTrim:
    """Called with the bytes that were freed; trims the heap a few times, a while after. For the event loop's thread."""

    def __init__(self, wait_s: float = WAIT_S) -> None:
        self._wait_s = wait_s
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self, freed_bytes: int) -> None:
        if freed_bytes >= LARGE_BYTES and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._wait_s, self._go)

    def _go(self) -> None:
        self._timer = None
        for wait_s in (0.0, *AGAIN_S):
            asyncio.get_running_loop().call_later(wait_s, self._trim)

    @staticmethod
    def _trim() -> None:
        threading.Thread(target=trim, name="heap trim", daemon=True).start()


def trim() -> None:
    """Collect garbage, and give free pages of every arena back: up to some tenths of a second, without the lock."""
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # no glibc: musl has no malloc_trim
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def settle() -> None:
    """What is there now stays: later collections, which stop all threads, look at what came since.

    From now on glibc maps large blocks one by one. Else it raises that bound to 32 MiB when the first large block is
    freed, and keeps twice as much at the end of each thread's arena, where malloc_trim does not look.
    """
    gc.collect()
    gc.freeze()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
            libc.mallopt(M_TRIM_THRESHOLD, LARGE_BYTES)
