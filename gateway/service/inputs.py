"""Input images of clients, stored for the jobs that will name them, within the free space of the disk."""

from __future__ import annotations

from gateway.images.decoder import CheckedImage
from gateway.images.input_files import KeptInputs
from gateway.round_robin import Share
from gateway.store.base import InputBounds, JobStore
from gateway.store.folder_health import StorageHealth


class InputControl:
    """The input images. `bounds`: the most that all may take, None for no bound; `min_free_bytes` stay free on disk."""

    def __init__(
        self,
        store: JobStore,
        files: KeptInputs,
        storage: StorageHealth,
        *,
        bounds: InputBounds | None,
        min_free_bytes: int,
    ) -> None:
        self._store = store
        self._files = files
        self._storage = storage
        self._bounds = bounds
        self._min_free_bytes = min_free_bytes

    async def keep(self, image: CheckedImage | bytes, share: Share) -> str:
        """Store a checked input image, or a PNG made of one, for its owner; returns its name for requests.

        Raises: StorageFault.
        """
        size = len(image.stored_bytes if isinstance(image, CheckedImage) else image)
        least = self._min_free_bytes and self._min_free_bytes + size
        await self._storage.check(("inputs",), least_free_bytes=least)
        return await self._files.keep(image, share, self._bounds)

    async def size_bytes(self, name: str) -> int:
        """The size of an input image on disk, in bytes. Raises: KeyError."""
        return await self._store.blob_bytes(name)

    async def png(self, name: str, share: Share) -> bytes:
        """The PNG of an input image that its owner stored before. Raises: KeyError, TooManyFiles, Unavailable."""
        return await self._files.png(name, share)

    async def renew(self, name: str, share: Share) -> str:
        """Renew an input image of this owner: it expires like a new one. Returns its name. Raises: KeyError."""
        return await self._files.again(name, share)
