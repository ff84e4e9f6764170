"""Folder lock: a data folder belongs to one process for its life."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from gateway.store.base import StoreLocked


class FolderLock:
    """The lock of a folder, held from its creation on. Raises: StoreLocked."""

    def __init__(self, folder: Path) -> None:
        self._fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            raise StoreLocked("Another gateway is using this data folder.") from None

    def release(self) -> None:
        os.close(self._fd)
