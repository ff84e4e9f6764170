"""Output of the child process: the pipe that its reports go to."""

from __future__ import annotations

import os
import threading
import time

from engine.protocol import Frozen, encode

PARENT_GONE = 3
"""Exit code of a child whose parent closed the pipe."""


class Wire:
    """Output of the child: whole lines, from any thread. The process exits when nobody reads them."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self.pause_s = 0.0

    def send(self, *messages: Frozen) -> None:
        """Send messages in one write, so that the parent wakes up once."""
        self.write(b"".join(map(encode, messages)))

    def write(self, data: bytes) -> None:
        piece = len(data) if self.pause_s == 0 else 48
        try:
            with self._lock:
                while data:
                    written = os.write(self._fd, data[:piece])
                    data = data[written:]
                    if self.pause_s:
                        time.sleep(self.pause_s)
        except BrokenPipeError:
            os._exit(PARENT_GONE)
