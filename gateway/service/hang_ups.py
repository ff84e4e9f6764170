"""How long a job goes on whose client has hung up (R-09): until nobody can come back to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from engine.clock import patience
from gateway.events.bus import EventBus, PlaceEvent, ProgressEvent


async def wait_until_unneeded(bus: EventBus, job_id: str, *, grace_s: float, others_wait: Callable[[], bool]) -> None:
    """Wait until no client watches the job, and none has resumed a stream of it within `grace_s`.

    A client that sends its request again needs the model that is being loaded: a load that delays no other job has
    `grace_s`, too. The drawing of an image has none.
    """
    await _wait_unwatched(bus, job_id, grace_s)
    if _is_loading(bus, job_id) and not others_wait():
        with suppress(TimeoutError):
            async with patience(grace_s):
                await _wait_for_load(bus, job_id)
        await _wait_unwatched(bus, job_id, grace_s)


async def _wait_unwatched(bus: EventBus, job_id: str, grace_s: float) -> None:
    """A watched job is unwatched at the second look without a watcher: a shorter pause is a stream that is resumed."""
    looks = 2 if bus.watchers(job_id) else 0
    while looks > 0:
        await asyncio.sleep(grace_s)
        looks = 2 if bus.watchers(job_id) else looks - 1


async def _wait_for_load(bus: EventBus, job_id: str) -> None:
    with bus.subscribe(job_id) as events:
        async for event in events:
            is_loading = isinstance(event, ProgressEvent) and event.progress.phase == "loading"
            if not is_loading and not isinstance(event, PlaceEvent):
                return


def _is_loading(bus: EventBus, job_id: str) -> bool:
    progress = bus.progress(job_id)
    return progress is not None and progress.phase == "loading"
