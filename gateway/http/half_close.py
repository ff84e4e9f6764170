"""Connections whose client sends no more: it has left, or only closed its sending half, as `nc -N` does.

TCP shows both as the same end-of-file. A byte that is sent tells them apart, because a socket that was closed answers
it with a reset. The bytes are the first ones of the response to come, which do not depend on its status.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable

LOOK_S = 0.05
"""Seconds between two looks for a reset."""
FIRST_PROBE_S = 1.0
"""Seconds between the first and the second byte; each of the following waits is twice as long."""


class HalfCloseWatch:
    """The watch over a connection that ended at its client's side: `transport` is aborted once the client has left.

    `next_byte` is the next byte of the opening of the response, none once the response has begun.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, next_byte: Callable[[], bytes]
    ) -> None:
        self._loop, self._transport, self._next_byte = loop, transport, next_byte
        self._probe_at, self._wait_s = loop.time(), FIRST_PROBE_S
        self._timer: asyncio.TimerHandle | None = None
        self._look()

    def cancel(self) -> None:
        """End the watch."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        if self._transport.is_closing():
            return
        if is_reset(self._transport.get_extra_info("socket")):
            self._transport.abort()
            return
        if self._loop.time() >= self._probe_at:
            self._transport.write(self._next_byte())
            self._probe_at += self._wait_s
            self._wait_s *= 2
        self._timer = self._loop.call_later(LOOK_S, self._look)


def is_reset(sock: socket.socket) -> bool:
    """Whether the other side has answered with a reset."""
    poll = select.poll()
    poll.register(sock.fileno(), 0)
    return any(state & (select.POLLERR | select.POLLHUP) for _, state in poll.poll(0))
