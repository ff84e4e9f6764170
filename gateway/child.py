"""What our small children share: frames on their pipes, and a bound on their memory.

A frame is a 4-byte big-endian length and as many bytes. Knows nothing of what is in one.
"""

from __future__ import annotations

import os
import struct
import sys
from typing import BinaryIO

LENGTH = struct.Struct(">I")


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
