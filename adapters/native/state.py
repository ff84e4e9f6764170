"""What /api/v1 remembers between two requests: frames of events that several streams send."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from starlette.requests import Request

from adapters.native.events import encode_event, encode_state
from adapters.native.responses import to_result
from adapters.shared.context import core_of
from gateway.context import Core
from gateway.events.bus import Event
from gateway.jobs.job import JobEvent

FRAMES_MOST = 256


class FrameCache:
    """Encoded events without their ids. Those with images are shared only while they are made."""

    def __init__(self) -> None:
        self._frames: OrderedDict[int, tuple[Event, bytes]] = OrderedDict()
        self._tasks: dict[str, asyncio.Task[bytes]] = {}

    def of(self, event: Event) -> bytes:
        entry = self._frames.get(id(event))
        if entry is not None and entry[0] is event:
            return entry[1]
        encoded = encode_event(event)
        self._frames[id(event)] = (event, encoded)  # holding the event keeps its id from being used again
        if len(self._frames) > FRAMES_MOST:
            self._frames.popitem(last=False)
        return encoded

    async def with_result(self, request: Request, event: JobEvent) -> bytes:
        """The event of a success, with the job's images."""
        task = self._tasks.get(event.job_id)
        if task is None:
            task = self._tasks[event.job_id] = asyncio.create_task(_encode_result(request, event))
            task.add_done_callback(lambda _: self._tasks.pop(event.job_id, None))
        return await asyncio.shield(task)


async def _encode_result(request: Request, event: JobEvent) -> bytes:
    result = await to_result(request, await core_of(request).service.get(event.job_id))
    return await asyncio.to_thread(encode_state, event, result)


def frames_of(core: Core) -> FrameCache:
    cache: FrameCache = core.adapter_state.setdefault("native-frames", FrameCache())
    return cache
