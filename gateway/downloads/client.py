"""The parent's side of the download child: one child for each download. Knows frames and signals, and no job."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

from pydantic import ValidationError

from engine.clock import patience
from gateway.downloads.wire import MAX_ANSWER_BYTES, Answer, Fetch, Had, answer
from gateway.framing import ChildDied, ended_child, framed, log_stderr, next_frame, started_child, starved

log = logging.getLogger("gateway.downloads")

ROOT = Path(__file__).parents[2]
SILENCE_S = 180.0
"""Seconds without an answer after which the child is killed. It reports twice a second once it knows the sizes."""
SECRETS = ("AWS_", "MFLUX_GATEWAY__")
"""How the names of variables begin that only the gateway may see: keys to its storage, and its settings."""
ENVIRONMENT = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Plain HTTP resumes interrupted downloads, also through mirrors and proxies.
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_VERBOSITY": "error",
    "PYTHONPATH": str(ROOT),
}


async def fetched(fetch: Fetch, notes: Path | None = None) -> AsyncGenerator[Answer]:
    """The answers of the child; the last is Fetched or NotFetched. A caller that stops early kills it. `notes` is the
    folder in which the running child is recorded.

    Raises: ChildDied; StorageFault where no child can be started.
    """
    try:
        child = await started_child(
            sys.executable,
            "-P",
            "-m",
            "gateway.downloads.child",
            notes=notes,
            env={**{name: value for name, value in os.environ.items() if not name.startswith(SECRETS)}, **ENVIRONMENT},
        )
    except OSError as error:
        log.exception("the download process could not be started")
        raise (starved(error) or ChildDied("engine_crash")) from None
    listening = asyncio.create_task(log_stderr(child, log))
    try:
        assert child.stdin is not None
        async with patience(SILENCE_S):
            child.stdin.write(framed(fetch.model_dump_json().encode()))
            await child.stdin.drain()
        while True:
            async with patience(SILENCE_S):
                message = answer.validate_json(await next_frame(child, MAX_ANSWER_BYTES))
            yield message
            if not isinstance(message, Had):
                return
    except TimeoutError:
        log.error("the download process, pid %d, was silent too long", child.pid)
        raise ChildDied("engine_timeout") from None
    except (OSError, asyncio.IncompleteReadError, ValidationError):
        raise ChildDied("engine_crash") from None
    finally:
        await ended_child(child, notes, listening)
