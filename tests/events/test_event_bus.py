"""Who hears what: bounded queues in which states wait in order and only the newest of the rest stays (R-10)."""

from __future__ import annotations

import asyncio

from engine.protocol import Cancelled, Preview, StepDone
from gateway.events.bus import (
    OWNER_EVENTS_QUEUED,
    STATE_EVENTS_QUEUED,
    Event,
    EventBus,
    PlaceEvent,
    ProgressEvent,
    Subscription,
)
from gateway.forecast import Forecast
from gateway.jobs.facts import ImageDone, Queued
from gateway.jobs.job import Job, JobEvent
from tests.support import a_job

FORECAST = Forecast(2.0, 1.0, 1.5, 2.5)


def a_waiting(owner: str = "me", number: int = 1) -> Job:
    return Job.of(a_job(owner=owner), number).apply(Queued(), 0.0)


def an_image(job: Job, seq: int) -> JobEvent:
    done = ImageDone(image=0, seed=0, file="", width_px=1, height_px=1, drawn_px=(1, 1), seconds=0.1)
    return JobEvent(job.id, seq, 0.0, done, seq)


def a_step(step: int) -> StepDone:
    return StepDone(image=0, step=step, steps=1000, seconds=0.1)


async def read(subscription: Subscription, count: int) -> list[Event]:
    found: list[Event] = []
    async for event in subscription:
        found.append(event)
        if len(found) == count:
            break
    return found


async def read_to_end(subscription: Subscription) -> list[Event]:
    return [event async for event in subscription]


async def test_event_reaches_subscribers_of_the_job_and_its_owner_only() -> None:
    hub, mine, yours = EventBus(), a_waiting("me"), a_waiting("you", 2)
    with hub.subscribe(mine.id) as one, hub.subscribe_owner("me") as all_mine, hub.subscribe_owner("you") as all_yours:
        hub.publish(mine, mine.events[0])
        hub.publish(yours, yours.events[0])
        hub.publish_place(PlaceEvent(mine.id, 1, FORECAST))
        hub.close()
        assert len(await read_to_end(one)) == len(await read_to_end(all_mine)) == 2
        assert await read_to_end(all_yours) == [yours.events[0]]
        assert (hub.hears(mine.id, "nobody"), hub.hears("other", "me"), hub.hears("other", "nobody")) == (
            True,
            True,
            False,
        )
    assert (hub.watchers(mine.id), hub.hears(mine.id, "me")) == (0, False)


async def test_event_subscriber_that_stalls_keeps_all_states_and_the_newest_of_each_kind() -> None:
    hub, job = EventBus(), a_waiting()
    hub.publish(job, job.events[0])
    hub.begin(job.id, 1, 0)
    with hub.subscribe(job.id) as slow:
        for step in range(1, 1001):
            hub.publish_progress(job.id, a_step(step), 1000.0 - step)
            hub.publish_progress(job.id, Preview(image=0, step=step, jpeg_base64=""))
            hub.publish_place(PlaceEvent(job.id, step, FORECAST))
        for seq in (2, 3, 4):
            hub.publish(job, an_image(job, seq))
        assert len(slow._progress) == 3
        found = await read(slow, 6)
    states = [event.seq for event in found if isinstance(event, JobEvent)]
    places = [event.position for event in found if isinstance(event, PlaceEvent)]
    assert states == [2, 3, 4]
    assert places == [1000]
    newest = hub.newest(job.id)
    assert newest is not None
    assert (newest.progress.step, newest.progress.seconds_left) == (1000, 0.0)


async def test_event_subscriber_with_too_many_queued_states_is_closed() -> None:
    hub, job = EventBus(), a_waiting()
    with hub.subscribe(job.id) as one, hub.subscribe_owner("me") as everything:
        for seq in range(1, OWNER_EVENTS_QUEUED + 10):
            hub.publish(job, an_image(job, seq))
        for subscription, bound in ((one, STATE_EVENTS_QUEUED), (everything, OWNER_EVENTS_QUEUED)):
            seqs = [event.seq for event in await read_to_end(subscription) if isinstance(event, JobEvent)]
            assert seqs == list(range(1, bound + 1))


async def test_event_subscriber_is_not_delayed_by_fifty_stalled_subscribers() -> None:
    hub, job = EventBus(), a_waiting()
    subscriptions = [hub.subscribe(job.id) for _ in range(50)]
    for subscription in subscriptions:
        subscription.__enter__()
    with hub.subscribe(job.id) as live:
        reader = asyncio.create_task(read_to_end(live))
        for seq in range(1, 1001):
            hub.publish(job, an_image(job, seq))
            await asyncio.sleep(0)
        hub.close()
        assert len(await reader) == 1000
    for subscription in subscriptions:
        subscription.__exit__(None, None, None)
    assert hub.watchers(job.id) == 0


def test_event_bus_keeps_nothing_of_an_ended_job() -> None:
    hub, job = EventBus(), a_waiting()
    hub.publish(job, job.events[0])
    hub.begin(job.id, 1, 0)
    hub.publish_progress(job.id, a_step(1))
    ended = job.apply(Cancelled(), 1.0)
    hub.publish(ended, ended.events[-1])
    hub.end(job.id)
    assert (hub._owners, hub.newest(job.id), hub.progress(job.id)) == ({}, None, None)


async def test_forecast_of_progress_is_computed_for_those_who_hear_or_ask() -> None:
    hub, job = EventBus(), a_waiting()
    computed: list[int] = []

    def publish(step: int) -> None:
        def forecast() -> float:
            computed.append(step)
            return 100.0 - step

        hub.publish_progress(job.id, a_step(step), forecast)

    hub.publish(job, job.events[0])
    hub.begin(job.id, 1, 0)
    for step in (1, 2, 3):
        publish(step)
    assert computed == [], "nobody heard it"
    for _ in range(2):
        assert (progress := hub.progress(job.id)) is not None
        assert (progress.step, progress.expected_s) == (3, 97.0)
        assert (newest := hub.newest(job.id)) is not None
        assert newest.progress == progress
    assert computed == [3], "it is computed once"
    publish(4)
    with hub.subscribe_owner(job.owner) as heard:
        publish(5)
        (event,) = await read(heard, 1)
        assert isinstance(event, ProgressEvent)
        assert event.progress.expected_s == 95.0
    assert computed == [3, 5]
    assert (hub.progress(job.id) or event.progress).expected_s == 95.0
