"""Folder: files of one folder, of this process alone or shared by several on a share."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import ParamSpec, TypeVar

from gateway.disk import telling, write_atomic
from gateway.errors import StorageFault
from gateway.files.base import FilesRefused, FileStat, KeyTaken, checked, is_key
from gateway.files.clock import PlaceClock
from gateway.private_files import FILE, make_folder, private_files, private_folder

P = ParamSpec("P")
T = TypeVar("T")

OPEN = 0o755
"""Mode of a folder that other users may list, when it is created."""
READS = 0o044


def read_regular(folder: Path, name: str) -> bytes | None:
    """The bytes of a regular file in a folder, without following a link; None where there is none. Raises: OSError."""
    try:
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.EMLINK):
            return None
        raise
    finally:
        os.close(directory)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


class Folder:
    """Files in the folder `root` of mode 0700; `place` is its name in messages, `setting` in those of a start.

    `is_ours`: the files that a start closes to others. `opens`: the folder keeps its mode, and users who may list it
    may read the files. `is_shared`: other processes write to it, and the file server's clock dates the files. `date`:
    the clock that dates them otherwise, because a network disk has a clock of its own.
    """

    def __init__(
        self,
        root: Path,
        *,
        place: str,
        setting: str = "The folder",
        is_ours: Callable[[str], bool] = lambda name: True,
        opens: bool = False,
        is_shared: bool = False,
        date: Callable[[], float] = time.time,
    ) -> None:
        self.root = root
        self.is_shared = is_shared
        self.place = place
        self._setting = setting
        self._is_ours = is_ours
        self._opens = opens
        self._date = date
        self.clock = PlaceClock(self._read_clock)

    def prepare(self) -> None:
        if not self.is_shared:
            return self._prepare()
        if not self.root.parent.is_dir():
            raise FilesRefused(f"there is no folder {self.root.parent}: mount its share, or make it")
        try:
            self._prepare()
        except OSError as error:
            why = error.strerror or ""
            raise FilesRefused(why if str(self.root) in why else f"{self.root} cannot be used: {why}") from None

    def _prepare(self) -> None:
        """Raises: OSError."""
        if self._opens:
            return make_folder(self.root, OPEN)
        private_folder(self.root, self._setting)
        private_files(self.root, self._is_ours)

    def check(self, count: int = 0) -> None:
        with telling(self.place):
            self._write_clock(max(1, count))

    def put(self, key: str, data: bytes, *, create: bool = False) -> None:
        if create:
            self._create(checked(key), data)
        else:
            write_atomic(self.root, checked(key), data, self.place)
        file = self.root / key
        with telling(self.place):
            if not self.is_shared:
                os.utime(file, (self._date(),) * 2)
            if self._opens:
                file.chmod(FILE | self.root.stat().st_mode & READS)

    def _create(self, key: str, data: bytes) -> None:
        """Write a file whose key no other has. Raises: KeyTaken, StorageFault."""
        try:
            write_atomic(self.root, key, data, self.place, replaces=False)
        except FileExistsError:
            there = self.get(key)
            if there is None:  # it was removed since
                raise StorageFault from None
            if there != data:
                raise KeyTaken(key) from None

    def touch(self, key: str) -> None:
        """Date a file now."""
        with telling(self.place):
            os.utime(self.root / checked(key), (self._date(),) * 2)

    def get(self, key: str) -> bytes | None:
        with telling(self.place):
            return read_regular(self.root, checked(key))

    def tail(self, key: str, count: int) -> bytes | None:
        with telling(self.place):
            try:
                with (self.root / checked(key)).open("rb") as file:
                    length = file.seek(0, os.SEEK_END)
                    file.seek(max(0, length - count))
                    return file.read()
            except FileNotFoundError:
                return None

    def stat(self, key: str) -> FileStat | None:
        with telling(self.place):
            try:
                status = (self.root / checked(key)).stat()
            except FileNotFoundError:
                return None
        return self._of(status) if stat.S_ISREG(status.st_mode) else None

    def stats(self, keys: Iterable[str]) -> dict[str, FileStat]:
        each = ((key, self.stat(key)) for key in keys)
        return {key: status for key, status in each if status is not None}

    def list(self, prefix: str = "") -> Iterator[tuple[str, FileStat]]:
        return self.entries(lambda name: name.startswith(prefix) and is_key(name))

    def entries(self, is_wanted: Callable[[str], bool] = lambda name: True) -> Iterator[tuple[str, FileStat]]:
        """All files by name, also those that are not ours and halves. Raises: StorageFault."""
        with telling(self.place):
            for file in self.root.iterdir():
                if is_wanted(file.name):
                    with suppress(FileNotFoundError):  # another process has just removed it
                        yield file.name, self._of(file.stat())

    def remove(self, key: str) -> None:
        self.unlink(checked(key))

    def unlink(self, name: str) -> None:
        """Remove one of the `entries`."""
        with telling(self.place):
            (self.root / name).unlink(missing_ok=True)

    def remove_halves(self, prefix: str, older_than_s: float = 0.0) -> None:
        for half in self.root.glob(f".{prefix}*.tmp"):
            with suppress(FileNotFoundError):
                if older_than_s <= 0 or self._age_s(half) > older_than_s:
                    half.unlink()

    def url(self, key: str, valid_s: float) -> str | None:
        checked(key)
        return None

    async def run(self, call: Callable[P, T], /, *args: P.args, **named: P.kwargs) -> T:
        return await asyncio.to_thread(call, *args, **named)

    def _of(self, status: os.stat_result) -> FileStat:
        if not self.is_shared:
            return FileStat(status.st_size, status.st_mtime)
        return FileStat(status.st_size, *self.clock.made(status.st_mtime))

    def _age_s(self, file: Path) -> float:
        status = self._of(file.stat())
        return self._date() - status.made_at if status.age_s is None else status.age_s

    def _read_clock(self) -> float:
        """What the clock of the file server shows. Raises: OSError."""
        return self._write_clock(1)

    def _write_clock(self, count: int) -> float:
        """Write a file of `count` bytes and remove it; returns its date. Raises: OSError."""
        file = self.root / f".clock.{secrets.token_hex(4)}.tmp"
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE)
        try:
            left = count
            while left > 0:
                left -= os.write(descriptor, bytes(min(left, 65536)))
            os.fsync(descriptor)  # a client of a file server dates what it has not sent yet by its own clock
            return os.fstat(descriptor).st_mtime
        finally:
            os.close(descriptor)
            file.unlink(missing_ok=True)
