"""Framing for small child processes: frames on their pipes, a limit on their memory, and their end.

A frame is a 4-byte big-endian length and as many bytes, whose content is not known here.
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
    """The child died, or was killed because it was silent for too long."""

    def __init__(self, reason: Literal["engine_crash", "engine_timeout"]) -> None:
        self.reason: Literal["engine_crash", "engine_timeout"] = reason
        super().__init__(reason)


def starved(error: OSError) -> StorageFault | None:
    """The fault if the machine had no files or processes left for a child. None if the program is at fault."""
    if error.errno not in (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM):
        return None
    return TooManyOpenFiles("The gateway has too many files or processes open.")


async def started_child(
    *command: str, notes: Path | None, env: Mapping[str, str], cwd: Path | None = None, is_heard: bool = True
) -> asyncio.subprocess.Process:
    """A small child in a session of its own, noted while it lives; `ended_child` ends it. Raises: OSError.

    Its stderr is a pipe if `is_heard`, and dropped otherwise.
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
    """Kill a child's session and wait for it and for its stderr reader; a cancellation does not end the wait."""
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
    """The next frame; None if the pipe has ended, even within a frame."""
    head = pipe.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (size,) = LENGTH.unpack(head)
    data = pipe.read(size)
    return data if len(data) == size else None


async def next_frame(child: asyncio.subprocess.Process, most_bytes: int) -> bytes:
    """The child's next frame. Raises: IncompleteReadError if it ends, or sends more than `most_bytes`."""
    assert child.stdout is not None
    (size,) = LENGTH.unpack(await child.stdout.readexactly(LENGTH.size))
    if size > most_bytes:
        raise asyncio.IncompleteReadError(b"", size)
    return await child.stdout.readexactly(size)


async def log_stderr(child: asyncio.subprocess.Process, log: logging.Logger) -> None:
    """Log the child's stderr, one record a line, until it ends; unread, it would block the child."""
    assert child.stderr is not None
    while True:
        await asyncio.sleep(0)  # buffered lines need no wait, and a child may write many
        try:
            line = await child.stderr.readline()
        except ValueError:  # longer than the reader's limit
            continue
        except OSError:
            return
        if not line:
            return
        log.info("%s", line.decode(errors="replace").rstrip(), extra={"pid": child.pid})


def own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Requests and answers of this child; fd 1 becomes stderr, so that a stray print does not reach the pipe."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return sys.stdin.buffer, answers


def limit_memory(most_bytes: int | None) -> None:
    """Limit the address space of this process; None removes the limit.

    Linux only: macOS accepts the limit but does not enforce it, so there only the bounds on pixels and pages apply.
    """
    if sys.platform == "linux":
        import resource

        _, hardest = resource.getrlimit(resource.RLIMIT_AS)
        soft = hardest if most_bytes is None else most_bytes
        if hardest != resource.RLIM_INFINITY:
            soft = min(soft, hardest)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hardest))
