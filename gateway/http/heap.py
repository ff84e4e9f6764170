"""Heap trimming: freed memory is returned to the system, since glibc would keep that of a burst of large bodies.

Refused requests are in reference cycles of tracebacks until the garbage collector runs, which may be never: it is
called here. Pages are returned on Linux with glibc only.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import sys
import threading

WAIT_S = 3.0
"""Seconds after the first large body was freed: others of the same burst are freed by then."""
AGAIN_S = (9.0, 30.0)
"""Seconds from then to further trims, for memory that other threads and children still used at the first."""
LARGE_BYTES = 1024 * 1024
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt. Source: malloc.h of glibc."""


class HeapTrim:
    """Called with the freed bytes; trims the heap a few times, a while later. For the event loop's thread."""

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
    """Collect garbage and return free pages of every arena: up to some tenths of a second, without the GIL."""
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # musl has no malloc_trim
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def settle() -> None:
    """Exempt all present objects from later collections, which stop all threads, and enable those.

    From now on glibc maps large blocks one by one. Otherwise it raises that bound to 32 MiB when the first large block
    is freed, and keeps twice as much at the end of each thread's arena, where malloc_trim does not look.
    """
    gc.collect()
    gc.freeze()
    gc.enable()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
            libc.mallopt(M_TRIM_THRESHOLD, LARGE_BYTES)
