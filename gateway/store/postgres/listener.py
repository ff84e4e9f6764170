"""Listener: a thread that waits for PostgreSQL's notifications of what other processes write and send."""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Callable
from contextlib import closing

import psycopg

from gateway.store.postgres.connection import Row

log = logging.getLogger("gateway.store")

POLL_S = 5.0
"""Between two looks at the database without a notification."""
RETRY_S = (0.1, 0.5, 1.0, 2.0)
"""Seconds between tries to connect; the last one repeats."""


class Listener:
    """The listener of one process, which listens when this returns. Blocks.

    `look` is called where others may have written, `hear` with each message.
    """

    def __init__(
        self,
        connect: Callable[[], psycopg.Connection[Row]],
        channel: str,
        name: str,
        look: Callable[[], None],
        hear: Callable[[str], None],
    ) -> None:
        self._connect, self._channel, self._name = connect, channel, name
        self._look, self._hear = look, hear
        self._wakes = os.pipe()
        self._is_stopping = False
        self._listens = threading.Event()
        self._thread = threading.Thread(target=self._run, name="store-listener", daemon=True)
        self._thread.start()
        self._listens.wait(POLL_S)

    def close(self) -> None:
        """Stop the thread. Blocks for a connection attempt at most."""
        self._is_stopping = True
        os.write(self._wakes[1], b"x")
        self._thread.join()
        for end in self._wakes:
            os.close(end)

    def _run(self) -> None:
        tries = 0
        while not self._is_stopping:
            try:
                with closing(self._connect()) as connection:
                    if tries:
                        log.info("the job database answers again")
                    tries = 0
                    self._listen(connection)
            except (psycopg.Error, OSError) as error:
                if not tries:
                    log.warning("the job database does not answer: %s", type(error).__name__)
                self._wait(None, RETRY_S[min(tries, len(RETRY_S) - 1)])
                tries += 1

    def _listen(self, connection: psycopg.Connection[Row]) -> None:
        heard: list[tuple[str, str]] = []
        connection.add_notify_handler(lambda notify: heard.append((notify.channel, notify.payload)))
        self._listens.set()
        self._look()  # what was written while nobody listened
        while not self._is_stopping:
            self._wait(connection, POLL_S)
            connection.pgconn.consume_input()
            while (notify := connection.pgconn.notifies()) is not None:
                heard.append((notify.relname.decode(), notify.extra.decode()))
            if not heard:
                connection.execute("SELECT 1")  # a connection without its server reports nothing
            news, heard[:] = heard[:], []
            for channel, payload in news:
                sender, _, message = payload.partition(" ")
                if channel != self._channel and sender != self._name:
                    self._hear(message)
            if not news or any(channel == self._channel and payload != self._name for channel, payload in news):
                self._look()

    def _wait(self, connection: psycopg.Connection[Row] | None, seconds: float) -> None:
        """Wait for a notification, for the end, or for so many seconds."""
        poll = select.poll()
        poll.register(self._wakes[0], select.POLLIN)
        if connection is not None:
            poll.register(connection.fileno(), select.POLLIN)
        poll.poll(seconds * 1000)
