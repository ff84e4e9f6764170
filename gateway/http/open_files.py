"""Open files: how many this process may have, and how many of them may be connections.

macOS starts a process with 256. Those that the engine, the store and image files need are reserved: a client beyond
that is refused, and no job fails because of it.
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
"""Requested if the hard limit is "unlimited": macOS grants no more; enough for every setting."""
LEAST = 96
LOOP = 16
"""Standard streams, the loop and its signals, a few listening sockets."""
STORE = 20
"""Its lock, two connections with their journals, SQLite's files for sorting; the same for a backup in progress."""
PROBES = 4
"""Folders that are probed at the same time: `gateway.store.folder_health`."""
PIPES = 4
"""Of a child: three, and the one that reports its end."""
STARTING = 8
"""Of a child while it starts, one at a time: the ends of its pipes that it inherits."""
TO_BUCKET = 32
"""Connections to a bucket of S3: its threads, and some that are idle."""
OF_THREAD = 3
"""Files that a thread has open at once: an image, its folder, its source."""
LEAST_CONNECTIONS = 8
REFUSALS_LEAST, REFUSALS_MOST = 8, 64
"""Connections that are being refused."""
AMPLE = 4096
"""Descriptors beyond all connections: more than a flood opens before the first connection is refused."""
STREAMS_SHARE = 0.75
"""Share of the connections for streams, if they are few: the rest is for requests."""

log = logging.getLogger(__name__)


def raise_limit() -> int:
    """Raise the limit of open files as far as allowed, and never lower it; returns it. Children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for most in (UNLIMITED,) if hard == resource.RLIM_INFINITY else (hard, min(hard, UNLIMITED)):
        if soft == resource.RLIM_INFINITY or soft >= most:
            break
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            break
        except (OSError, ValueError):  # macOS has a bound besides the hard limit
            log.warning("the limit of open files stays at %d: %d were refused", soft, most)
    return limit()


def limit() -> int:
    """The current limit of open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return UNLIMITED if soft == resource.RLIM_INFINITY else soft


@cache
def reserve() -> int:
    """Descriptors that no connection may use. Computed once: on Linux the number of cores is read from a file."""
    children = (
        2  # an engine, and the one it replaces
        + decoder.CHILDREN
        + 1  # the decoder for stored inputs
        + checkers.CHILDREN
        + 2  # OCR, and a download
    )
    threads = (
        min(32, (os.cpu_count() or 1) + 4)  # asyncio's default executor
        + file_pool.THREADS
        + 1  # the LoRA library's thread
    )
    return LOOP + STORE + PROBES + PIPES * children + STARTING + OF_THREAD * threads


def refusals(here: int | None = None) -> int:
    """How many connections beyond `connections` may be open to be refused; `here`: for this limit of files."""
    left = (limit() if here is None else here) - reserve()
    return max(REFUSALS_LEAST, min(REFUSALS_MOST, left // 4))


def connections() -> int:
    """How many connections the current limit allows."""
    here = limit()
    return max(LEAST_CONNECTIONS, here - reserve() - refusals(here))


def are_ample(most_connections: int) -> bool:
    """Whether no flood of clients can use them up, so that connections need not be counted before they are accepted."""
    return limit() - reserve() >= most_connections + AMPLE


def _to_storage(settings: Settings) -> int:
    """Connections to the place of the files."""
    return TO_BUCKET if (settings.files.url or "").startswith("s3:") else 0


def fitted(settings: Settings) -> Settings:
    """`settings` with no more connections, streams and waiting requests than the limit allows; fewer ones are logged.

    Raises: OSError if the limit is too low to work at all.
    """
    if (here := limit()) < LEAST:
        raise OSError(errno.EMFILE, f"{here} open files are allowed, and {LEAST} are the least to work with")
    http, most = settings.http, max(LEAST_CONNECTIONS, connections() - _to_storage(settings))
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
