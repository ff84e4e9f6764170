"""The queue by /api/v1: paging, pause, reorder, retry, rights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.live import Live, live
from tests.support.native import SMALL, client_of, ended, read, submit


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("queue"), fake_script={"step_seconds": 0.02}) as gateway:
        yield gateway


@pytest.fixture
def client(gateway: Live) -> Iterator[httpx.Client]:
    """Whose jobs have all ended when the next test begins."""
    with client_of(gateway.url) as client:
        yield client
        for job in client.get("/jobs", params={"status": "queued,generating"}).json()["jobs"]:
            client.delete(f"/jobs/{job['id']}")


@pytest.fixture
def paused(client: httpx.Client) -> Iterator[httpx.Client]:
    """A client while nothing begins."""
    assert client.post("/queue/pause").json() == {"paused": True}
    yield client
    assert client.post("/queue/resume").json() == {"paused": False}


def test_list_pages_follow_each_other_without_a_gap(paused: httpx.Client) -> None:
    made = [submit(paused)["job_id"] for _ in range(5)]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = paused.get("/jobs", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        seen += [job["id"] for job in page["jobs"]]
        submit(paused)  # newer ones do not move what follows
        if (cursor := page["next_cursor"]) is None:
            break
    assert seen == made[::-1]


def test_jobs_are_filtered_by_status_and_protocol(gateway: Live, client: httpx.Client) -> None:
    done, other = submit(client, steps=1)["job_id"], client.headers["x-client-id"]
    ended(client, done)
    cancelled = submit(client, num_images=10)["job_id"]
    client.delete(f"/jobs/{cancelled}")
    task = httpx.post(f"{gateway.url}/api/generate", json={**SMALL, "steps": 1}, headers={"X-Client-Id": other}).json()
    ended(client, task["task_id"])

    def listed(**asked: str) -> set[str]:
        return {job["id"] for job in client.get("/jobs", params=asked).json()["jobs"]}

    assert listed(status="cancelled") == {cancelled}
    assert listed(status="cancelled,completed", protocol="native") == {cancelled, done}
    assert len(listed(protocol="mflux-server")) == 1
    assert listed(protocol="sdapi") == set()
    for asked in ({"status": "lost"}, {"limit": "501"}, {"limit": "x"}, {"cursor": "x"}, {"cursor": "-1"}):
        refused = client.get("/jobs", params=asked)
        assert (refused.status_code, refused.json()["code"]) == (400, "INVALID_PARAM")
        assert refused.json()["details"]["param"] == next(iter(asked))


def test_queue_paused_starts_no_job_and_the_running_job_continues(client: httpx.Client) -> None:
    running = submit(client, num_images=3)["job_id"]
    next(event for event in read(client, f"/jobs/{running}/stream") if event["event"] == "progress")
    client.post("/queue/pause")
    waiting = submit(client)["job_id"]
    assert ended(client, running)["status"] == "completed"
    queue = client.get("/queue").json()
    assert (queue["paused"], queue["active"], len(queue["queued"])) == (True, None, 1)
    assert client.get(f"/jobs/{waiting}").json()["status"] == "queued"
    client.post("/queue/resume")
    assert ended(client, waiting)["status"] == "completed"


def test_queue_pause_survives_a_restart(tmp_path: Path) -> None:
    gateway = Live(tmp_path).start()
    with client_of(gateway.url, "me") as client:
        client.post("/queue/pause")
        job_id = submit(client)["job_id"]
        gateway.stop()
        gateway.start()
        assert client.get("/queue").json()["paused"] is True
        assert client.get(f"/jobs/{job_id}").json()["status"] == "queued"
        client.post("/queue/resume")
        assert ended(client, job_id)["status"] == "completed"
    gateway.stop()


def test_queue_move_reorders_a_waiting_job_among_those_of_its_owner(paused: httpx.Client) -> None:
    a, b, c = (submit(paused)["job_id"] for _ in range(3))

    def order() -> list[str]:
        return [job["job_id"] for job in paused.get("/queue").json()["queued"]]

    moves: list[tuple[str, dict[str, object], list[str]]] = [
        (c, {"to": "front"}, [c, a, b]),
        (c, {"to": "end"}, [a, b, c]),
        (c, {"before": b}, [a, c, b]),
        (b, {"position": 0}, [b, a, c]),
    ]
    for job_id, where, after in moves:
        moved = paused.post(f"/jobs/{job_id}/move", json=where)
        assert moved.status_code == 200, moved.text
        assert moved.json()["position"] == after.index(job_id)
        assert order() == after


def test_queue_move_with_invalid_position_is_refused(gateway: Live, paused: httpx.Client) -> None:
    job_id = submit(paused)["job_id"]
    gone = submit(paused)["job_id"]
    paused.delete(f"/jobs/{gone}")
    refusals: list[tuple[str, dict[str, object], int, str]] = [
        (job_id, {}, 400, "INVALID_PARAM"),
        (job_id, {"to": "front", "position": 1}, 400, "INVALID_PARAM"),
        (job_id, {"to": "middle"}, 400, "INVALID_PARAM"),
        (job_id, {"position": -1}, 400, "INVALID_PARAM"),
        (job_id, {"before": "0" * 32}, 404, "JOB_NOT_FOUND"),
        (job_id, {"before": gone}, 409, "JOB_NOT_WAITING"),
        (gone, {"to": "front"}, 409, "JOB_NOT_WAITING"),
        ("0" * 32, {"to": "front"}, 404, "JOB_NOT_FOUND"),
    ]
    for moved, where, status, code in refusals:
        refused = paused.post(f"/jobs/{moved}/move", json=where)
        assert (refused.status_code, refused.json()["code"]) == (status, code), where
    with client_of(gateway.url) as other:
        assert other.post(f"/jobs/{job_id}/move", json={"to": "front"}).status_code == 404


def test_queue_counts_jobs_of_all_clients_and_lists_only_your_own(gateway: Live, paused: httpx.Client) -> None:
    with client_of(gateway.url) as other:
        theirs = [submit(other)["job_id"] for _ in range(3)]
        own = submit(paused)["job_id"]
        queue = paused.get("/queue").json()
        assert ([job["job_id"] for job in queue["queued"]], queue["pending_count"]) == ([own], 4)
        for job_id in theirs:
            other.delete(f"/jobs/{job_id}")


def test_priority_class_is_shown_everywhere_and_jobs_run_in_its_order(paused: httpx.Client) -> None:
    asked = ["background", "low", "normal", "high"]
    made = {submit(paused, priority=priority)["job_id"]: priority for priority in asked}
    queued = paused.get("/queue").json()["queued"]
    assert [job["priority"] for job in queued] == asked[::-1]
    for job_id, priority in made.items():
        assert paused.get(f"/jobs/{job_id}").json()["priority"] == priority
    snapshot = next(event for event in read(paused, "/events") if event.get("event") == "snapshot")
    assert {job["id"]: job["priority"] for job in snapshot["data"]["jobs"]} == made
    refused = paused.post("/generate", json={**SMALL, "priority": "urgent"})
    assert (refused.status_code, refused.json()["details"]["param"]) == (400, "priority")


def test_job_retried_after_its_end_draws_the_same_pixels(gateway: Live, client: httpx.Client) -> None:
    first = ended(client, submit(client, num_images=2)["job_id"])
    again = client.post(f"/jobs/{first['id']}/retry").json()
    assert again["id"] != first["id"]
    second = ended(client, again["id"])
    assert second["seeds"] == first["seeds"]
    urls = zip(first["image_urls"], second["image_urls"], strict=True)
    assert all(client.get(gateway.url + a).content == client.get(gateway.url + b).content for a, b in urls)
    key = {"Idempotency-Key": "again"}
    once, twice = (client.post(f"/jobs/{first['id']}/retry", headers=key).json()["id"] for _ in range(2))
    assert once == twice
    running = submit(client, num_images=10)["job_id"]
    refused = client.post(f"/jobs/{running}/retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "JOB_NOT_ENDED")
    client.delete(f"/jobs/{running}")
    with client_of(gateway.url) as other:
        assert other.post(f"/jobs/{first['id']}/retry").json()["code"] == "JOB_NOT_FOUND"


def test_queue_pause_and_priority_raise_need_an_operator_key_when_keys_are_set(tmp_path: Path) -> None:
    """S-24."""
    keys = tmp_path / "keys"
    keys.write_text("boss 0123456789abcdef\nguest fedcba9876543210\n")
    keys.chmod(0o600)
    config = {"access": {"keys_file": str(keys), "operators": ["boss"]}}
    gateway = Live(tmp_path, config=config).start(ready=False)
    try:
        boss = httpx.Client(base_url=f"{gateway.url}/api/v1", headers={"X-API-Key": "0123456789abcdef"}, timeout=60)
        guest = httpx.Client(base_url=f"{gateway.url}/api/v1", headers={"X-API-Key": "fedcba9876543210"}, timeout=60)
        with boss, guest:
            for path in ("/queue/pause", "/queue/resume"):
                assert (guest.post(path).status_code, guest.post(path).json()["code"]) == (403, "FORBIDDEN")
                assert boss.post(path).status_code == 200
            raised = {**SMALL, "priority": "high"}
            assert guest.post("/generate", json=raised).json()["details"]["param"] == "priority"
            assert boss.post("/generate", json=raised).json()["priority"] == "high"
            assert guest.post("/generate", json={**SMALL, "priority": "background"}).json()["priority"] == "background"
            mflux = {**SMALL, "priority": True}
            assert guest.post(f"{gateway.url}/api/generate", json=mflux).status_code == 403
            assert boss.post(f"{gateway.url}/api/generate", json=mflux).status_code == 200
    finally:
        gateway.stop()
