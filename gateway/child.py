"""What our small children share: frames on their pipes, a bound on their memory, and a death.

A frame is a 4-byte big-endian length and as many bytes. Knows nothing of what is in one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import struct
import sys
from typing import BinaryIO, Literal

LENGTH = struct.Struct(">I")


class ChildDied(Exception):
    """The child died, or was killed for being silent too long."""

    def __init__(self, reason: Literal["engine_crash", "engine_timeout"]) -> None:
        self.reason: Literal["engine_crash", "engine_timeout"] = reason
        super().__init__(reason)


def framed(data: bytes) -> bytes:
    return LENGTH.pack(len(data)) + data


def read_frame(pipe: BinaryIO) -> bytes | None:
    """The next frame; None where the pipe ended, also in the middle of one."""
    head = pipe.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (size,) = LENGTH.unpack(head)
    data = pipe.read(size)
    return data if len(data) == size else None


async def next_frame(child: asyncio.subprocess.Process, most_bytes: int) -> bytes:
    """What the child says next. Raises: IncompleteReadError where it ends, or says more than that."""
    assert child.stdout is not None
    (size,) = LENGTH.unpack(await child.stdout.readexactly(LENGTH.size))
    if size > most_bytes:
        raise asyncio.IncompleteReadError(b"", size)
    return await child.stdout.readexactly(size)


async def log_stderr(child: asyncio.subprocess.Process, log: logging.Logger) -> None:
    """What the child complains of goes to the log, a line each: read until it ends, or the child would wait for us."""
    assert child.stderr is not None
    while True:
        await asyncio.sleep(0)  # lines that are here already come without waiting, and a child may say many
        try:
            line = await child.stderr.readline()
        except ValueError:  # a line beyond the reader's limit
            continue
        except OSError:
            return
        if not line:
            return
        log.info("%s", line.decode(errors="replace").rstrip(), extra={"pid": child.pid})


def own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Requests and answers of this child; fd 1 points at stderr from now on, so a stray print reaches no pipe."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return sys.stdin.buffer, answers


def limit_memory(most_bytes: int | None) -> None:
    """Bound the address space of this process; None lifts the bound again.

    Linux only: macOS takes the limit and does not keep it, so there the bounds on pixels and pages alone hold.
    """
    if sys.platform == "linux":
        import resource

        _, hardest = resource.getrlimit(resource.RLIMIT_AS)
        wanted = hardest if most_bytes is None else most_bytes
        if hardest != resource.RLIM_INFINITY:
            wanted = min(wanted, hardest)
        resource.setrlimit(resource.RLIMIT_AS, (wanted, hardest))
