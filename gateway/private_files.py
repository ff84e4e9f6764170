"""Private folders and files, which only this user may read, whatever the umask and their earlier modes. Blocks."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger("gateway.private")

FOLDER = 0o700
FILE = 0o600
PARENT = 0o755
"""Mode of missing folders above one of ours."""
OTHERS = 0o077


def make_folder(folder: Path, mode: int = FOLDER) -> None:
    """Create the folder and those above it if they are missing. Raises: OSError."""
    for parent in reversed(folder.parents):
        with contextlib.suppress(FileExistsError):
            if not parent.exists():
                parent.mkdir(PARENT)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode)


def private_folder(folder: Path, setting: str) -> None:
    """Create the folder, or close an existing one to other users; `setting` is its name in messages.

    Raises: PermissionError with a sentence for the operator if it cannot be closed, or is another user's.
    """
    make_folder(folder)
    name = f"{setting} {folder}"
    _check_link(folder, name)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        mode = stat.S_IMODE(status.st_mode)
        if os.geteuid() not in (0, status.st_uid):
            raise _refused(f"{name} belongs to another user; name a folder of your own.")
        if mode & OTHERS == 0 and mode & FOLDER == FOLDER:
            return
        if mode & stat.S_ISVTX or str(folder) in ("/", os.path.expanduser("~")):
            raise _refused(f"{name} is open to others and not the gateway's alone; name a folder inside it.")
        with contextlib.suppress(PermissionError):
            os.fchmod(descriptor, FOLDER)
        if stat.S_IMODE(os.fstat(descriptor).st_mode) & OTHERS:
            raise _refused(f"{name} cannot be closed to other users; name one on a disk that keeps modes.")
        log.warning("%s was open to others, with mode %o; it is private now", name, mode)
    finally:
        os.close(descriptor)


def private_files(folder: Path, is_ours: Callable[[str], bool] = lambda name: True) -> None:
    """Close the regular files in our folder to other users. Links, and files that are not ours, are not changed."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        owner = os.fstat(descriptor).st_uid
        with os.scandir(descriptor) as entries:
            for entry in entries:
                if is_ours(entry.name) and entry.is_file(follow_symlinks=False) and _is_open(entry):
                    _close(descriptor, entry.name, owner)
    finally:
        os.close(descriptor)


def _is_open(entry: os.DirEntry[str]) -> bool:
    """Whether others may read a file; there may be a hundred thousand of them."""
    try:
        return bool(entry.stat(follow_symlinks=False).st_mode & OTHERS)
    except OSError:  # removed meanwhile
        return False


def _close(directory: int, name: str, owner: int) -> None:
    with contextlib.suppress(OSError):  # removed meanwhile, or not ours to change
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        # A hard link to the file may be anywhere, and root would change that one, too.
        is_shared = status.st_nlink > 1 and os.geteuid() == 0
        if status.st_mode & OTHERS and status.st_uid == owner and not is_shared:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
            try:
                os.fchmod(descriptor, FILE)
            finally:
                os.close(descriptor)


def private_file(file: Path) -> None:
    """Create an empty file, or close ours to others; whatever is written later, its mode stays.

    Raises: PermissionError with a sentence if it is another user's, OSError.
    """
    _check_link(file, str(file))
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, FILE)
        try:
            if os.fstat(descriptor).st_mode & OTHERS:
                os.fchmod(descriptor, FILE)
        finally:
            os.close(descriptor)
    except PermissionError:
        raise _refused(f"{file} is not this user's own; give it to the user the gateway runs as (chown).") from None


def write_private(file: Path, data: bytes) -> None:
    """Write a new file, or replace the content of ours. Raises: OSError."""
    with open(file, "wb", opener=lambda path, flags: os.open(path, flags | os.O_NOFOLLOW, FILE)) as opened:
        opened.write(data)


def _check_link(path: Path, name: str) -> None:
    """Raises: PermissionError if another user put a link there."""
    with contextlib.suppress(FileNotFoundError):
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode) and status.st_uid not in (0, os.geteuid()):
            raise _refused(f"{name} is a link of another user's; remove it.")


def _refused(sentence: str) -> PermissionError:
    return PermissionError(errno.EPERM, sentence)
