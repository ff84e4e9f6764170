"""What our small children share: frames on their pipes, a bound on their memory, and a death.

A frame is a 4-byte big-endian length and as many bytes. Knows nothing of what is in one.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Literal

from engine.child_notes import ChildNotes
from gateway.errors import StorageFault, TooManyOpenFiles

LENGTH = struct.Struct(">I")


class ChildDied(Exception):
    """The child died, or was killed for being silent too long."""

    def __init__(self, reason: Literal["engine_crash", "engine_timeout"]) -> None:
        self.reason: Literal["engine_crash", "engine_timeout"] = reason
        super().__init__(reason)


def starved(error: OSError) -> StorageFault | None:
    """The machine had no files or processes left for a child: no job's fault. None where the program is at fault."""
    if error.errno not in (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM):
        return None
    return TooManyOpenFiles("The gateway has too many files or processes open.")


async def started_child(
    *command: str, notes: Path | None, env: Mapping[str, str], cwd: Path | None = None, is_heard: bool = True
) -> asyncio.subprocess.Process:
    """A small child in a session of its own, noted while it lives; `ended_child` is its end. Raises: OSError.

    What it says on stderr comes by a pipe where `is_heard`, and is dropped otherwise.
    """
    child = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE if is_heard else asyncio.subprocess.DEVNULL,
        cwd=cwd,
        env=env,
        start_new_session=True,
    )
    if notes is not None:
        noting = asyncio.create_task(asyncio.to_thread(ChildNotes(notes).note, child.pid))
        try:
            await asyncio.shield(noting)
        except asyncio.CancelledError:
            await noting
            await ended_child(child, notes)
            raise
    return child


async def ended_child(
    child: asyncio.subprocess.Process, notes: Path | None, listening: asyncio.Task[None] | None = None
) -> None:
    """Kill it with its session and wait for it and for who listens to its stderr; a cancel does not end the wait."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    if child.stdin is not None:
        child.stdin.close()

    async def buried() -> None:
        await child.wait()
        if listening is not None:
            await listening
        if notes is not None:
            await asyncio.to_thread(ChildNotes(notes).forget, child.pid)

    await asyncio.shield(buried())


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
