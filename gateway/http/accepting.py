"""Acceptor of connections for processes with few open files: the others wait in the kernel until there is room.

Knows sockets and a loop, no HTTP. Without free descriptors it waits before the next `accept` instead of looping.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable

AT_ONCE = 64
"""Connections accepted before other work of the loop has its turn."""
FULL_S = 0.05
"""Seconds until the next check whether there is room."""
OUT_S = 0.5
"""Seconds until the next `accept` after one that had no descriptor, or no memory."""
_OUT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

log = logging.getLogger(__name__)


class Acceptor:
    """Acceptor for one socket, on the running loop. `make` makes a connection's protocol; `count` counts open ones."""

    def __init__(
        self,
        sock: socket.socket,
        make: Callable[[], asyncio.Protocol],
        *,
        count: Callable[[], int],
        most: Callable[[], int],
    ) -> None:
        self._sock = sock
        self._make = make
        self._count = count
        self._most = most
        self._loop = asyncio.get_running_loop()
        self._coming = 0
        """Connections that are accepted but not yet counted as open."""
        self._later: asyncio.TimerHandle | None = None
        self._is_out = False
        self._is_closed = False
        self._loop.add_reader(sock, self._take_some)

    def close(self) -> None:
        """Accept no more; the socket stays open."""
        self._is_closed = True
        if self._later is not None:
            self._later.cancel()
        self._loop.remove_reader(self._sock)

    def _take_some(self) -> None:
        room = self._most() - self._count() - self._coming
        for taken in range(AT_ONCE):
            if taken >= room:
                return self._rest(FULL_S)
            try:
                connection, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return None
            except OSError as error:
                if error.errno not in _OUT:
                    continue  # it was closed before it was accepted
                if not self._is_out:
                    log.error("no connection can be taken: %s", error.strerror)
                self._is_out = True
                return self._rest(OUT_S)
            self._is_out = False
            self._coming += 1
            self._loop.create_task(self._open(connection))
        return None

    def _rest(self, seconds: float) -> None:
        self._loop.remove_reader(self._sock)
        self._later = self._loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        if not self._is_closed:
            self._loop.add_reader(self._sock, self._take_some)

    async def _open(self, connection: socket.socket) -> None:
        try:
            connection.setblocking(False)
            await self._loop.connect_accepted_socket(self._make, connection)
        except OSError:
            connection.close()
        finally:
            self._coming -= 1
