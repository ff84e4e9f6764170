"""Text output to a pipe or terminal that may not be read: a bounded queue, and a thread that writes.

Knows bytes and descriptors, not the meaning of a line. Only `flush` waits for the reader, for a given time.
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
"""Bytes of one queued text beyond its own."""
MAX_LINE_CHARS = 64 * 1024
"""A longer line is written in pieces."""
RETRY_S = 0.1


class QueuedOutput:
    """Queue of texts for `fd`; `put` may be called by any thread, by finalizers and by signal handlers.

    `tell_dropped` makes the text that replaces dropped ones. Once some were dropped, no more are accepted until half of
    the queue is free, so that the gap is in one place.
    """

    def __init__(self, fd: int, tell_dropped: Callable[[int], bytes], *, max_bytes: int = MAX_QUEUED_BYTES) -> None:
        self._fd = fd
        self._tell_dropped = tell_dropped
        self._max_bytes = max_bytes
        self.dropped_in_all = 0
        self._begin()
        os.register_at_fork(after_in_child=self._begin)  # a fork has the queue, but not the thread

    def _begin(self) -> None:
        self._lock = threading.RLock()  # reentrant, for a signal handler that writes while its thread holds it
        self._queue: SimpleQueue[bytes | threading.Event] = SimpleQueue()  # its `put` is reentrant
        self._put_bytes = self._taken_bytes = 0
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name=f"output {self._fd}", daemon=True)
        self._thread.start()

    def put(self, text: bytes) -> None:
        """Queue a text, or count it as dropped if there is no room. Never blocks."""
        with self._lock:
            most = self._max_bytes // 2 if self._dropped else self._max_bytes
            if self._put_bytes - self._taken_bytes + len(text) + OVERHEAD_BYTES > most:
                self._dropped += 1
                self.dropped_in_all += 1
                return
            if notice := self._notice():
                self._queue.put(notice)
                self._put_bytes += len(notice) + OVERHEAD_BYTES
            self._queue.put(text)
            self._put_bytes += len(text) + OVERHEAD_BYTES

    def flush(self, within_s: float) -> bool:
        """Wait until everything put before is written; whether it was, in time."""
        done = threading.Event()
        self._queue.put(done)
        return done.wait(within_s)

    def _notice(self) -> bytes:
        """The text that says how many were dropped, once; empty if none were."""
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        return self._tell_dropped(dropped) if dropped else b""

    def _run(self) -> None:
        """Write the queue to `fd`. Logs nothing, since it would wait for itself."""
        while True:
            text = self._queue.get()
            if isinstance(text, bytes):
                _write(self._fd, text)
                self._taken_bytes += len(text) + OVERHEAD_BYTES
            if self._queue.empty() or isinstance(text, threading.Event):
                _write(self._fd, self._notice())
            if isinstance(text, threading.Event):
                text.set()


class QueuedText(io.TextIOBase):
    """Replacement of sys.stdout or sys.stderr: whole lines go to `output`."""

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
    """Write all, waiting for the reader; text that cannot be written (reader gone, disk full) is lost."""
    view = memoryview(text)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # another process made it non-blocking: the description is shared
            select.select([], [fd], [], RETRY_S)
        except OSError:
            return
