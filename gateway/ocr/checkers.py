"""The children that look at PDFs as they come in: no document of one owner holds up another's. Reads no text."""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary

from gateway.ocr.client import OcrClient, OcrOptions

CHILDREN = 2


class Checkers:
    """As many children at most, started when first needed; each owner has one document looked at at a time."""

    def __init__(self, options: OcrOptions) -> None:
        self._all = [OcrClient(options) for _ in range(CHILDREN)]
        self._resting = list(self._all)
        self._free = asyncio.Semaphore(CHILDREN)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def count_pages(self, pdf: bytes, owner: str) -> int:
        """How many pages a PDF has. Raises: InvalidRequest where it cannot be read, Unavailable."""
        turn = self._turns.setdefault(owner, asyncio.Lock())
        async with turn, self._free:
            client = self._resting.pop()
            try:
                return await client.count_pages(pdf)
            finally:
                self._resting.append(client)

    async def close(self) -> None:
        """End the children."""
        for client in self._all:
            await client.close()
