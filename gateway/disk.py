"""Disk: durable writes, and which errors are the disk's and not a job's. Blocks; call it in a thread."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path

from gateway.errors import StorageFault, StorageFull, TooManyOpenFiles

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
MISSING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ENXIO})
READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
SILENT = frozenset({errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ECONNREFUSED, errno.ENETUNREACH})
TOO_MANY_FILES = frozenset({errno.EMFILE, errno.ENFILE})
FAILING = frozenset({errno.EIO, errno.EBUSY, errno.ENOLCK, errno.ENOMEM})
NOT_SUPPORTED = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY})
NO_LINKS = frozenset({*NOT_SUPPORTED, errno.EPERM, errno.ENOSYS, errno.EMLINK})
"""Errors of a file system without hard links, such as some shares: there a rename must do."""
TICK_NS = 2_000_000_000
"""Coarsest resolution of a file system's modification times: a later change may have the same time."""
F_BARRIERFSYNC = 85
"""macOS, sys/fcntl.h: what was written before reaches the disk before what is written after. Python has no name for it.
"""
_FILE_NAME = re.compile(r"[0-9a-z][0-9a-z.]{0,127}")


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
    """Write to disk. On macOS fsync leaves the bytes in the drive's cache; F_FULLFSYNC empties the whole cache."""
    if sys.platform == "darwin":
        _sync_by(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def sync_before_next(descriptor: int) -> None:
    """Write to disk before all that is written later, which `sync` must follow. Only on macOS is it quicker than that:
    it does not wait for the drive to empty its cache.
    """
    if sys.platform == "darwin":
        _sync_by(descriptor, F_BARRIERFSYNC)
    else:
        os.fsync(descriptor)


def _sync_by(descriptor: int, command: int) -> None:
    """fcntl's `command`, or fsync on a file system without it, such as a share. Raises: OSError."""
    try:
        fcntl.fcntl(descriptor, command)
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise
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


def write_atomic(
    folder: Path, name: str, data: bytes, place: str = "a folder of the gateway", *, replaces: bool = True
) -> None:
    """Write `data` to the file `name`, completely or not at all, durable on return; errors name `place`. Blocks.

    Raises: StorageFault; ValueError for a name that the server did not make; FileExistsError for a file that exists
    already where it may not be replaced.
    """
    if not _FILE_NAME.fullmatch(name):
        raise ValueError("not a server-made name")
    try:
        _write_atomic(folder, name, data, replaces)
    except OSError as error:
        fault = fault_of(error, place)
        if fault is None:
            raise
        if isinstance(fault, StorageFull):
            fault.needed_bytes = len(data)
        raise fault from error


def _write_atomic(folder: Path, name: str, data: bytes, replaces: bool) -> None:
    """Write a temporary file and rename it: first the bytes, then the name, then wait for both. Raises: OSError."""
    temporary = f".{name}.{secrets.token_hex(4)}.tmp"
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            _write_in_order(directory, temporary, data)
            if replaces:
                os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
            else:
                _rename_to_new(directory, temporary, name)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=directory)
            raise
        sync(directory)
    finally:
        os.close(directory)


def _rename_to_new(directory: int, temporary: str, name: str) -> None:
    """Rename a file to a name that no other has. Raises: FileExistsError, OSError."""
    try:
        os.link(temporary, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        try:
            os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        raise FileExistsError(errno.EEXIST, "there is such a file") from None
    os.unlink(temporary, dir_fd=directory)


def _write_in_order(directory: int, name: str, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, 0o600, dir_fd=directory), "wb", buffering=0) as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) or 0 :]
        sync_before_next(file.fileno())
