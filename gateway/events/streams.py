"""Event streams of clients: first the missed events, from the store, then live events, from the event bus.

Replay and live events are one loop: the stream subscribes to the bus before it reads the store, so no event is lost.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from gateway.events.bus import Event, EventBus, Snapshot
from gateway.events.positions import QueuePositions
from gateway.jobs.job import JobEvent, State
from gateway.store.base import JobStore

LIVE_MOST = 1000


async def watch(
    store: JobStore, bus: EventBus, positions: QueuePositions, job_id: str, after: int
) -> AsyncGenerator[Event, None]:
    """The events of a job: every state event with seq > `after`, and the newest progress or position.

    Ends with the job or the gateway. No gap, no duplicate. Raises: JobNotFound.
    """
    with bus.subscribe(job_id) as live:
        job = await store.get(job_id)
        for event in job.events[after:]:
            yield event
        if job.state is not None and job.state.terminal:
            return
        seq = max(after, job.seq)
        async for newest in positions.newest([job]):
            yield newest
        async for news in live:
            if not isinstance(news, JobEvent):
                yield news
                continue
            # The replay may have sent this event already; the store has the next ones.
            for event in [news] if news.seq == seq + 1 else await store.events_after(job_id, seq):
                seq = event.seq
                yield event
                if event.fact.kind in ("succeeded", "failed", "cancelled"):
                    return


async def watch_all(
    store: JobStore, bus: EventBus, positions: QueuePositions, owner: str, after: int | None
) -> AsyncGenerator[Snapshot | Event, None]:
    """The events of an owner's jobs: every state event with number > `after`, and the newest progress and positions.

    Begins with a snapshot where `after` is None or too old for a replay. Ends when the gateway stops or the reader is
    far too slow; with the last received number as `after` a new stream continues with no gap and no duplicate.
    """
    with bus.subscribe_owner(owner) as live:
        seen = await store.missed_events(owner, after)
        while seen.live is None and seen.events:
            for event in seen.events:
                yield event
            seen = await store.missed_events(owner, seen.number)
        if seen.live is not None:
            newest_of_all = tuple([newest async for newest in positions.newest(seen.live)])
            yield Snapshot(seen.number, seen.live, newest_of_all, seen.live_count)
        else:
            jobs = await store.list_jobs(owner=owner, states=(State.QUEUED, State.RUNNING), limit=LIVE_MOST)
            async for newest in positions.newest(jobs):
                yield newest
        async for news in live:
            if not isinstance(news, JobEvent) or news.number > seen.number:
                yield news
