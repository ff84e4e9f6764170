"""Previews of running jobs for other processes: in shared files, because a message has no room for an image."""

from __future__ import annotations

import base64
from collections import deque

from gateway.files.base import Files

KEPT = 2
"""Previews of a running job that are kept: the newest, and the one before, which somebody may be reading."""
LEFT_S = 3600.0
"""Seconds after which a preview is what a process has left that crashed."""


class Previews:
    """Previews of the jobs that run in this process, for all; and those of others."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._keys: dict[str, deque[str]] = {}
        """Addresses of the previews of each job that runs here, oldest first."""
        self._count = 0

    async def put(self, job_id: str, attempt: int, jpeg_base64: str) -> str:
        """Store the newest preview of a job; returns its address. Raises: StorageFault."""
        self._count += 1
        key = f"{job_id}.{attempt}.{self._count}.jpg"
        keys = self._keys.setdefault(job_id, deque())
        keys.append(key)
        await self._files.run(self._files.put, key, base64.b64decode(jpeg_base64))
        while len(keys) > KEPT:
            await self._files.run(self._files.remove, keys.popleft())
        return key

    async def get(self, address: str) -> str | None:
        """The preview at an address as base64 of a JPEG; None where newer ones have replaced it. Raises: StorageFault,
        ValueError for an address that no process made.
        """
        jpeg = await self._files.run(self._files.get, address)
        return None if jpeg is None else base64.b64encode(jpeg).decode()

    async def drop(self, job_id: str) -> None:
        """Remove the previews of a job that has run here. Raises: StorageFault."""
        for key in self._keys.pop(job_id, ()):
            await self._files.run(self._files.remove, key)

    async def sweep(self) -> None:
        """Remove what crashed processes have left. Raises: StorageFault."""

        def remove() -> None:
            for key, stat in list(self._files.list()):
                if stat.age_s is not None and stat.age_s > LEFT_S:
                    self._files.remove(key)

        await self._files.run(remove)
