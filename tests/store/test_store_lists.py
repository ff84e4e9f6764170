"""Of every JobStore: what is listed, counted, hidden, kept beside the jobs, forgotten and refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.protocol import Failed, Paste, Succeeded
from gateway.errors import JobNotFound
from gateway.jobs.job import State
from gateway.jobs.plans import Ocr
from gateway.store.base import JobStore
from tests.support import a_plan
from tests.support.store import claim, image, opened, submit


async def test_job_lists_are_filtered_and_paged_newest_first(make_store: Callable[[], JobStore]) -> None:
    async with opened(make_store) as store:
        mine = [await submit(store) for _ in range(5)]
        await submit(store, owner="you", protocol="sdapi")
        page = await store.list_jobs(owner="me", limit=2)
        assert [job.id for job in page] == [mine[4].id, mine[3].id]
        rest = await store.list_jobs(owner="me", before=page[-1].number)
        assert [job.id for job in rest] == [job.id for job in mine[2::-1]]
        assert len(await store.list_jobs(protocol="sdapi")) == 1
        assert await store.list_jobs(states=[State.RUNNING]) == []
        await store.cancel(mine[0].id, "user")
        assert [j.id for j in await store.list_jobs(states=[State.CANCELLED, State.FAILED])] == [mine[0].id]


async def test_job_note_is_stored_and_hidden_jobs_are_left_out_only_of_lists_asking_so(
    make_store: Callable[[], JobStore],
) -> None:
    async with opened(make_store) as store:
        shown, hidden = await submit(store, note='{"format": "PNG"}'), await submit(store)
        await store.hide([hidden.id])
    async with opened(make_store) as store:
        assert (await store.get(shown.id)).note == '{"format": "PNG"}'
        assert (await store.get(hidden.id)).hidden
        assert [job.id for job in await store.list_jobs(hidden=False)] == [shown.id]
        assert [job.id for job in await store.list_jobs(hidden=True)] == [hidden.id]
        assert [job.id for job in await store.list_jobs()] == [hidden.id, shown.id]
        assert [(await claim(store)).job.id for _ in range(2)] == [shown.id, hidden.id]


async def test_store_deletes_only_ended_jobs_and_finds_old_ones(make_store: Callable[[], JobStore]) -> None:
    async with opened(make_store) as store:
        ended, live = await submit(store), await submit(store)
        await store.cancel(ended.id, "user")
        assert [j.id for j in await store.ended_before(9e9, keep_newest=10)] == [ended.id]
        assert await store.ended_before(0.0, keep_newest=10) == []
        assert [j.id for j in await store.ended_before(0.0, keep_newest=0)] == [ended.id]
        await store.delete([ended.id, live.id])
        assert await store.events_after(ended.id, 0) == []
        assert (await store.get(live.id)).state is State.QUEUED
        with pytest.raises(JobNotFound):
            await store.get(ended.id)


async def test_blobs_are_named_by_content_hash_and_kept_while_a_job_references_them(
    make_store: Callable[[], JobStore],
) -> None:
    async with opened(make_store) as store:
        used, unused = await store.put_blob(b"used"), await store.put_blob(b"unused")
        assert await store.put_blob(b"used") == used
        await submit(store, plan=a_plan(init_image=used))
        names = [await store.put_blob(bytes([i])) for i in range(7)]
        box = {"left_px": 0, "top_px": 0, "width_px": 16, "height_px": 16}
        paste = Paste(picture=names[1], further_pictures=(names[5],), mask=names[2], **box)
        further = {"further_init_images": (names[6],), "references": tuple(names[3:5])}
        plan = a_plan(init_image=used, mask=names[0], paste=paste, **further)
        await submit(store, plan=plan)
        assert plan.inputs == {used, *names}
        document = await store.put_blob(b"document")
        await submit(store, plan=Ocr(document=document))
        assert await store.drop_unused_blobs(grace_s=-1) == 1
        for name in (*plan.inputs, document):
            await store.blob(name)
        for name in (unused, "../jobs.sqlite3", "0" * 63):
            with pytest.raises(KeyError):
                await store.blob(name)


async def test_statistics_count_states_and_pictures(make_store: Callable[[], JobStore]) -> None:
    async with opened(make_store) as store:
        await submit(store)
        lease = await claim(store)
        await store.record(lease, image(0))
        await store.commit(lease, Succeeded())
        await submit(store)
        stats = await store.stats()
        assert stats.by_state == {State.QUEUED: 1, State.SUCCEEDED: 1}
        assert stats.images == 1
        assert stats.drawing_seconds > 0


async def test_a_waiting_job_can_be_refused_and_a_running_or_ended_one_is_left(
    make_store: Callable[..., JobStore],
) -> None:
    async with opened(make_store) as store:
        running, waiting = await submit(store), await submit(store)
        await claim(store)
        failure = Failed(code="model_missing", message="It did not come.")
        refused = await store.refuse([running.id, waiting.id, "none-such"], failure)
        assert [(job.id, job.state, job.failure) for job in refused] == [(waiting.id, State.FAILED, failure)]
        assert (await store.get(running.id)).state is State.RUNNING
        assert await store.refuse([waiting.id], failure) == []
        assert store.order("engine") == ()
