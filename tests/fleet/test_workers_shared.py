"""The workers of several processes on one PostgreSQL database: each sees all, and a drain reaches the one it names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from gateway.access.rights import Rights
from gateway.errors import WorkerNotFound
from gateway.fleet.node import Node
from gateway.fleet.reports import Reports
from gateway.forecast import Forecaster
from gateway.jobs.job import Job
from gateway.service.workers import WorkerControl
from gateway.store.postgres.store import PostgresStore
from tests.support import a_job
from tests.support.forecast import SMALL, SPECS, a_picture
from tests.support.postgres import server
from tests.support.store import NO_BOUNDS


@asynccontextmanager
async def processes(folder: Path, count: int) -> AsyncIterator[list[PostgresStore]]:
    url = server().new_url()
    async with AsyncExitStack() as stack:
        stores = []
        for n in range(count):
            store = PostgresStore(url, folder / str(n))
            await store.open()
            stack.push_async_callback(store.close)
            stores.append(store)
        yield stores


def a_node(store: PostgresStore, name: str, **more: object) -> Node:
    return Node(store.node_id, name, "worker", "1", state="ready", **more)  # type: ignore[arg-type]


def control_of(store: PostgresStore, reports: Reports) -> WorkerControl:
    async def see(job_id: str, owner: str) -> Job:
        return await store.get(job_id, owner)

    return WorkerControl(
        reports, drain=store.drain, see=see, image_s=lambda _: None, rights=Rights(), on_change=lambda: None
    )


async def test_two_processes_see_each_other_and_a_drain_reaches_the_one_that_is_meant(tmp_path: Path) -> None:
    async with processes(tmp_path, 2) as (one, other):
        reports = Reports(one.nodes)
        control = control_of(one, reports)
        job = (await one.submit(a_job(owner="me", plan=a_picture()), NO_BOUNDS)).job
        engine = {"lanes": ("engine",), "models": (SMALL,), "loaded_model": SMALL, "device": "Apple M4"}
        first, second = a_node(one, "mac-a"), a_node(other, "mac-b", jobs=(job.id,), **engine)
        assert not await one.announce(first)
        assert not await other.announce(second)
        views = await control.views("me")
        assert [(view.node.name, view.jobs) for view in views] == [("mac-a", ()), ("mac-b", (job.id,))]
        assert [view.jobs for view in await control.views("you")] == [(), ()]
        assert views[1].node == second
        assert all(0 <= view.seen.seen_s < 30 for view in views)

        forecaster = Forecaster(
            SPECS.get, lambda: None, own_id=lambda: one.node_id, nodes=reports.nodes, runs=lambda _: False
        )
        forecaster.waits(job)
        assert forecaster.of(job.id, one.order("engine")) is not None
        assert (await control.drain("mac-b", "me")).is_draining
        assert await other.announce(second)
        assert not await one.announce(first)
        assert forecaster.of(job.id, one.order("engine")) is None
        assert not (await control_of(other, Reports(other.nodes)).resume("mac-b", "me")).is_draining
        assert not await other.announce(second)
        await other.withdraw(other.node_id)
        assert [view.node.name for view in await control.views("me")] == ["mac-a"]
        with pytest.raises(WorkerNotFound):
            await control.drain("mac-b", "me")
