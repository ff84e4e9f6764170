"""Input images as stored: a small file stands for the PNG whose sha256 is its name. Knows no job.

The engine always gets that PNG. A file that is not the PNG itself is decoded again, in the decoder's child.
"""

from __future__ import annotations

import asyncio
import logging

from gateway.errors import InvalidRequest, StorageFault, Unavailable
from gateway.images.decoder import CheckedImage, ImageDecoder
from gateway.images.png_chunks import SIGNATURE
from gateway.round_robin import Share
from gateway.store.base import InputBounds, JobStore
from gateway.store.blobs import name_of

log = logging.getLogger("gateway.inputs")


class KeptInputs:
    """Stored inputs of clients, by the sha256 of the PNG, or of the file itself if it is not an image."""

    def __init__(self, store: JobStore, decoder: ImageDecoder) -> None:
        self._store = store
        self._decoder = decoder

    async def close(self) -> None:
        """End the decoder's children."""
        await self._decoder.close()

    async def keep(self, image: CheckedImage | bytes, share: Share, bounds: InputBounds | None) -> str:
        """Store an input as its sender's; returns its name. Raises: StorageFault."""
        data, whole = (image.stored_bytes, image.png) if isinstance(image, CheckedImage) else (image, image)
        name = await asyncio.to_thread(name_of, whole)
        return await self._store.put_blob(data, share.owner, share.peer, bounds, name)

    async def again(self, name: str, share: Share) -> str:
        """Renew an owner's stored image as if it had been sent now; returns its name. Raises: KeyError."""
        data = await self._store.blob(name, share.owner)
        if not data.startswith(SIGNATURE) and await _is_itself(data, name):
            raise KeyError(name)
        return await self._store.put_blob(data, share.owner, share.peer, name=name)

    async def png(self, name: str, share: Share) -> bytes:
        """The PNG of an owner's image, decoded in the owner's turn. Raises: KeyError, TooManyFiles, Unavailable."""
        data = await self._store.blob(name, share.owner)
        if await _is_itself(data, name):
            if not data.startswith(SIGNATURE):
                raise KeyError(name)
            return data
        try:
            return await _as_named(await self._decoder.normalise(data, share=share), name)
        except InvalidRequest as error:
            raise _damaged(name) from error

    async def whole(self, name: str) -> bytes:
        """The PNG of any owner's image, or the document, for a job, without waiting for clients' turns.

        Raises: KeyError, StorageFault.
        """
        data = await self._store.blob(name)
        if await _is_itself(data, name):
            return data
        try:
            return await _as_named(await self._decoder.normalise_own(data), name)
        except InvalidRequest as error:
            raise _damaged(name) from error
        except Unavailable as error:
            raise StorageFault("Input pictures cannot be decoded now.") from error


async def _is_itself(data: bytes, name: str) -> bool:
    return await asyncio.to_thread(name_of, data) == name


async def _as_named(png: bytes, name: str) -> bytes:
    """The PNG, whatever it is: another version of a decoder may make other pixels of a file."""
    if not await _is_itself(png, name):
        log.warning("input %s has other pixels than when it was sent: the decoder has changed", name)
    return png


def _damaged(name: str) -> KeyError:
    log.error("input %s is damaged on the disk", name)
    return KeyError(name)
