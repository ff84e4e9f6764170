"""Files: named bytes in one place, the interface that every place fulfils, held to it by one conformance suite."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_KEY = re.compile(r"[0-9a-z][0-9a-z.]{0,127}")


class FilesRefused(Exception):
    """The place of the files cannot be used as the settings say; the text is one sentence for their author."""


class KeyTaken(Exception):
    """There is a file of that key with other bytes."""


@dataclass(frozen=True, slots=True)
class FileStat:
    """Size of a file in bytes, and when it was made."""

    bytes: int
    made_at: float
    """Unix time in seconds, by the clock of this machine."""
    age_s: float | None = None
    """Seconds since then by the clock of a place that several machines share; None where it has no such clock."""


class Files(Protocol):
    """Files under server-made keys: digits, small letters and full stops. Every method but `run` blocks: call it by
    `run`, or in a thread.

    All methods raise StorageFault where the place is at fault, and ValueError for a key that no server made.
    """

    place: str
    """What messages call the place."""
    is_shared: bool
    """Whether other processes may write to the place."""

    @property
    def root(self) -> Path | None:
        """The folder with the files; None where they are in no folder."""
        ...

    def prepare(self) -> None:
        """Create or check the place. Raises: FilesRefused; PermissionError with a sentence."""
        ...

    def check(self, count: int = 0) -> None:
        """Check that `count` bytes could be written now."""
        ...

    def put(self, key: str, data: bytes, *, create: bool = False) -> None:
        """Write a file, completely or not at all, durable on return; `create`: one that exists is not replaced.

        Raises: KeyTaken where `create` is set and another file has the key; one with the same bytes is no error.
        """
        ...

    def get(self, key: str) -> bytes | None:
        """The bytes of a file; None where there is none."""
        ...

    def tail(self, key: str, count: int) -> bytes | None:
        """The last `count` bytes of a file, or all of a shorter one; None where there is none."""
        ...

    def stat(self, key: str) -> FileStat | None:
        """Size and date of a file; None where there is none."""
        ...

    def stats(self, keys: Iterable[str]) -> dict[str, FileStat]:
        """Size and date of those of these files that exist."""
        ...

    def list(self, prefix: str = "") -> Iterator[tuple[str, FileStat]]:
        """The files whose keys begin with `prefix`, in any order."""
        ...

    def remove(self, key: str) -> None:
        """Remove a file; one that does not exist is no error."""
        ...

    def remove_halves(self, prefix: str, older_than_s: float = 0.0) -> None:
        """Remove what writers that crashed have left of files whose keys begin with `prefix`."""
        ...

    def url(self, key: str, valid_s: float) -> str | None:
        """An address at which anybody can read the file for that long; None where the place has no addresses."""
        ...

    async def run(self, call: Callable[P, T], /, *args: P.args, **named: P.kwargs) -> T:
        """Run a call that uses these files in a thread."""
        ...


def checked(key: str) -> str:
    """The key itself. Raises: ValueError if no server made it."""
    if not _KEY.fullmatch(key):
        raise ValueError("not a server-made name")
    return key


def is_key(name: str) -> bool:
    """Whether the name of a file is a key: others are halves, or not ours."""
    return _KEY.fullmatch(name) is not None
