"""Lock of a data folder, so that two processes do not use its temporary files at once."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from gateway.private_files import private_folder
from gateway.store.base import StoreLocked


class FolderLock:
    """The lock of a folder, which is created where it is missing; ends with the process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor: int | None = None

    def take(self) -> None:
        """Lock the folder. Blocks. Raises: StoreLocked; PermissionError if it cannot be made private."""
        private_folder(self._folder, "store.data_dir")
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            text = f"Another process uses the folder {self._folder}: give each its own store.data_dir or worker.name."
            raise StoreLocked(text) from None
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
