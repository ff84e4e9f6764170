"""The streams of /api/v1 as a client reads them: of one job, and of all jobs of an owner."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.live import Live, live
from tests.support.native import ENDS, SMALL, client_of, ended, events, read, submit


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("events")
    with live(folder, fake_script={"step_seconds": 0.03}, config={"http": {"heartbeat_s": 0.1}}) as gateway:
        yield gateway


@pytest.fixture
def client(gateway: Live) -> Iterator[httpx.Client]:
    with client_of(gateway.url) as client:
        yield client


def named(found: list[dict[str, Any]]) -> list[str]:
    return [event["event"] for event in found]


def with_id(found: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(e["id"], e["event"], e["data"].get("job_id", "")) for e in found if "id" in e]


def until_ended(client: httpx.Client, jobs: set[str], last: str | None = None) -> list[dict[str, Any]]:
    """The stream of all jobs until each of these has ended."""
    found, left = [], set(jobs)
    for event in read(client, "/events", last):
        if "event" in event:
            found.append(event)
            if event["event"] in ENDS:
                left.discard(event["data"]["job_id"])
        if not left:
            return found
    raise AssertionError("the stream ended first")


# ---- one job ---------------------------------------------------------------------------------------


def test_job_stream_reports_model_progress_pictures_and_end(tmp_path: Path) -> None:
    script = {"load_seconds": 0.3, "step_seconds": 0.05}
    with live(tmp_path, fake_script=script) as gateway, client_of(gateway.url) as client:
        client.post("/queue/pause")
        job_id = submit(client, num_images=2, preview=True)["job_id"]
        seen = []
        for event in read(client, f"/jobs/{job_id}/stream"):
            seen.append(event)
            if len(seen) == 1:
                client.post("/queue/resume")
        names = named(seen)
        assert (names[0], names[-1]) == ("queued", "complete")
        assert {"started", "loading", "progress", "preview", "image"} <= set(names)
        assert names.index("started") < names.index("loading") < names.index("progress")
        loading = next(event["data"] for event in seen if event["event"] == "loading")
        assert (loading["model"], loading["phase"]) == ("flux2-tiny", "loading")
        images = [event["data"] for event in seen if event["event"] == "image"]
        assert [(i["image"], i["id"]) for i in images] == [(0, f"{job_id}-0"), (1, f"{job_id}-1")]
        assert client.get(f"{gateway.url}{images[1]['url']}").headers["content-type"] == "image/png"
        previews = [event["data"] for event in seen if event["event"] == "preview"]
        assert len({p["url"] for p in previews}) == len(previews)
        assert all("jpeg" not in p for p in previews), "previews are fetched, not sent along"


def test_job_stream_of_a_failed_job_ends_with_error(tmp_path: Path) -> None:
    with live(tmp_path, fake_script={"raise_in": "step"}) as gateway, client_of(gateway.url) as client:
        job_id = submit(client)["job_id"]
        last = events(client, job_id)[-1]
        assert last["event"] == "error"
        assert last["data"]["status"] == "failed"
        assert last["data"]["error"] == ended(client, job_id)["error"]
        assert last["data"]["code"] == last["data"]["code"].upper()
        assert client.get(f"/jobs/{job_id}/stream", headers={"Last-Event-ID": last["id"]}).status_code == 204


def test_job_stream_of_a_cancelled_job_ends_with_cancelled(client: httpx.Client) -> None:
    job_id = submit(client, num_images=10)["job_id"]
    seen = []
    for event in read(client, f"/jobs/{job_id}/stream"):
        if "event" in event:
            seen.append(event)
        if event.get("event") == "started":
            client.delete(f"/jobs/{job_id}")
    assert named(seen)[-2:] == ["cancel_requested", "cancelled"] or named(seen)[-1] == "cancelled"
    assert seen[-1]["data"]["reason"] == "user"


def test_stream_with_images_false_completes_without_pictures(client: httpx.Client) -> None:
    job_id = submit(client)["job_id"]
    last = list(read(client, f"/jobs/{job_id}/stream?images=false"))[-1]
    assert last["event"] == "complete"
    assert "result" not in last["data"]


def test_stream_of_a_waiting_job_sends_comments_and_queue_positions(gateway: Live, client: httpx.Client) -> None:
    with client_of(gateway.url) as other:
        client.post("/queue/pause")
        try:
            first, second = submit(other)["job_id"], submit(client)["job_id"]
            before = client.get(f"/jobs/{second}").json()["position"]
            seen: list[str] = []
            for event in read(client, f"/jobs/{second}/stream"):
                seen.append("comment" if "comment" in event else event["event"])
                if seen.count("comment") == 2 and first:
                    other.delete(f"/jobs/{first}")
                    first = ""
                if event.get("event") == "position" and event["data"]["position"] == before - 1:
                    told = event["data"]
                    break
            assert told["earliest_seconds"] <= told["eta_seconds"] <= told["latest_seconds"]
            assert 0 <= told["wait_seconds"] <= told["eta_seconds"]
            assert "progress" not in seen
        finally:
            client.post("/queue/resume")
        ended(client, second)


# ---- all jobs --------------------------------------------------------------------------------------


def test_stream_of_all_jobs_opens_with_a_snapshot_and_reports_every_job(client: httpx.Client) -> None:
    running = submit(client, num_images=3)["job_id"]
    jobs, found = {running}, []
    for event in read(client, "/events"):
        if "event" not in event:
            continue
        found.append(event)
        if len(found) == 1:
            jobs.add(submit(client)["job_id"])
        if event["event"] in ENDS:
            jobs.discard(event["data"]["job_id"])
        if not jobs:
            break
    assert found[0]["event"] == "snapshot"
    assert [job["id"] for job in found[0]["data"]["jobs"]] == [running]
    assert found[0]["data"]["jobs"][0]["status"] in ("queued", "generating")
    numbers = [int(event["id"]) for event in found if "id" in event]
    assert numbers == sorted(set(numbers))
    assert all("id" not in event for event in found if event["event"] in ("progress", "position", "loading"))
    ends = [event for event in found if event["event"] == "complete"]
    assert len(ends) == 2
    assert all("result" not in event["data"] for event in ends)


def test_the_stream_of_all_jobs_resumed_after_any_event_has_no_gap_and_no_duplicate(client: httpx.Client) -> None:
    """R-08: cut at every event, and compared with what a reader saw that never left."""
    begin = next(event for event in read(client, "/events") if "event" in event)["id"]
    whole: list[dict[str, Any]] = []
    client.post("/queue/pause")
    jobs = {submit(client, num_images=count, steps=1)["job_id"] for count in (3, 1, 2)}
    reader = threading.Thread(target=lambda: whole.extend(until_ended(client, jobs, begin)))
    reader.start()
    client.post("/queue/resume")
    last, pieces, left = begin, [], set(jobs)
    while left:
        event = next(e for e in read(client, "/events", last) if "id" in e)
        pieces.append(event)
        last = event["id"]
        if event["event"] in ENDS:
            left.discard(event["data"]["job_id"])
    reader.join()
    assert with_id(pieces) == with_id(whole)
    assert len(pieces) == 3 * 3 + 3 + 1 + 2
    assert "snapshot" not in named(pieces)


def test_stream_with_an_unknown_last_event_id_begins_with_a_snapshot(client: httpx.Client) -> None:
    for last in ("", "nonsense", "9" * 15, "-1", "5:6"):
        first = next(event for event in read(client, "/events", last) if "event" in event)
        assert first["event"] == "snapshot"


def test_stream_never_reports_jobs_of_another_client(gateway: Live, client: httpx.Client) -> None:
    """S-23."""
    with client_of(gateway.url) as other:
        opened = read(other, "/events")
        snapshot = next(event for event in opened if "event" in event)
        assert snapshot["data"] == {"jobs": []}
        theirs = submit(client)["job_id"]
        ended(client, theirs)
        own = submit(other)["job_id"]
        for event in opened:
            if "event" in event:
                assert event["data"]["job_id"] == own
                if event["event"] == "complete":
                    break


# ---- readers that leave, or do not read -----------------------------------------------------------


def test_streams_closed_by_clients_free_their_places_for_others(tmp_path: Path) -> None:
    """R-08: no subscriber leaks, whichever way it left; a slice of the 1,000 of benchmarks/fanout.py."""
    with (
        live(tmp_path, config={"http": {"max_streams": 20, "max_streams_per_client": 20}}) as gateway,
        client_of(gateway.url) as client,
    ):
        client.post("/queue/pause")
        job_id = submit(client)["job_id"]
        paths = ("/events", f"/jobs/{job_id}/stream")
        for _ in range(3):
            opened = [read(client, "/events") for _ in range(20)]
            for stream in opened:
                next(stream)
            refused = client.get("/events")
            assert (refused.status_code, refused.json()["code"]) == (503, "UNAVAILABLE")
            assert int(refused.headers["retry-after"]) > 0
            for stream in opened:
                stream.close()  # type: ignore[attr-defined]
            for path in paths:
                while True:  # pytest's timeout bounds it
                    with client.stream("GET", path) as answer:
                        if answer.status_code == 200:
                            break
                    time.sleep(0.02)


def test_clients_that_do_not_read_do_not_slow_down_other_clients(gateway: Live, client: httpx.Client) -> None:
    """R-10: a slice; the figures are printed by benchmarks/fanout.py."""
    owner = client.headers["x-client-id"]
    request = f"GET /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Client-Id: {owner}\r\n\r\n".encode()
    stuck = []
    for _ in range(8):
        sock = socket.create_connection(("127.0.0.1", gateway.port))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(request)
        stuck.append(sock)
    begin = next(event for event in read(client, "/events") if "event" in event)["id"]
    jobs = {submit(client, num_images=2)["job_id"] for _ in range(3)}
    found: dict[int, list[dict[str, Any]]] = {}

    def follow(reader: int) -> None:
        with client_of(gateway.url, owner) as own:
            found[reader] = until_ended(own, jobs, begin)

    readers = [threading.Thread(target=follow, args=(reader,)) for reader in range(8)]
    for thread in readers:
        thread.start()
    for thread in readers:
        thread.join()
    for sock in stuck:
        sock.close()
    assert len(found) == 8
    assert all(with_id(seen) == with_id(found[0]) for seen in found.values())
    assert len(with_id(found[0])) == 3 * (3 + 2)


# ---- cancel races ----------------------------------------------------------------------------------


def test_cancel_races_each_answer_with_the_final_status_of_the_job(gateway: Live) -> None:
    """R-12 on the wire: against claim and completion, twice at once; a slice."""
    wrong: list[str] = []

    def race(number: int) -> None:
        with client_of(gateway.url) as own:
            job_id = submit(own, steps=1 + number % 3)["job_id"]
            told: list[str] = []

            def cancel() -> None:
                with client_of(gateway.url, own.headers["x-client-id"]) as again:
                    told.append(again.delete(f"/jobs/{job_id}").json()["status"])

            cancels = [threading.Thread(target=cancel) for _ in range(2)]
            if number % 2:
                next(event for event in read(own, f"/jobs/{job_id}/stream") if event.get("event") == "started")
            for thread in cancels:
                thread.start()
            for thread in cancels:
                thread.join()
            job = ended(own, job_id)
            if {job["status"]} != set(told) or job["status"] not in ("completed", "cancelled"):
                wrong.append(f"{told} but {job['status']}")
            if [name for name in named(events(own, job_id)) if name in ENDS][1:]:
                wrong.append("ended twice")

    threads = [threading.Thread(target=race, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_documentation_lists_every_event_that_was_seen(gateway: Live, client: httpx.Client) -> None:
    spec = httpx.get(f"{gateway.url}/openapi.json").json()
    listed = spec["paths"]["/api/v1/jobs/{job_id}/stream"]["get"]["x-events"]
    seen = events(client, submit(client, **SMALL, preview=True)["job_id"])
    schemas = spec["components"]["schemas"]
    for event in seen:
        fields = schemas[listed[event["event"]]["$ref"].rpartition("/")[2]]["properties"]
        assert set(event["data"]) <= set(fields), event


def test_stream_last_event_id_in_the_query_counts_like_the_header(served: Live) -> None:
    """event-source-polyfill sends it so; a finished stream ends for good with 204."""
    with httpx.Client(base_url=served.url, timeout=30) as client:
        job = client.post("/api/v1/generate", json={"prompt": "a star", "width": 64, "height": 64}).json()["job_id"]
        whole = client.get(f"/api/v1/jobs/{job}/stream").text
        ids = re.findall(r"^id: (.*)$", whole, re.MULTILINE)
        rest = client.get(f"/api/v1/jobs/{job}/stream", params={"lastEventId": ids[-2]})
        assert re.findall(r"^id: (.*)$", rest.text, re.MULTILINE) == ids[-1:]
        assert client.get(f"/api/v1/jobs/{job}/stream", params={"lastEventId": ids[-1]}).status_code == 204
        first = {"Last-Event-ID": ids[0]}
        again = client.get(f"/api/v1/jobs/{job}/stream", params={"lastEventId": ids[-1]}, headers=first)
        assert re.findall(r"^id: (.*)$", again.text, re.MULTILINE) == ids[1:]
        with client.stream("GET", "/api/v1/events", params={"lastEventId": "1"}) as stream:
            assert "no-transform" in stream.headers["cache-control"]
            kinds = (line for line in stream.iter_lines() if line.startswith("event: "))
            assert next(kinds) != "event: snapshot"
