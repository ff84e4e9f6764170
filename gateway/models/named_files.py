"""Files of the operator by name, of which some cannot be used and say why."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Generic, Protocol, TypeVar


class NamedFile(Protocol):
    """A file; `trouble` says in a sentence why it cannot be used."""

    @property
    def trouble(self) -> str | None: ...

    @property
    def path(self) -> Path: ...


F = TypeVar("F", bound=NamedFile)


class NamedFiles(Generic[F]):
    """Files in `folders`, by name. Subclasses find them, under the lock."""

    def __init__(self, folders: Iterable[Path] = ()) -> None:
        self._folders = tuple(dict.fromkeys(folder.absolute() for folder in folders))
        self._lock = threading.Lock()
        self._read: dict[str, F] = {}
        self._by_name: Mapping[str, F] = {}

    @property
    def folders(self) -> tuple[Path, ...]:
        return self._folders

    def all(self) -> tuple[F, ...]:
        """Those that can be used, by name."""
        return tuple(one for _, one in sorted(self._by_name.items()) if one.trouble is None)

    def troubles(self) -> tuple[F, ...]:
        """Files in the folders that cannot be used, each with its reason."""
        return tuple(one for _, one in sorted(self._by_name.items()) if one.trouble is not None)

    def file(self, name: str) -> Path:
        """The path of the file of exactly this name. Raises: KeyError."""
        one = self._by_name[name]
        if one.trouble is not None or not one.path.is_file():
            raise KeyError(name)
        return one.path
