"""Lists of the files of repositories, fetched by the download child in the background. Knows no job."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import aclosing
from itertools import chain, repeat
from pathlib import Path

from engine.catalog import HubFiles
from gateway.downloads.client import fetched
from gateway.downloads.wire import Fetch, NotFetched
from gateway.errors import StorageFault
from gateway.framing import ChildDied

log = logging.getLogger("gateway.downloads")

PAUSES_S = (60.0, 600.0, 3600.0)
"""Seconds between tries while a list cannot be fetched; the last one repeats."""


async def bring_lists(
    models_dir: Path,
    unlisted: Callable[[], Sequence[HubFiles]],
    pauses_s: Sequence[float] = PAUSES_S,
    fall_back: tuple[str, ...] = (),
) -> None:
    """Fetch lists until no source is `unlisted`, a function that blocks; `fall_back` as in `Fetch`."""
    for pause_s in chain(pauses_s, repeat(pauses_s[-1])):
        for source in await asyncio.to_thread(unlisted):
            await _bring(models_dir, source, fall_back)
        if not await asyncio.to_thread(unlisted):
            return
        await asyncio.sleep(pause_s)


async def _bring(models_dir: Path, source: HubFiles, fall_back: tuple[str, ...]) -> None:
    fetch = Fetch(models_dir=str(models_dir), sources=(source,), fall_back=fall_back, lists_only=True)
    reason = None
    try:
        async with aclosing(fetched(fetch)) as answers:
            async for answer in answers:
                reason = answer.message if isinstance(answer, NotFetched) else None
    except (ChildDied, StorageFault):
        reason = "The process that downloads stopped."
    if reason is None:
        log.info("the list of %s is here", source.repo)
    else:
        log.warning("the list of %s did not come: %s", source.repo, reason)
