"""Checkers: child processes that count the pages of PDFs in requests, in turns by owner. They read no text."""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary

from gateway.ocr.client import OcrClient, OcrOptions

CHILDREN = 2


class Checkers:
    """A few children, started when first needed; one document of an owner is checked at a time."""

    def __init__(self, options: OcrOptions) -> None:
        self._all = [OcrClient(options) for _ in range(CHILDREN)]
        self._resting = list(self._all)
        self._free = asyncio.Semaphore(CHILDREN)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def count_pages(self, pdf: bytes, owner: str) -> int:
        """Number of pages of a PDF. Raises: InvalidRequest if it cannot be read, Unavailable."""
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
