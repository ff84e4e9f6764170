"""Input images of jobs: bytes in files named by their sha256, with their owners in the database."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from gateway.store import blob_owners, damage, queries
from gateway.store.base import InputBounds
from gateway.store.blobs import Blobs, name_of
from gateway.store.clock import Clock
from gateway.store.connection import Connection
from gateway.store.guarded import GuardedDatabase


class Inputs:
    """The blobs of a JobStore in `folder`; `gateway.store.base` documents the methods."""

    def __init__(self, folder: Path, clock: Clock, records: GuardedDatabase) -> None:
        self._clock, self._records = clock, records
        self._blobs = Blobs(folder, clock.date, clock.age_s)

    async def prepare(self) -> None:
        await asyncio.to_thread(self._blobs.prepare)

    async def put(self, data: bytes, owner: str, payer: str, bounds: InputBounds | None, name: str | None) -> str:
        sha256 = name if name is not None else await asyncio.to_thread(name_of, data)

        def note(db: Connection) -> bool:
            return blob_owners.note(db, sha256, len(data), owner, payer, self._clock.steady(), bounds)

        is_new = await self._records.write(note)
        try:
            stored_bytes = await asyncio.to_thread(self._blobs.put, data, sha256)
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
        return await asyncio.to_thread(self._blobs.get, sha256)

    async def size(self, sha256: str) -> int:
        return await asyncio.to_thread(self._blobs.size, sha256)

    async def drop_unused(self, grace_s: float) -> int:
        if not await asyncio.to_thread(self._blobs.are_there):
            return 0
        before = self._clock.steady() - grace_s
        used: set[str] = set()
        after: int | None = 0
        while after is not None:  # page by page, so that other reads run in between
            after, names = await self._records.read(partial(queries.inputs_after, number=after))
            used |= names
        newest_at = await self._records.read(damage.newest_at)
        most_s = None if newest_at is None else self._clock.steady() - newest_at
        count = await asyncio.to_thread(self._blobs.drop_unused, used, grace_s, most_s)
        sizes = await asyncio.to_thread(self._blobs.sizes)

        def mend(db: Connection) -> None:
            blob_owners.mend(db)
            blob_owners.forget_gone(db, sizes, before)
            blob_owners.recount(db, sizes, before)

        await self._records.write(mend)
        return count
