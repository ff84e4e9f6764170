"""Lists of what repositories have, fetched by the download child in the background and kept. Knows no job."""

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
"""Between tries while a list does not come; the last one is repeated."""


async def bring_lists(
    models_dir: Path,
    unlisted: Callable[[], Sequence[HubFiles]],
    pauses_s: Sequence[float] = PAUSES_S,
    fall_back: tuple[str, ...] = (),
) -> None:
    """Until none is `unlisted`, which blocks; `fall_back` as of `Fetch`."""
    for pause_s in chain(pauses_s, repeat(pauses_s[-1])):
        for source in await asyncio.to_thread(unlisted):
            await _bring(models_dir, source, fall_back)
        if not await asyncio.to_thread(unlisted):
            return
        await asyncio.sleep(pause_s)


async def _bring(models_dir: Path, source: HubFiles, fall_back: tuple[str, ...]) -> None:
    asked = Fetch(models_dir=str(models_dir), sources=(source,), fall_back=fall_back, lists_only=True)
    reason = None
    try:
        async with aclosing(fetched(asked)) as answers:
            async for found in answers:
                reason = found.message if isinstance(found, NotFetched) else None
    except (ChildDied, StorageFault):
        reason = "The process that downloads stopped."
    if reason is None:
        log.info("the list of %s is here", source.repo)
    else:
        log.warning("the list of %s did not come: %s", source.repo, reason)
