"""Clients that wait for their job on one connection, on routes whose row says so; a client that leaves abandons it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager

from starlette.requests import Request
from starlette.types import Receive

from adapters.shared.context import core_of, is_attached
from gateway.context import Core
from gateway.errors import ClientGone
from gateway.events.bus import Event
from gateway.jobs.job import Job


async def attached(request: Request, job: Job) -> Job:
    """Wait for the end of a job whose client waits on this connection; a disconnect abandons the job.

    Raises: ClientGone, Unavailable.
    """
    core = core_of(request)
    assert is_attached(request)
    with _abandoning(core, job), core.waits():
        ended = asyncio.ensure_future(core.service.ended(job.id))
        gone = asyncio.ensure_future(disconnected(request.receive))
        try:
            await asyncio.wait({ended, gone}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                return ended.result()
            raise ClientGone
        finally:
            for task in (ended, gone):
                task.cancel()
            await asyncio.gather(ended, gone, return_exceptions=True)


async def attached_events(request: Request, job: Job) -> AsyncGenerator[Event, None]:
    """All events of a job, from the first one, for a client on this connection; a disconnect abandons the job.

    A job that was found by its Idempotency-Key may have ended long ago. Raises: Unavailable.
    """
    core = core_of(request)
    assert is_attached(request)
    with _abandoning(core, job), core.waits():
        # Close the subscription before the job is abandoned: a job with a subscriber is not cancelled.
        async with aclosing(core.service.watch(job.id)) as events:
            async for event in events:
                yield event


@contextmanager
def _abandoning(core: Core, job: Job) -> Iterator[None]:
    """Abandon the job where the wait for it is broken off; this has no effect on an ended job."""
    try:
        yield
    except BaseException:
        core.service.abandon(job)
        raise


async def disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
