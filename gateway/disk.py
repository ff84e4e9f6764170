"""Disk: durable writes, and which errors are the disk's and not a job's. Blocks; call it in a thread."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from gateway.errors import StorageFault, StorageFull, TooManyOpenFiles

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
MISSING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ENXIO})
READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
SILENT = frozenset({errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ECONNREFUSED, errno.ENETUNREACH})
TOO_MANY_FILES = frozenset({errno.EMFILE, errno.ENFILE})
FAILING = frozenset({errno.EIO, errno.EBUSY, errno.ENOLCK, errno.ENOMEM})


def opened_file(file: Path) -> BufferedReader:
    """A regular file opened for reading; a pipe of that name would block the reader forever. Raises: OSError."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file")
    return os.fdopen(descriptor, "rb")


def read_file(file: Path, most_bytes: int) -> bytes:
    """The content of a file, opened as by `opened_file`. Raises: OSError, also if it is longer than `most_bytes`."""
    with opened_file(file) as opened:
        data = opened.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise OSError(errno.EFBIG, "the file is too long")
    return data


def sync(descriptor: int) -> None:
    """Write to disk. On macOS fsync leaves the bytes in the drive's cache; F_FULLFSYNC does not."""
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def sync_path(path: Path) -> None:
    """Write a file to disk, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def fault_of(error: BaseException, place: str = "a folder of the gateway") -> StorageFault | None:
    """The storage fault of `place` behind an error; None if the request or the code is at fault."""
    if isinstance(error, StorageFault):
        return error
    number = error.errno if isinstance(error, OSError) else None
    if number in FULL:
        return StorageFull(f"There is no room left on the disk of {place}.")
    if number in TOO_MANY_FILES:
        return TooManyOpenFiles()
    for numbers, sentence in (
        (MISSING, f"{_capital(place)} is missing."),
        (READ_ONLY, f"{_capital(place)} cannot be written."),
        (SILENT, f"{_capital(place)} does not answer."),
        (FAILING, f"The disk of {place} reports errors."),
    ):
        if number in numbers:
            return StorageFault(sentence)
    return None


def _capital(place: str) -> str:
    return place[:1].upper() + place[1:]


@contextmanager
def telling(place: str) -> Iterator[None]:
    """Turn the disk's errors in the block into a sentence about `place`. Raises: StorageFault."""
    try:
        yield
    except OSError as error:
        if (fault := fault_of(error, place)) is None:
            raise
        raise fault from error
