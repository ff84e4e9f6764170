"""Open files: how many this process may have, and how many of them may be connections.

macOS starts a process with 256. What the engine, the store and the filing of pictures need is kept for them: a client
that comes too late is told so, and no job fails of it.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
from collections.abc import Awaitable, Callable
from typing import TypeVar

from gateway.settings import Settings

OPEN_MAX = 10_240
"""What macOS grants at most where its hard limit says "unlimited"; enough for every setting."""
LEAST = 96
FIXED = 48
"""The interpreter, the loop, its sockets, the store, a copy of its database, and some to spare."""
CHILDREN = 40
"""Three pipes each of the engine, the decoders, the readers and a download, and those of one that starts."""
OF_THREAD = 3
"""Files that a thread has open at once: a picture, its folder, what it is made from."""
LEAST_CONNECTIONS = 8
REFUSALS_LEAST, REFUSALS_MOST = 8, 64
"""Connections that are being told that there are too many."""
STREAMS_SHARE = 0.75
"""Of the connections, where they are few: the rest is for requests."""
RETRY_S = 0.2

T = TypeVar("T")

log = logging.getLogger(__name__)


def raise_limit(wanted: int = OPEN_MAX) -> int:
    """Allow as many open files as the system lets us, `wanted` at most, and never fewer; how many that is.

    Children inherit it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        except (OSError, ValueError):
            log.warning("the limit of open files stays at %d: %d were refused", soft, most)
    return limit()


def limit() -> int:
    """How many files may be open now."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return OPEN_MAX if soft == resource.RLIM_INFINITY else soft


def reserve() -> int:
    """Descriptors that no connection may take."""
    threads = min(32, (os.cpu_count() or 1) + 4)  # those of asyncio's default executor
    return FIXED + CHILDREN + OF_THREAD * threads


def refusals() -> int:
    """How many connections may be open beyond `connections` to be told that there are too many."""
    return max(REFUSALS_LEAST, min(REFUSALS_MOST, (limit() - reserve()) // 4))


def connections() -> int:
    """How many connections the limit leaves room for, now."""
    return max(LEAST_CONNECTIONS, limit() - reserve() - refusals())


def fitted(settings: Settings) -> Settings:
    """`settings`, with no more connections, streams and waiting requests than there is room for; told where fewer.

    Raises: OSError where there is no room to work at all.
    """
    if (here := limit()) < LEAST:
        raise OSError(errno.EMFILE, f"{here} open files are allowed, and {LEAST} are the least to work with")
    http, most = settings.http, connections()
    share = max(1, int(most * STREAMS_SHARE))
    fewer = {
        "max_connections": min(http.max_connections, most),
        "max_streams": http.max_streams if http.max_connections <= most else min(http.max_streams, share),
        "sync_waits": http.sync_waits if http.max_connections <= most else min(http.sync_waits, share),
    }
    if all(getattr(http, name) == value for name, value in fewer.items()):
        return settings
    log.warning("open files are limited to %d: fewer clients than the settings allow", here, extra=fewer)
    return settings.model_copy(update={"http": http.model_copy(update=fewer)})


def is_out(error: OSError) -> bool:
    """Whether it says that no descriptor was left, of this process or of the machine."""
    return error.errno in (errno.EMFILE, errno.ENFILE)


async def patiently(work: Callable[[], Awaitable[T]]) -> T:
    """The result of `work`, which is tried again for as long as it finds no descriptor left."""
    while True:
        try:
            return await work()
        except OSError as error:
            if not is_out(error):
                raise
            log.warning("no file can be opened: too many are open; trying again")
        await asyncio.sleep(RETRY_S)
