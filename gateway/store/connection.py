"""Connection: what the statements of the job store need of a database, which SQLite and PostgreSQL fulfil.

Statements are written once, with `?` for a value; what differs between the two is a method or a word of the dialect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Row(Protocol):
    """A row: its cells by column or by place; iterates over its cells."""

    def __getitem__(self, key: Any, /) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...

    def keys(self) -> Iterable[str]: ...


class Cursor(Protocol):
    """The rows of a statement."""

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...

    def __iter__(self) -> Iterator[Any]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """Words of SQL that differ between databases."""

    prompt: str
    """The prompt of a generated image, or of the image that is upscaled."""
    has_word: str
    """The condition that a prompt has a word in lower case, with one `?`."""
    unindexed: str
    """Written before a column that no index should be used for."""
    has_loose_types: bool
    """Whether a cell may be of another type than its column, where the file was damaged."""


class Connection(Protocol):
    """A connection in a transaction."""

    @property
    def dialect(self) -> Dialect: ...

    def execute(self, sql: str, values: Sequence[Any] = ..., /) -> Cursor: ...

    def executemany(self, sql: str, values: Iterable[Sequence[Any]], /) -> Any: ...

    def stream(self, sql: str, values: Sequence[Any]) -> Cursor:
        """Like `execute`; the rows are read as far as they are taken, and the cursor is closed afterwards."""
        ...

    def next_number(self, table: str) -> int:
        """The number of the next row of `jobs`, `events` or `damaged`: greater than every earlier one."""
        ...

    def last_number(self, table: str) -> int:
        """The number of the newest row that a table ever had."""
        ...


class Database(Protocol):
    """A database. Its work runs in a thread and does not block the event loop."""

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction. Raises: StorageFault, and what `work` raises; then nothing is written."""
        ...

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on one snapshot of the data. Raises: StorageFault."""
        ...
