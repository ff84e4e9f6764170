"""Blobs that several processes store, use and remove at the same time.

A blob is one or more copies `<sha256>.<random>` with the same name, of which the youngest counts. No copy is ever
changed. A blob that is stored again gets another copy unless its youngest is young, and only old copies are removed, so
no process removes what another has just stored or uses again, however long it takes between two of its steps.
"""

from __future__ import annotations

import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass

from gateway.disk import telling
from gateway.errors import StorageFault
from gateway.files.base import Files, FileStat, KeyTaken
from gateway.store.blobs import checked
from gateway.store.folder_health import place_of

RENEWED_S = 1200.0
"""Age of a copy from which its blob gets another one when it is stored again; unused copies stay that much longer."""
NAME_CHARS = 64
TRIES = 5
STORE = "store"
"""Key of the file with the id of the job store whose jobs use the blobs."""


@dataclass(frozen=True, slots=True)
class _Copy:
    key: str
    stat: FileStat

    @property
    def age_s(self) -> float:
        return time.time() - self.stat.made_at if self.stat.age_s is None else self.stat.age_s

    @property
    def rank(self) -> tuple[float, int]:
        """The highest counts: the youngest, of equally old ones the smallest."""
        return round(self.stat.made_at, 3), -self.stat.bytes


class SharedBlobs:
    """Blobs in files that other processes use, too; `age_s`: how many seconds of the store ago a date was."""

    def __init__(self, files: Files, age_s: Callable[[float], float], *, renewed_s: float = RENEWED_S) -> None:
        self._files = files
        self._renewed_s = renewed_s
        self._store_age_s = age_s
        self._place = place_of(files)

    def prepare(self) -> None:
        self._files.prepare()
        self._place.look()

    def put(self, data: bytes, name: str) -> int:
        newest = self._newest(name)
        if newest is not None and newest.age_s < self._renewed_s and newest.stat.bytes <= len(data):
            return newest.stat.bytes
        if newest is not None and newest.stat.bytes < len(data):
            data = self._files.get(newest.key) or data
        self._files.put(f"{checked(name)}.{secrets.token_hex(8)}", data, create=True)
        return len(data)

    def size(self, name: str) -> int:
        return self._there(name).stat.bytes

    def sizes(self) -> dict[str, int]:
        return {name: max(copies, key=lambda copy: copy.rank).stat.bytes for name, copies in self._all().items()}

    def get(self, name: str) -> bytes:
        for _ in range(TRIES):
            if (data := self._files.get(self._there(name).key)) is not None:
                return data  # else another process removed the copy since: there is a younger one, or none
        raise StorageFault

    def are_there(self) -> bool:
        return any(len(key) > NAME_CHARS for key, _ in self._files.list())

    def belong_to(self, store: str) -> bool:
        """Whether the jobs of this store use the blobs: of the first one that asked, and no other.

        A store does not know the jobs of another one, whose blobs are all unused to it. Raises: StorageFault.
        """
        try:
            self._files.put(STORE, store.encode(), create=True)
        except KeyTaken:
            return False
        return True

    def drop_unused(self, used: Collection[str], grace_s: float, most_s: float | None = None) -> int:
        """As `BlobFiles.drop_unused`; copies that have younger ones are removed by the same rule, and not counted."""
        began_at, count = time.monotonic(), 0
        grace_s += self._renewed_s
        self._files.remove_halves("", max(0.0, grace_s))
        for name, copies in self._all().items():
            newest = max(copies, key=lambda copy: copy.rank)
            for copy in copies:
                if name in used and copy is newest:
                    continue
                # Another process may have stored a job since this began: a copy counts as old only if it was old then.
                age_s = min(copy.age_s, self._store_age_s(copy.stat.made_at)) - (time.monotonic() - began_at)
                if grace_s < age_s and (most_s is None or age_s < most_s or name in used):
                    self._files.remove(copy.key)
                    count += copy is newest
        return count

    def _newest(self, name: str) -> _Copy | None:
        copies = [_Copy(key, stat) for key, stat in self._files.list(f"{checked(name)}.")]
        return max(copies, key=lambda copy: copy.rank, default=None)

    def _there(self, name: str) -> _Copy:
        """Raises: KeyError, StorageFault."""
        if (copy := self._newest(name)) is None:
            with telling(self._place.name):
                if (fault := self._place.mount_fault()) is not None:
                    raise fault
            raise KeyError(name)
        return copy

    def _all(self) -> dict[str, list[_Copy]]:
        blobs = defaultdict[str, list[_Copy]](list)
        for key, stat in self._files.list():
            if key[NAME_CHARS : NAME_CHARS + 1] == ".":
                blobs[key[:NAME_CHARS]].append(_Copy(key, stat))
        return blobs
