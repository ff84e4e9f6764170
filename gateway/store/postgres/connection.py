"""Connection to PostgreSQL that takes the statements of the job store: `?` for a value, rows by column or place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, cast

import psycopg
from psycopg import sql as composed
from psycopg.conninfo import conninfo_to_dict

from gateway.store.connection import Cursor, Dialect

MARK = re.compile(r"\?")
STREAMED_AT_ONCE = 200
"""Rows that a streamed statement reads at once."""
LOCAL = ("", "localhost", "127.0.0.1", "::1")
CONNECT_S = 5
SILENT_MS = 10_000
"""After so long without an answer of the other side a connection is given up."""
IDLE_MS = 10_000
"""After so long PostgreSQL ends a transaction in which nothing happens: its process was stopped, and holds the lock."""
LOCK_MS = 10_000
SESSION = (
    f"-c idle_in_transaction_session_timeout={IDLE_MS} -c lock_timeout={LOCK_MS} -c statement_timeout=60000"
    " -c client_encoding=UTF8 -c synchronous_commit=on"
)


class Row:
    """A row; like `sqlite3.Row` it iterates over its cells."""

    __slots__ = ("_cells", "_names")

    def __init__(self, names: dict[str, int], cells: Sequence[Any]) -> None:
        self._names, self._cells = names, cells

    def __getitem__(self, key: Any, /) -> Any:
        return self._cells[self._names[key] if isinstance(key, str) else key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._cells)

    def keys(self) -> Iterable[str]:
        return self._names.keys()


def _rows(cursor: psycopg.Cursor[Any]) -> Any:
    """Psycopg's row factory."""
    names = {column.name: place for place, column in enumerate(cursor.description or ())}
    return lambda cells: Row(names, cells)


def connected(url: str, name: str) -> psycopg.Connection[Row]:
    """A new connection in autocommit mode; `name` is shown in PostgreSQL's list of sessions. Blocks.

    A server that is not on this machine must speak TLS, unless the address says `sslmode`. Raises: psycopg.Error.
    """
    return psycopg.connect(**parameters(url, name))


def parameters(url: str, name: str) -> dict[str, Any]:
    """The parameters of `psycopg.connect`. Raises: psycopg.ProgrammingError for an address that is none."""
    given = conninfo_to_dict(url)
    host = str(given.get("host") or "")
    if not host.startswith("/") and host not in LOCAL:
        given.setdefault("sslmode", "require")
    given["options"] = f"{SESSION} {given.get('options') or ''}".strip()
    return {
        "connect_timeout": CONNECT_S,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": SILENT_MS,
        "application_name": name,
        **given,
        "autocommit": True,
        "row_factory": _rows,
        "cursor_factory": psycopg.RawCursor,
    }


class PostgresConnection:
    """A `gateway.store.connection.Connection` of PostgreSQL. `counters` are the numbers at its transaction's begin."""

    def __init__(self, connection: psycopg.Connection[Row], dialect: Dialect, counters: dict[str, int]) -> None:
        self.dialect = dialect
        self._connection = connection
        self._counters = counters
        self._changed: set[str] = set()

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> Cursor:
        return cast(Cursor, self._connection.execute(_marked(sql), values))

    def executemany(self, sql: str, values: Iterable[Sequence[Any]], /) -> None:
        with self._connection.cursor() as cursor:
            cursor.executemany(_marked(sql), values)

    def stream(self, sql: str, values: Sequence[Any]) -> Cursor:
        cursor = psycopg.RawServerCursor(self._connection, "streamed")
        cursor.itersize = STREAMED_AT_ONCE
        return cast(Cursor, cursor.execute(_marked(sql), values))

    def next_number(self, table: str) -> int:
        self._counters[table] += 1
        self._changed.add(table)
        return self._counters[table]

    def last_number(self, table: str) -> int:
        return self._counters[table]

    def write_counters(self) -> None:
        """Store the numbers given out."""
        for name in sorted(self._changed):
            self.execute("UPDATE counters SET seq = ? WHERE name = ?", (self._counters[name], name))
        self._changed.clear()

    @property
    def has_events(self) -> bool:
        """Whether the transaction has stored an event, or changed the queue without one."""
        return bool(self._changed)


@lru_cache(maxsize=512)
def _marked(sql: str) -> bytes:
    """The statement with PostgreSQL's marks: `?` becomes `$1`, `$2` and so on."""
    parts = MARK.split(sql)
    return "".join(f"{part}${n}" for n, part in enumerate(parts[:-1], 1)).encode() + parts[-1].encode()


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return composed.Identifier(name).as_string(None)


def literal(text: str) -> str:
    """A text as an SQL literal."""
    return composed.Literal(text).as_string(None)
