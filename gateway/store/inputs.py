"""Input images of jobs: bytes in files named by their sha256, with their owners in the database."""

from __future__ import annotations

import asyncio
import logging
import secrets
from functools import partial
from pathlib import Path

from gateway.files.base import Files
from gateway.store import blob_owners, damage, queries, rows
from gateway.store.base import InputBounds
from gateway.store.blobs import BlobFiles, Blobs, blob_folder, name_of
from gateway.store.clock import Clock
from gateway.store.connection import Connection
from gateway.store.guarded import GuardedDatabase
from gateway.store.shared_blobs import SharedBlobs

log = logging.getLogger("gateway.store")

STORE_ID = "id of the store"


class Inputs:
    """The blobs of a JobStore in a folder, or in shared files; `gateway.store.base` documents the methods."""

    def __init__(self, files: Path | Files, clock: Clock, records: GuardedDatabase) -> None:
        self._clock, self._records = clock, records
        self._blobs: BlobFiles
        if isinstance(files, Path):
            folder = blob_folder(files, clock.date)
            self._blobs, self._run = Blobs(folder, clock.age_s), folder.run
        else:
            self._blobs, self._run = SharedBlobs(files, clock.age_s), files.run

    async def prepare(self) -> None:
        await self._run(self._blobs.prepare)

    async def put(self, data: bytes, owner: str, payer: str, bounds: InputBounds | None, name: str | None) -> str:
        sha256 = name if name is not None else await asyncio.to_thread(name_of, data)

        def note(db: Connection) -> bool:
            return blob_owners.note(db, sha256, len(data), owner, payer, self._clock.steady(), bounds)

        is_new = await self._records.write(note)
        try:
            stored_bytes = await self._run(self._blobs.put, data, sha256)
        except BaseException:
            if is_new:
                await self._records.write(lambda db: blob_owners.forget(db, sha256, owner))
            raise
        if await self._records.read(lambda db: blob_owners.counts_otherwise(db, sha256, stored_bytes)):
            await self._records.write(lambda db: blob_owners.count(db, sha256, stored_bytes))
        return sha256

    async def get(self, sha256: str, owner: str | None) -> bytes:
        if owner is not None and not await self._records.read(lambda db: blob_owners.owns(db, sha256, owner)):
            raise KeyError(sha256)
        return await self._run(self._blobs.get, sha256)

    async def size(self, sha256: str) -> int:
        return await self._run(self._blobs.size, sha256)

    async def _are_ours(self) -> bool:
        """Whether the jobs of this store, and of no other, use the blobs."""
        blobs = self._blobs
        if not isinstance(blobs, SharedBlobs):
            return True
        store = await self._records.read(lambda db: rows.stored_text(db, STORE_ID))
        if store is None:
            made = store = secrets.token_hex(16)
            await self._records.write(lambda db: rows.store_text(db, STORE_ID, made))
        if await self._run(blobs.belong_to, store):
            return True
        log.warning("unused inputs are not removed: another job store has its inputs in the same place")
        return False

    async def drop_unused(self, grace_s: float) -> int:
        if not await self._run(self._blobs.are_there) or not await self._are_ours():
            return 0
        began_at = self._clock.steady()
        before = began_at - grace_s
        used: set[str] = set()
        after: int | None = 0
        while after is not None:  # page by page, so that other reads run in between
            after, names = await self._records.read(partial(queries.inputs_after, number=after))
            used |= names
        newest_at = await self._records.read(damage.newest_at)
        most_s = None if newest_at is None else self._clock.steady() - newest_at
        took_s = self._clock.steady() - began_at  # what was stored since is not in `used`
        count = await self._run(self._blobs.drop_unused, used, grace_s + took_s, most_s)
        sizes = await self._run(self._blobs.sizes)

        def mend(db: Connection) -> None:
            blob_owners.mend(db)
            blob_owners.forget_gone(db, sizes, before)
            blob_owners.recount(db, sizes, before)

        await self._records.write(mend)
        return count
