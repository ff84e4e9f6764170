"""Input pictures as they are kept: a small file stands for the PNG whose sha256 is its name. Knows no job.

What is drawn upon is that PNG. A file that is not the PNG itself is decoded again, by the decoder's child only.
"""

from __future__ import annotations

import asyncio
import logging

from gateway.access.round_robin import Share
from gateway.errors import InvalidRequest, StorageFault, Unavailable
from gateway.images.decoder import CheckedImage, PictureDecoder
from gateway.images.png_chunks import SIGNATURE
from gateway.store.base import InputBounds, JobStore
from gateway.store.blobs import name_of

log = logging.getLogger("gateway.inputs")


class KeptInputs:
    """What clients sent in, under the sha256 of its PNG, or of the file itself where it is no picture."""

    def __init__(self, store: JobStore, decoder: PictureDecoder) -> None:
        self._store = store
        self._decoder = decoder

    async def close(self) -> None:
        """End the decoder's children."""
        await self._decoder.close()

    async def keep(self, picture: CheckedImage | bytes, share: Share, bounds: InputBounds | None) -> str:
        """Store it as its sender's; returns its name. Raises: StorageFault."""
        kept, whole = (picture.kept, picture.png) if isinstance(picture, CheckedImage) else (picture, picture)
        name = await asyncio.to_thread(name_of, whole)
        return await self._store.put_blob(kept, share.owner, share.peer, bounds, name)

    async def again(self, name: str, share: Share) -> str:
        """An owner's picture, as fresh as a new one. Raises: KeyError."""
        kept = await self._store.blob(name, share.owner)
        if not kept.startswith(SIGNATURE) and await _is_itself(kept, name):
            raise KeyError(name)
        return await self._store.put_blob(kept, share.owner, share.peer, name=name)

    async def png(self, name: str, share: Share) -> bytes:
        """The PNG of an owner's picture, who waits for the turn. Raises: KeyError, TooManyFiles, Unavailable."""
        kept = await self._store.blob(name, share.owner)
        if await _is_itself(kept, name):
            if not kept.startswith(SIGNATURE):
                raise KeyError(name)
            return kept
        try:
            return await _as_named(await self._decoder.normalise(kept, share=share), name)
        except InvalidRequest as error:
            raise _damaged(name) from error

    async def whole(self, name: str) -> bytes:
        """The PNG of anybody's picture, or the document, for a job; no client's turn holds it up.

        Raises: KeyError, StorageFault.
        """
        kept = await self._store.blob(name)
        if await _is_itself(kept, name):
            return kept
        try:
            return await _as_named(await self._decoder.normalise_own(kept), name)
        except InvalidRequest as error:
            raise _damaged(name) from error
        except Unavailable as error:
            raise StorageFault("Input pictures cannot be decoded now.") from error


async def _is_itself(kept: bytes, name: str) -> bool:
    return await asyncio.to_thread(name_of, kept) == name


async def _as_named(png: bytes, name: str) -> bytes:
    """The PNG, whichever it is: another version of a decoder may make other pixels of a file."""
    if not await _is_itself(png, name):
        log.warning("input %s has other pixels than when it was sent: the decoder has changed", name)
    return png


def _damaged(name: str) -> KeyError:
    log.error("input %s is damaged on the disk", name)
    return KeyError(name)
