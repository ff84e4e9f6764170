"""Open files: how many this process may have, and how many of them may be connections.

macOS starts a process with 256. What the engine, the store and the filing of pictures need is kept for them: a client
that comes too late is told so, and no job fails of it.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
from functools import cache

from gateway.images import decoder, file_pool
from gateway.ocr import checkers
from gateway.settings import Settings

UNLIMITED = 10_240
"""What is asked for where the hard limit says "unlimited": macOS grants no more; enough for every setting."""
LEAST = 96
LOOP = 16
"""Standard streams, the loop and its signals, a few listening sockets."""
STORE = 20
"""Its lock, two connections with their journals, what SQLite sorts in; the same for a copy of it being made."""
PROBES = 4
"""Folders that are tried by writing, at the same time: `gateway.store.folder_health`."""
PIPES = 4
"""Of a child: three, and what tells of its end."""
STARTING = 8
"""Of a child that is being started, one at a time: the ends of its pipes that it takes along."""
OF_THREAD = 3
"""Files that a thread has open at once: a picture, its folder, what it is made from."""
LEAST_CONNECTIONS = 8
REFUSALS_LEAST, REFUSALS_MOST = 8, 64
"""Connections that are being told that there are too many."""
AMPLE = 4096
"""Beyond all connections: more than a flood opens before the first of it is refused."""
STREAMS_SHARE = 0.75
"""Of the connections, where they are few: the rest is for requests."""

log = logging.getLogger(__name__)


def raise_limit() -> int:
    """Allow as many open files as the system lets us, and never fewer; how many that is. Children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for most in (UNLIMITED,) if hard == resource.RLIM_INFINITY else (hard, min(hard, UNLIMITED)):
        if soft == resource.RLIM_INFINITY or soft >= most:
            break
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            break
        except (OSError, ValueError):  # macOS has another bound than the hard limit
            log.warning("the limit of open files stays at %d: %d were refused", soft, most)
    return limit()


def limit() -> int:
    """How many files may be open now."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return UNLIMITED if soft == resource.RLIM_INFINITY else soft


@cache
def reserve() -> int:
    """Descriptors that no connection may take. Counted once: on Linux the number of cores is read from a file."""
    children = (
        2  # an engine, and the one that it replaces
        + decoder.CHILDREN
        + 1  # that of what the gateway kept
        + checkers.CHILDREN
        + 2  # what reads text, and a download
    )
    threads = (
        min(32, (os.cpu_count() or 1) + 4)  # of asyncio's default executor
        + file_pool.THREADS
        + 1  # of the library's
    )
    return LOOP + STORE + PROBES + PIPES * children + STARTING + OF_THREAD * threads


def refusals(here: int | None = None) -> int:
    """How many connections may be open beyond `connections` to be told that there are too many; `here`: of so many
    files.
    """
    left = (limit() if here is None else here) - reserve()
    return max(REFUSALS_LEAST, min(REFUSALS_MOST, left // 4))


def connections() -> int:
    """How many connections the limit leaves room for, now."""
    here = limit()
    return max(LEAST_CONNECTIONS, here - reserve() - refusals(here))


def are_ample(most_connections: int) -> bool:
    """Whether no flood of clients finds the end of them, so that connections need not be counted as they are taken."""
    return limit() - reserve() >= most_connections + AMPLE


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
