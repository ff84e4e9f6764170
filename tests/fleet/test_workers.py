"""The workers as clients see them: a gateway alone is one, which its operator drains and resumes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway import __version__
from gateway.access.rights import Rights
from gateway.errors import Forbidden, JobNotFound, WorkerNotFound
from gateway.fleet.node import Node, SeenNode
from gateway.fleet.reports import Reports
from gateway.jobs.job import Job
from gateway.service.own_node import DRAINING, NAME
from gateway.service.workers import WorkerControl
from tests.http.test_metrics import Scraped
from tests.support import a_job
from tests.support.live import Live, live
from tests.support.native import client_of, ended, submit
from tests.support.service import ME, request, service_in, until

SCRIPT = {"step_seconds": 0.05}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("workers"), fake_script=SCRIPT) as gateway:
        yield gateway


def the_worker(client: httpx.Client) -> dict[str, Any]:
    answer = client.get("/workers")
    assert answer.status_code == 200
    (worker,) = answer.json()["workers"]
    return dict(worker)


def when(client: httpx.Client, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    end = time.monotonic() + 20
    while not condition(worker := the_worker(client)):
        assert time.monotonic() < end, worker
        time.sleep(0.02)
    return worker


def test_a_gateway_alone_is_one_worker_with_its_models_and_what_it_runs(gateway: Live) -> None:
    with client_of(gateway.url) as client, client_of(gateway.url) as stranger:
        worker = the_worker(client)
        assert (worker["name"], worker["kind"], worker["version"]) == (NAME, "gateway", __version__)
        assert (worker["state"], worker["draining"], worker["reason"]) == ("ready", False, None)
        assert worker["lanes"] == ["engine", "ocr", "network"]
        assert "flux2-tiny" in worker["models"]
        assert (worker["job_ids"], worker["running_count"], worker["labels"]) == ([], 0, {})
        assert worker["seen_seconds_ago"] == 0.0
        job = submit(client, steps=40)["job_id"]
        assert when(client, lambda worker: worker["running_count"] == 1)["job_ids"] == [job]
        seen = the_worker(stranger)
        assert (seen["job_ids"], seen["running_count"]) == ([], 1)
        client.delete(f"/jobs/{job}")
        for _ in range(2):
            ended(client, submit(client, model="flux2-tiny")["job_id"])
        worker = when(client, lambda worker: worker["running_count"] == 0)
        assert worker["loaded_model"] == "flux2-tiny"
        assert worker["seconds_per_image"] > 0


def test_a_drained_gateway_takes_no_jobs_says_so_and_is_still_drained_after_a_restart(tmp_path: Path) -> None:
    with live(tmp_path, fake_script=SCRIPT) as gateway, client_of(gateway.url) as client:
        running = submit(client, steps=20)["job_id"]
        when(client, lambda worker: worker["running_count"] == 1)
        drained = client.post(f"/workers/{NAME}/drain").json()
        assert (drained["state"], drained["draining"], drained["reason"]) == ("draining", True, DRAINING)
        assert ended(client, running)["status"] == "completed"
        waiting = submit(client)
        assert (waiting["status"], waiting["waits_for"], waiting["eta_seconds"]) == ("queued", DRAINING, None)
        findings = client.get("/findings").json()["findings"]
        assert "worker gateway" in [one["what"] for one in findings]
        assert Scraped(gateway).of("worker_up", worker=NAME) == 1
        gateway.stop()
        gateway.start()
        assert client.get(f"/jobs/{waiting['job_id']}").json()["status"] == "queued"
        assert the_worker(client)["draining"] is True
        assert client.get(f"/jobs/{waiting['job_id']}").json()["eta_seconds"] is None
        assert httpx.get(f"{gateway.url}/health/ready").status_code == 200
        resumed = client.post(f"/workers/{NAME}/resume").json()
        assert (resumed["state"], resumed["draining"], resumed["reason"]) == ("ready", False, None)
        assert ended(client, waiting["job_id"])["status"] == "completed"


def test_an_unknown_worker_is_a_404_in_the_native_shape(gateway: Live) -> None:
    with client_of(gateway.url) as client:
        for path in ("/workers/nobody/drain", "/workers/no%20body/resume"):
            answer = client.post(path)
            assert answer.status_code == 404
            assert answer.json()["code"] == "WORKER_NOT_FOUND"
            assert set(answer.json()) == {"error", "code", "details"}
        assert client.post("/workers/a%2Fb/drain").status_code == 404
        assert the_worker(client)["draining"] is False


def test_metrics_have_gauges_of_each_worker(gateway: Live) -> None:
    scraped = Scraped(gateway)
    assert scraped.of("worker_up", worker=NAME) == 1
    assert scraped.of("worker_jobs", worker=NAME) is not None
    assert scraped.of("worker_seen_seconds", worker=NAME) == 0


def test_system_keeps_its_shape(gateway: Live) -> None:
    with client_of(gateway.url) as client:
        assert set(client.get("/system").json()) == {
            *("active_model", "mlx_memory_gb", "mlx_peak_memory_gb", "system_memory_gb", "device"),
            *("default_model", "engine", "queue_depth", "damaged_records", "storage_fault"),
        }


async def test_a_draining_lane_claims_no_job_with_its_submit_and_wakes_when_it_is_resumed(tmp_path: Path) -> None:
    async with service_in(tmp_path) as service:
        await until(lambda: service.engine.works)
        await service.workers.drain(NAME, "me")
        jobs = [await service.submit(request(), ME) for _ in range(2)]
        await asyncio.sleep(0.1)
        assert service.queue.depth("engine") == 2
        assert service.events.waits_for(jobs[0]) == DRAINING
        assert service.events.forecast(jobs[0]) is None
        await service.workers.drain(NAME, "me")
        await service.workers.resume(NAME, "me")
        for job in jobs:
            assert (await service.ended(job.id)).images


# ---- several ---------------------------------------------------------------------------------------


def a_node(name: str, **more: Any) -> SeenNode:
    node = Node(id=f"id of {name}", name=name, kind="worker", version="1", state="ready", loaded_model="m")
    return SeenNode(replace(node, **more), 1.5)


class Site:
    """Two workers; `ours` is the only job that the owner `me` may see."""

    def __init__(self, operators: list[str] | None = None) -> None:
        self.nodes = [a_node("a", jobs=("ours", "theirs")), a_node("b")]
        self.drained: list[tuple[str, bool]] = []
        self.changes = 0
        self.control = WorkerControl(
            Reports(self.read),
            drain=self.drain,
            see=self.see,
            image_s=lambda node: {"a": 2.5}.get(node.name),
            rights=Rights() if operators is None else Rights.of_keys(operators),
            on_change=self.on_change,
        )

    async def read(self) -> list[SeenNode]:
        return self.nodes

    async def drain(self, name: str, is_draining: bool) -> None:
        self.drained.append((name, is_draining))
        self.nodes = [replace(seen, is_draining=is_draining) if seen.node.name == name else seen for seen in self.nodes]

    async def see(self, job_id: str, owner: str) -> Job:
        if (job_id, owner) != ("ours", "me"):
            raise JobNotFound
        return Job.of(a_job(id=job_id), 1)

    def on_change(self) -> None:
        self.changes += 1


async def test_two_workers_are_listed_with_the_jobs_that_the_client_may_see() -> None:
    site = Site()
    mine, theirs = await site.control.views("me"), await site.control.views("other")
    assert [view.node.name for view in mine] == ["a", "b"]
    assert [view.jobs for view in mine] == [("ours",), ()]
    assert [view.jobs for view in theirs] == [(), ()]
    assert [view.image_s for view in mine] == [2.5, None]


async def test_only_an_operator_drains_a_worker_and_only_one_that_is_there() -> None:
    site = Site(operators=["boss"])
    with pytest.raises(Forbidden):
        await site.control.drain("a", "key:me")
    with pytest.raises(Forbidden):
        await site.control.resume("nobody", "key:me")
    with pytest.raises(WorkerNotFound):
        await site.control.drain("nobody", "key:boss")
    assert site.drained == []
    assert (await site.control.drain("b", "key:boss")).is_draining
    assert not (await site.control.resume("b", "key:boss")).is_draining
    assert site.drained == [("b", True), ("b", False)]
    assert site.changes == 2


async def test_a_restarted_worker_is_listed_once_with_its_newest_report() -> None:
    site = Site()
    site.nodes = [a_node("b"), replace(a_node("a", id="old", jobs=("ours",)), seen_s=9.0), a_node("a", id="new")]
    assert [view.node.id for view in await site.control.views("me")] == ["new", "id of b"]
    assert not (await site.control.resume("a", "me")).jobs


async def test_a_snapshot_stays_the_same_object_and_stays_when_the_store_does_not_answer() -> None:
    site, answers = Site(), True

    async def read() -> list[SeenNode]:
        if not answers:
            raise ConnectionError
        return site.nodes

    reports = Reports(read)
    assert reports.nodes() == ()
    await reports.refresh()
    first = reports.nodes()
    assert reports.nodes() is first
    answers = False
    with pytest.raises(ConnectionError):
        await reports.refresh()
    assert reports.nodes() is first
