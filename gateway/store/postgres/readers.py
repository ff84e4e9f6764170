"""Readers: connections for statements outside the order of writes, each used by one thread at a time."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import TypeVar

import psycopg

from gateway.store.postgres.connection import Row

T = TypeVar("T")


class Readers:
    """Connections that are opened when they are needed and kept. As many as threads use them. Thread-safe.

    A pool that connects in the background waits longer and longer after each failure; a lease must be renewed as soon
    as the database is back.
    """

    def __init__(self, connect: Callable[[], psycopg.Connection[Row]]) -> None:
        self._connect = connect
        self._free: queue.SimpleQueue[psycopg.Connection[Row]] = queue.SimpleQueue()
        self._is_closed = False

    def run(self, work: Callable[[psycopg.Connection[Row]], T]) -> T:
        """Run `work` with a connection; once more, with a new one, where it has broken. Blocks.

        Raises: psycopg.Error.
        """
        try:
            connection = self._free.get_nowait()
        except queue.Empty:
            return self._run(self._connect(), work)
        try:
            return self._run(connection, work)
        except psycopg.Error:
            if not connection.closed:
                raise
            return self._run(self._connect(), work)

    def _run(self, connection: psycopg.Connection[Row], work: Callable[[psycopg.Connection[Row]], T]) -> T:
        try:
            return work(connection)
        finally:
            if self._is_closed:
                connection.close()
            elif not connection.closed:
                self._free.put(connection)

    def close(self) -> None:
        """Close the connections; those in use once their work is done."""
        self._is_closed = True
        while not self._free.empty():
            self._free.get_nowait().close()
