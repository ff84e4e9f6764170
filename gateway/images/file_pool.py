"""Threads for work on clients' files: base64, texts, pixels. Nothing else in the gateway waits for them.

The event loop's default executor is left to short disk work of the gateway itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from gateway.round_robin import Bounds, RoundRobin, Share

THREADS = 3
STUCK_S = 30.0
"""Seconds without a start or an end of work, while work waits, after which the pool counts as stuck."""
SHORT_BYTES = 1024 * 1024
"""Bytes from which a text is read, or which are decoded, within milliseconds."""
P = ParamSpec("P")
T = TypeVar("T")


class FilePool:
    """Thread pool shared in turns by owner, with a bounded queue."""

    def __init__(self, threads: int = THREADS, bounds: Bounds | None = None) -> None:
        self._turns = RoundRobin(threads, bounds or Bounds())
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="files")

    async def run(self, share: Share, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`work(*args, **kwargs)` in a thread. Raises: what it raises; TooManyFiles, Unavailable."""
        await self._turns.take(share, sum(len(arg) for arg in args if isinstance(arg, bytes | str)))
        return await self._started(share, partial(work, *args, **kwargs))

    async def read(self, share: Share, work: Callable[..., T], data: bytes | str, *args: object) -> T:
        """Like `run`, for work whose time is bounded by the size of `data`: reading texts, decoding base64."""
        size = len(data)
        await self._turns.take(share, size, is_short=size <= SHORT_BYTES)
        return await self._started(share, partial(work, data, *args))

    async def _started(self, share: Share, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        try:
            running: Future[T] = self._threads.submit(work)
        except BaseException:
            self._turns.give_back(share)
            raise

        # If the caller is cancelled, its work goes on in the thread: the slot is free when that has ended.
        def ended(_: Future[T]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._turns.give_back, share)

        running.add_done_callback(ended)
        return await asyncio.wrap_future(running)

    @property
    def trouble(self) -> str | None:
        """Why files are not read now, as a sentence; None if they are."""
        return "What clients sent is not read any more: the pool of threads for it is stuck." if self.is_stuck else None

    @property
    def is_stuck(self) -> bool:
        return self._turns.still_s > STUCK_S

    def close(self) -> None:
        """Accept no more work; running work is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
