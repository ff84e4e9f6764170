"""Folder health: whether each folder that the gateway writes to exists, is the same as before, and can be written.

A probe writes bytes, in a thread of its own: a network share that hangs blocks no other thread, and its caller only
for a bounded time.
"""

from __future__ import annotations

import _thread
import asyncio
import errno
import logging
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gateway.disk import fault_of
from gateway.errors import StorageFault, StorageFull
from gateway.files.base import Files

log = logging.getLogger("gateway.storage")

SPOOL, INPUTS = "the spool folder", "the folder of input pictures"
"""Names of the folders in messages."""
SOUND_S = 0.2
ANSWER_S = 2.0
"""A folder that takes longer to answer is at fault."""
PROBE_BYTES = 4096
PROBE_MOST_BYTES = 64 * 2**20
PROBE_NAME = ".writable.tmp"
"""Name of the probe's file if the file system cannot create a file without a name."""
_PIECE = os.urandom(65536)
_NAMELESS = getattr(os, "O_TMPFILE", 0)
_NO_NAMELESS = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT})


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """Result of a probe; `free_bytes` is None if the free space could not be read."""

    fault: StorageFault | None
    free_bytes: int | None = None


class Probe(Protocol):
    """A place that can be checked; `name` is what messages call it. All methods block."""

    name: str
    needed_bytes: int
    """Bytes that could not be written last: the next probe writes as many."""
    needed_free_bytes: int

    def look(self) -> None:
        """Remember the identity of the place. Raises: OSError."""
        ...

    def probe(self) -> ProbeResult:
        """Check that the place can be used."""
        ...

    def mount_fault(self) -> StorageFault | None:
        """Why the place's files cannot be seen now, or None. Raises: OSError."""
        ...


class FilesPlace:
    """Files that are in no folder, as a place: their own check tells whether they can be written."""

    def __init__(self, files: Files) -> None:
        self.name = files.place
        self.needed_bytes = self.needed_free_bytes = 0
        self._files = files

    def look(self) -> None:
        """Nothing: the place has no identity that a mount could hide."""

    def probe(self) -> ProbeResult:
        try:
            self._files.check(self.needed_bytes)
        except StorageFault as fault:
            return ProbeResult(fault)
        self.needed_bytes = 0
        return ProbeResult(None)

    def mount_fault(self) -> StorageFault | None:
        return None


def place_of(files: Files) -> Probe:
    """The place of these files."""
    return FilesPlace(files) if files.root is None else Place(files.place, files.root)


@dataclass(frozen=True, slots=True)
class _Identity:
    """Identity of a folder. A share that is mounted again has another device number but the same inode number."""

    device: int
    inode: int

    @classmethod
    def of(cls, folder: Path) -> _Identity:
        """Raises: OSError."""
        status = os.stat(folder)
        return cls(status.st_dev, status.st_ino)


class Place:
    """One folder. `name` is what messages call it. All methods block."""

    def __init__(self, name: str, folder: Path, *, is_written: bool = True) -> None:
        self.name = name
        self.folder = folder
        self.needed_bytes = 0
        """Bytes that could not be written last: the next probe writes as many."""
        self.needed_free_bytes = 0
        self._is_written = is_written
        self._known: _Identity | None = None

    def look(self) -> None:
        """Remember the folder's identity; one that does not exist may be created later. Raises: OSError."""
        try:
            self._known = _Identity.of(self.folder)
        except FileNotFoundError:
            self._known = None

    def probe(self) -> ProbeResult:
        """Check that the folder can be used; one that was removed is created again on the same disk."""
        try:
            if self._known is None:
                self.look()
                if self._known is None:
                    return ProbeResult(None)
            elif (trouble := self.mount_fault()) is not None:
                return ProbeResult(trouble)
            elif self._is_written and not self.folder.exists():
                self.folder.mkdir(mode=0o700, exist_ok=True)
                log.warning("%s was removed and is created again", self.name)
            free = self._write_probe() if self._is_written else None
        except OSError as error:
            return ProbeResult(fault_of(error, self.name) or StorageFault(f"{self._capital} cannot be used."))
        if free is not None and free < self.needed_free_bytes:
            return ProbeResult(StorageFull(f"There is too little room on the disk of {self.name}."), free)
        self.needed_bytes = self.needed_free_bytes = 0
        return ProbeResult(None, free)

    def mount_fault(self) -> StorageFault | None:
        """Why the folder's files cannot be seen now, or None. A folder removed from a disk that is mounted is not away.

        Changes nothing. An empty mount point has another device number than the share that was mounted there.
        Raises: OSError.
        """
        before = self._known
        if before is None:
            return None
        try:
            now = _Identity.of(self.folder)
        except FileNotFoundError:
            return self._lost(before)
        if not self.folder.is_dir():
            return StorageFault(f"{self._capital} is missing: something else is in its place.")
        if now.device != before.device and now.inode != before.inode:
            return StorageFault(f"{self._capital} is on another disk than before: is its share mounted?")
        self._known = now
        return None

    def _lost(self, before: _Identity) -> StorageFault | None:
        """The fault of a missing folder; None if it was removed and can be created again. Raises: OSError."""
        above = next(folder for folder in self.folder.parents if folder.exists())
        if self._is_written and above != self.folder.parent:
            return StorageFault(f"{self._capital} is missing, and the folder that it was in.")
        if _Identity.of(above).device != before.device:
            return StorageFault(f"{self._capital} is missing, and its disk with it: is its share mounted?")
        return None

    def _write_probe(self) -> int:
        """Write the needed bytes to a file that is then removed; returns the free bytes. Raises: OSError."""
        descriptor = self._open_probe()
        try:
            left = min(max(PROBE_BYTES, self.needed_bytes), PROBE_MOST_BYTES)
            while left > 0:
                left -= os.write(descriptor, _PIECE[:left])
            status = os.fstatvfs(descriptor)
        finally:
            os.close(descriptor)
        return status.f_bavail * status.f_frsize

    def _open_probe(self) -> int:
        flags = os.O_WRONLY | os.O_CLOEXEC
        if _NAMELESS:
            try:
                return os.open(self.folder, flags | _NAMELESS, 0o600)
            except OSError as error:
                if error.errno not in _NO_NAMELESS:
                    raise
        file = self.folder / PROBE_NAME
        descriptor = os.open(file, flags | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        file.unlink(missing_ok=True)
        return descriptor

    @property
    def _capital(self) -> str:
        return self.name[:1].upper() + self.name[1:]


def storage_of(output: Probe, spool: Path, models: Path, inputs: Probe | None = None) -> StorageHealth:
    """All places that a gateway writes to, except the database's, which checks itself; `weights` is only read."""
    return StorageHealth(
        {
            "output": output,
            "spool": Place(SPOOL, spool),
            "inputs": inputs or Place(INPUTS, spool.parent / "blobs"),
            "models": Place("the models folder", models),
            "weights": Place("the models folder", models, is_written=False),
        }
    )


class StorageHealth:
    """Health of the folders of one gateway, by key. Belongs to one event loop."""

    def __init__(self, places: Mapping[str, Probe], *, answer_s: float = ANSWER_S) -> None:
        self._places: dict[str, Probe] = dict(places)
        self._answer_s = answer_s
        self._running: dict[str, tuple[asyncio.Future[ProbeResult], float]] = {}
        """Probes that run, and since when: a folder that hangs gets no second probe."""
        self._sound: dict[str, tuple[ProbeResult, float]] = {}
        """The last successful probe and its time: submits and claims soon after one another share it."""

    def see(self, key: str, place: Place) -> None:
        """Remember where a folder is, at the first call and after it has moved. Blocks."""
        current = self._places.get(key)
        if not isinstance(current, Place) or current.folder != place.folder:
            with suppress(OSError):
                place.look()
            self._places[key] = place

    def look(self) -> None:
        """Remember the identity of every folder; the probes report one that cannot be read. Blocks."""
        for place in self._places.values():
            with suppress(OSError):
                place.look()

    def doubt(self) -> None:
        """Forget all successful probes because a fault was met: the next check probes every folder again."""
        self._sound.clear()

    def needs(self, key: str, count: int = 0, *, free: int = 0) -> None:
        """Let the next probe test for as many bytes: `count` could not be written, or `free` had to be free."""
        place = self._places.get(key)
        self._sound.pop(key, None)
        if place is None:
            return
        place.needed_bytes = max(place.needed_bytes, count)
        place.needed_free_bytes = max(place.needed_free_bytes, free)

    async def fault(self, keys: Iterable[str], *, newer_than_s: float = 0.0) -> StorageFault | None:
        """The first fault among these folders; they are probed at the same time, except those just found healthy."""
        probes = await asyncio.gather(*(self._probed(key, newer_than_s) for key in keys if key in self._places))
        return next((probed.fault for probed in probes if probed.fault is not None), None)

    async def check(self, keys: Iterable[str], *, least_free_bytes: int = 0) -> None:
        """Raises: StorageFault; StorageFull if one of these disks has fewer free bytes than that."""
        for probed in await asyncio.gather(*(self._probed(key, SOUND_S) for key in keys)):
            if probed.fault is not None:
                raise probed.fault
            if probed.free_bytes is not None and probed.free_bytes < least_free_bytes:
                raise StorageFull

    async def _probed(self, key: str, newer_than_s: float) -> ProbeResult:
        """A successful probe that is newer than that, otherwise a new one."""
        loop, place = asyncio.get_running_loop(), self._places[key]
        last, when = self._sound.get(key, (None, 0.0))
        if last is not None and loop.time() - when < newer_than_s:
            return last
        if key not in self._running:
            try:
                self._ask(key, place)
            except RuntimeError:
                return ProbeResult(StorageFault("The gateway has too many threads."))
        answer, began = self._running[key]
        left = self._answer_s - (loop.time() - began)
        if left > 0:
            await asyncio.wait({answer}, timeout=left)
        if answer.done():
            return answer.result()
        return ProbeResult(StorageFault(f"{place.name[:1].upper()}{place.name[1:]} does not answer."))

    def _ask(self, key: str, place: Probe) -> None:
        """Start a probe. Raises: RuntimeError if no thread can be started."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[ProbeResult] = loop.create_future()

        def over(result: ProbeResult) -> None:
            del self._running[key]
            if result.fault is None:
                self._sound[key] = result, loop.time()
            else:
                self._sound.pop(key, None)
            answer.set_result(result)

        def ask() -> None:
            try:
                result = place.probe()
            except Exception:
                log.exception("%s could not be looked at", place.name)
                result = ProbeResult(StorageFault(f"{place.name[:1].upper()}{place.name[1:]} cannot be used."))
            with suppress(RuntimeError):  # the loop may be closed by now
                loop.call_soon_threadsafe(over, result)

        _thread.start_new_thread(ask, ())  # threading.Thread would block the loop until the thread runs
        self._running[key] = answer, loop.time()
