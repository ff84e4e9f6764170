"""Shutdown of the process: one deadline for everything, which begins with the first signal.

What has not ended by then is left as after a kill, and the next start recovers it: everything acknowledged is on disk.
Knows processes and threads; no server and no job.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from gateway import logs

LEAVE_S = 3.5
"""Seconds from the signal to the end, whatever still runs."""
SPARE_S = 0.5
"""Least seconds of it for the store, after open requests had their time."""
FLUSH_S = 0.25
LAST_S = 1.0
"""Seconds after that until the kernel ends a process in which no Python code runs any more."""
LOOK_UP_S = 0.5

log = logging.getLogger(__name__)


class Stopping:
    """Shutdown state of one process. `begin` and `hurry` may be called by a signal handler: neither locks nor logs."""

    def __init__(self, requests_s: float) -> None:
        """`requests_s`: how long open requests have from the signal; more than the default extends the deadline."""
        self.leave_s = max(LEAVE_S, requests_s + SPARE_S)
        self._requests_s = requests_s
        self._began_at: float | None = None
        self._calls: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._watch, name="stopping", daemon=True)
        self._thread.start()

    @property
    def has_begun(self) -> bool:
        return self._began_at is not None

    @property
    def requests_left_s(self) -> float:
        """Seconds that open requests still have."""
        began_at = time.monotonic() if self._began_at is None else self._began_at
        return max(0.0, began_at + self._requests_s - time.monotonic())

    def begin(self) -> None:
        """Start the deadline."""
        if self._began_at is None:
            self._began_at = time.monotonic()
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, self.leave_s + LAST_S)
            self._calls.put(True)

    def hurry(self) -> None:
        """End the process at once."""
        self.begin()
        self._calls.put(True)

    def _watch(self) -> None:
        self._calls.get()
        try:
            self._calls.get(timeout=self.leave_s)
            log.warning("leaving at once")
        except queue.Empty:
            busy = [thread.name for thread in threading.enumerate() if not thread.daemon]
            log.warning("leaving: not all had ended in time", extra={"threads": busy})
        leave()


def leave(code: int = 0) -> None:
    """End this process and its children at once."""
    for pid in children():
        with contextlib.suppress(OSError):
            if os.getpgid(pid) == pid:
                os.killpg(pid, signal.SIGKILL)
            else:
                os.kill(pid, signal.SIGKILL)
    logs.flush(FLUSH_S)
    os._exit(code)


def children() -> Iterable[int]:
    """Ids of this process's children, whoever started them: also of stopped ones, which handle no signal."""
    listings = list(Path("/proc/self/task").glob("*/children"))  # one for each thread, on Linux
    for listed in listings:
        with contextlib.suppress(OSError):
            yield from map(int, listed.read_text().split())
    if listings:
        return
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["pgrep", "-P", str(os.getpid())]
        result = subprocess.run(command, capture_output=True, text=True, timeout=LOOK_UP_S, check=False)
        yield from map(int, result.stdout.split())
