"""Text for a pipe or a terminal that somebody else may not read: a bounded queue, and a thread that writes.

Knows bytes and descriptors; what a line means is its user's business. Nothing here ever waits for the reader but
`flush`, which says how long.
"""

from __future__ import annotations

import io
import os
import select
import threading
from collections.abc import Callable
from queue import SimpleQueue

MAX_QUEUED_BYTES = 4 * 1024 * 1024
OVERHEAD_BYTES = 128
"""Of one queued text beyond its own bytes."""
MAX_LINE_CHARS = 64 * 1024
"""A line beyond it goes out in pieces."""
RETRY_S = 0.1


class QueuedOutput:
    """The one who writes to `fd`; `put` may be called by any thread, by finalizers and by signal handlers.

    `tell_dropped` words what takes the place of texts for which there was no room. Once some were dropped, none is
    taken until half of the queue is free, so that what is missing is missing in one place.
    """

    def __init__(self, fd: int, tell_dropped: Callable[[int], bytes], *, max_bytes: int = MAX_QUEUED_BYTES) -> None:
        self._fd = fd
        self._tell_dropped = tell_dropped
        self._max_bytes = max_bytes
        self.dropped_in_all = 0
        self._begin()
        os.register_at_fork(after_in_child=self._begin)  # a fork has the queue, and not the thread

    def _begin(self) -> None:
        self._lock = threading.RLock()  # the lock of a thread that is interrupted by a signal handler which writes
        self._queue: SimpleQueue[bytes | threading.Event] = SimpleQueue()  # whose `put` is reentrant
        self._put_bytes = self._taken_bytes = 0
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name=f"output {self._fd}", daemon=True)
        self._thread.start()

    def put(self, text: bytes) -> None:
        """Queue a text, or count it where there is no room. Never blocks."""
        with self._lock:
            most = self._max_bytes // 2 if self._dropped else self._max_bytes
            if self._put_bytes - self._taken_bytes + len(text) + OVERHEAD_BYTES > most:
                self._dropped += 1
                self.dropped_in_all += 1
                return
            if told := self._told():
                self._queue.put(told)
                self._put_bytes += len(told) + OVERHEAD_BYTES
            self._queue.put(text)
            self._put_bytes += len(text) + OVERHEAD_BYTES

    def flush(self, within_s: float) -> bool:
        """Wait until all that was put before is written; whether it was, in time."""
        done = threading.Event()
        self._queue.put(done)
        return done.wait(within_s)

    def _told(self) -> bytes:
        """What says how many were dropped, once; empty where none was."""
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        return self._tell_dropped(dropped) if dropped else b""

    def _run(self) -> None:
        """Logs nothing: it would wait for itself."""
        while True:
            text = self._queue.get()
            if isinstance(text, bytes):
                _write(self._fd, text)
                self._taken_bytes += len(text) + OVERHEAD_BYTES
            if self._queue.empty() or isinstance(text, threading.Event):
                _write(self._fd, self._told())
            if isinstance(text, threading.Event):
                text.set()


class QueuedText(io.TextIOBase):
    """Stands in for sys.stdout or sys.stderr: whole lines go to `output`."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, output: QueuedOutput, fd: int) -> None:
        self._output = output
        self._fd = fd
        self._line = ""
        self._lock = threading.RLock()

    def write(self, text: str) -> int:
        with self._lock:
            self._line += text
            if "\n" in text or len(self._line) > MAX_LINE_CHARS:
                self._hand_over()
        return len(text)

    def flush(self) -> None:
        with self._lock:
            self._hand_over()

    def _hand_over(self) -> None:
        whole, self._line = self._line, ""
        for at in range(0, len(whole), MAX_LINE_CHARS):
            self._output.put(whole[at : at + MAX_LINE_CHARS].encode("utf-8", "backslashreplace"))

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def writable(self) -> bool:
        return True


def _write(fd: int, text: bytes) -> None:
    """Wait as long as the reader wants; what cannot be written, because it is gone or the disk is full, is lost."""
    view = memoryview(text)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # somebody else made it so: the description is shared
            select.select([], [fd], [], RETRY_S)
        except OSError:
            return
