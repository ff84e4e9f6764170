"""What it takes that written bytes stay, and whether there is room for more of them. Blocks; call it in a thread."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from gateway.errors import StorageFull


def sync(descriptor: int) -> None:
    """fsync on macOS leaves the bytes in the drive's cache; F_FULLFSYNC does not."""
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def sync_path(path: Path) -> None:
    """Of a file, or of a folder: the names in it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def check_room(folders: Iterable[Path], least_bytes: int) -> None:
    """Raises: StorageFull where the disk of one of these has less than that free; one that is not there has room."""
    for folder in folders:
        try:
            free = shutil.disk_usage(folder).free
        except OSError:
            continue
        if free < least_bytes:
            raise StorageFull
