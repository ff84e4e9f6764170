"""Folders the gateway writes to: whether each is there, is the one it was, and takes bytes.

A probe really writes, in a thread of its own: a share that hangs keeps no other thread and no caller for long.
"""

from __future__ import annotations

import _thread
import asyncio
import errno
import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.disk import fault_of
from gateway.errors import StorageFault, StorageFull

log = logging.getLogger("gateway.storage")

SPOOL, INPUTS = "the spool folder", "the folder of input pictures"
"""How sentences call them."""
SOUND_S = 0.2
ANSWER_S = 2.0
"""A place that takes longer to answer is at fault."""
PROBE_BYTES = 4096
PROBE_MOST_BYTES = 64 * 2**20
PROBE_NAME = ".writable.tmp"
"""Where the filesystem knows no file without a name."""
_PIECE = os.urandom(65536)
_NAMELESS = getattr(os, "O_TMPFILE", 0)
_NO_NAMELESS = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT})


@dataclass(frozen=True, slots=True)
class Probed:
    """What a probe found; `free_bytes` is None where nothing could be asked."""

    fault: StorageFault | None
    free_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class _Identity:
    """Of a folder. A share that is mounted again has another device number and the same inode number."""

    device: int
    inode: int

    @classmethod
    def of(cls, folder: Path) -> _Identity:
        """Raises: OSError."""
        found = os.stat(folder)
        return cls(found.st_dev, found.st_ino)


class Place:
    """One folder. `name` is how sentences call it. All methods block."""

    def __init__(self, name: str, folder: Path, *, is_written: bool = True) -> None:
        self.name = name
        self.folder = folder
        self.needed_bytes = 0
        """What could not be written last: less would prove nothing."""
        self.needed_free_bytes = 0
        self._is_written = is_written
        self._known: _Identity | None = None

    def look(self) -> None:
        """Remember which folder it is; one that is not there yet may come later. Raises: OSError."""
        try:
            self._known = _Identity.of(self.folder)
        except FileNotFoundError:
            self._known = None

    def probe(self) -> Probed:
        """Make sure that it can be used; a folder that was removed is made anew on the disk where it was."""
        try:
            if self._known is None:
                self.look()
                if self._known is None:
                    return Probed(None)
            elif (trouble := self.away()) is not None:
                return Probed(trouble)
            elif self._is_written and not self.folder.exists():
                self.folder.mkdir(mode=0o700, exist_ok=True)
                log.warning("%s was removed and is made anew", self.name)
            free = self._written() if self._is_written else None
        except OSError as error:
            return Probed(fault_of(error, self.name) or StorageFault(f"{self._capital} cannot be used."))
        if free is not None and free < self.needed_free_bytes:
            return Probed(StorageFull(f"There is too little room on the disk of {self.name}."), free)
        self.needed_bytes = self.needed_free_bytes = 0
        return Probed(None, free)

    def away(self) -> StorageFault | None:
        """Why what lay in it cannot be seen now; a folder that was removed from a disk that is there is not away.

        Changes nothing. An empty mount point has another device number than what was mounted there. Raises: OSError.
        """
        known = self._known
        if known is None:
            return None
        try:
            now = _Identity.of(self.folder)
        except FileNotFoundError:
            return self._lost(known)
        if not self.folder.is_dir():
            return StorageFault(f"{self._capital} is missing: something else is in its place.")
        if now.device != known.device and now.inode != known.inode:
            return StorageFault(f"{self._capital} is on another disk than before: is its share mounted?")
        self._known = now
        return None

    def _lost(self, known: _Identity) -> StorageFault | None:
        """None where the folder was removed, and could be made anew. Raises: OSError."""
        above = next(folder for folder in self.folder.parents if folder.exists())
        if self._is_written and above != self.folder.parent:
            return StorageFault(f"{self._capital} is missing, and the folder that it was in.")
        if _Identity.of(above).device != known.device:
            return StorageFault(f"{self._capital} is missing, and its disk with it: is its share mounted?")
        return None

    def _written(self) -> int:
        """Write and take back as much as is needed; returns the bytes that are free. Raises: OSError."""
        descriptor = self._opened()
        try:
            left = min(max(PROBE_BYTES, self.needed_bytes), PROBE_MOST_BYTES)
            while left > 0:
                left -= os.write(descriptor, _PIECE[:left])
            found = os.fstatvfs(descriptor)
        finally:
            os.close(descriptor)
        return found.f_bavail * found.f_frsize

    def _opened(self) -> int:
        flags = os.O_WRONLY | os.O_CLOEXEC
        if _NAMELESS:
            try:
                return os.open(self.folder, flags | _NAMELESS, 0o600)
            except OSError as error:
                if error.errno not in _NO_NAMELESS:
                    raise
        named = self.folder / PROBE_NAME
        descriptor = os.open(named, flags | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        named.unlink(missing_ok=True)
        return descriptor

    @property
    def _capital(self) -> str:
        return self.name[:1].upper() + self.name[1:]


def storage_of(output: Place, spool: Path, models: Path) -> StorageHealth:
    """All that a gateway writes to, but for the database, which looks after itself; `weights` is only read."""
    return StorageHealth(
        {
            "output": output,
            "spool": Place(SPOOL, spool),
            "inputs": Place(INPUTS, spool.parent / "blobs"),
            "models": Place("the models folder", models),
            "weights": Place("the models folder", models, is_written=False),
        }
    )


class StorageHealth:
    """The places of one gateway by key. Belongs to one event loop."""

    def __init__(self, places: dict[str, Place], *, answer_s: float = ANSWER_S) -> None:
        self._places = places
        self._answer_s = answer_s
        self._asked: dict[str, tuple[asyncio.Future[Probed], float]] = {}
        """Probes under way, and since when: a place that hangs is not asked twice."""
        self._sound: dict[str, tuple[Probed, float]] = {}
        """What was found well last, and when: submits and claims that follow one another share a look."""

    def see(self, key: str, place: Place) -> None:
        """Remember where something lies that is there now, the first time and where it has moved. Blocks."""
        known = self._places.get(key)
        if known is None or known.folder != place.folder:
            with suppress(OSError):
                place.look()
            self._places[key] = place

    def look(self) -> None:
        """Remember which folders they are; one that cannot be looked at is told of by its probes. Blocks."""
        for place in self._places.values():
            with suppress(OSError):
                place.look()

    def doubt(self) -> None:
        """Something found a place at fault: whoever asks next has them all asked."""
        self._sound.clear()

    def needs(self, key: str, count: int = 0, *, free: int = 0) -> None:
        """So many bytes could not be written there, or had to be free: the next probe asks for as many."""
        place = self._places.get(key)
        self._sound.pop(key, None)
        if place is None:
            return
        place.needed_bytes = max(place.needed_bytes, count)
        place.needed_free_bytes = max(place.needed_free_bytes, free)

    async def fault(self, keys: Iterable[str], *, newer_than_s: float = 0.0) -> StorageFault | None:
        """The first fault among these places; they are asked at the same time, but for what was just found well."""
        found = await asyncio.gather(*(self._probed(key, newer_than_s) for key in keys if key in self._places))
        return next((probed.fault for probed in found if probed.fault is not None), None)

    async def check(self, keys: Iterable[str], *, least_free_bytes: int = 0) -> None:
        """Raises: StorageFault; StorageFull where one of these disks has less than that free."""
        for probed in await asyncio.gather(*(self._probed(key, SOUND_S) for key in keys)):
            if probed.fault is not None:
                raise probed.fault
            if probed.free_bytes is not None and probed.free_bytes < least_free_bytes:
                raise StorageFull

    async def _probed(self, key: str, newer_than_s: float) -> Probed:
        """What was found well less than so long ago, else what is found now."""
        loop, place = asyncio.get_running_loop(), self._places[key]
        found, when = self._sound.get(key, (None, 0.0))
        if found is not None and loop.time() - when < newer_than_s:
            return found
        if key not in self._asked:
            try:
                self._ask(key, place)
            except RuntimeError:
                return Probed(StorageFault("The gateway has too many threads."))
        answer, began = self._asked[key]
        left = self._answer_s - (loop.time() - began)
        if left > 0:
            await asyncio.wait({answer}, timeout=left)
        if answer.done():
            return answer.result()
        return Probed(StorageFault(f"{place.name[:1].upper()}{place.name[1:]} does not answer."))

    def _ask(self, key: str, place: Place) -> None:
        """Raises: RuntimeError where no thread can be started."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Probed] = loop.create_future()

        def over(found: Probed) -> None:
            del self._asked[key]
            if found.fault is None:
                self._sound[key] = found, loop.time()
            else:
                self._sound.pop(key, None)
            answer.set_result(found)

        def ask() -> None:
            try:
                found = place.probe()
            except Exception:
                log.exception("%s could not be looked at", place.name)
                found = Probed(StorageFault(f"{place.name[:1].upper()}{place.name[1:]} cannot be used."))
            with suppress(RuntimeError):  # the loop may be closed by now
                loop.call_soon_threadsafe(over, found)

        _thread.start_new_thread(ask, ())  # threading.Thread would have the loop wait until it runs
        self._asked[key] = answer, loop.time()
