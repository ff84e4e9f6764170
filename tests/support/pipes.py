"""Pipes that nobody reads, for tests of what is on their other end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from tests.support.live import Live


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for fd in ends:
            with contextlib.suppress(OSError):
                os.close(fd)


def filled(fd: int) -> int:
    """Write into a pipe until it is full; how many bytes that took."""
    os.set_blocking(fd, False)
    size = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            size += os.write(fd, b"x" * 4096)
    os.set_blocking(fd, True)
    return size


class Unread(Live):
    """A gateway whose stdout and stderr go to a pipe that was full before it began."""

    def start(self, *, ready: bool = True) -> Live:
        self.reading, writing = os.pipe()
        self.filling = filled(writing)
        self.output = writing
        try:
            return super().start(ready=ready)
        finally:
            os.close(writing)
