"""The parent's side of the download child: one child a download. Knows frames and signals, and no job."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

from pydantic import ValidationError

from gateway.child import ChildDied, framed, log_stderr, next_frame
from gateway.downloads.wire import MAX_ANSWER_BYTES, Answer, Fetch, Had, answer

log = logging.getLogger("gateway.downloads")

ROOT = Path(__file__).parents[2]
SILENCE_S = 180.0
"""It tells how far it is twice a second; only before it knows the sizes it may wait for the hub."""
ENVIRONMENT = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Plain HTTP goes on where it was cut, through mirrors and proxies, too.
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_VERBOSITY": "error",
    "PYTHONPATH": str(ROOT),
}


async def fetched(asked: Fetch) -> AsyncGenerator[Answer]:
    """What the child tells; the last is Fetched or NotFetched. A caller that leaves early kills it.

    Raises: ChildDied.
    """
    try:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "gateway.downloads.child",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **ENVIRONMENT},
            start_new_session=True,
        )
    except OSError:
        log.exception("the download process could not be started")
        raise ChildDied("engine_crash") from None
    listening = asyncio.create_task(log_stderr(child, log))
    try:
        assert child.stdin is not None
        async with asyncio.timeout(SILENCE_S):
            child.stdin.write(framed(asked.model_dump_json().encode()))
            await child.stdin.drain()
        while True:
            async with asyncio.timeout(SILENCE_S):
                found = answer.validate_json(await next_frame(child, MAX_ANSWER_BYTES))
            yield found
            if not isinstance(found, Had):
                return
    except TimeoutError:
        log.error("the download process, pid %d, was silent too long", child.pid)
        raise ChildDied("engine_timeout") from None
    except (OSError, asyncio.IncompleteReadError, ValidationError):
        raise ChildDied("engine_crash") from None
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        if child.stdin is not None:
            child.stdin.close()
        await asyncio.shield(_buried(child, listening))


async def _buried(child: asyncio.subprocess.Process, listening: asyncio.Task[None]) -> None:
    await child.wait()
    await listening
