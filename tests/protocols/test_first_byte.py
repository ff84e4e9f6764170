"""The first byte of every stream: it comes at once, is no event to any client, and only where the job is accepted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import connect_sse

from tests.support.hang_up import Caller
from tests.support.live import Live, live
from tests.support.waiting_routes import SIZE, STREAMED, WATCHED, config_of

SILENCE_S = 5.0
"""Less than the seconds until the first heartbeat, 7.5."""
JOB = {"prompt": "x", **SIZE, "steps": 4}
OPENINGS = (b": open\n\n", b"retry: 2000\n\n")


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A gateway whose queue stands still: no stream has an event."""
    folder = tmp_path_factory.mktemp("silent")
    with live(folder, config={**config_of(folder), "queue": {"waiting": 8}}) as running:
        httpx.post(f"{running.url}/api/v1/queue/pause").raise_for_status()
        yield running


@pytest.fixture
def caller(silent: Live) -> Iterator[Caller]:
    caller = Caller(silent)
    yield caller
    caller.close()


def requests(caller: Caller) -> dict[str, httpx.Request]:
    """Every route that streams, with a request of it."""
    job = caller.native.post("/generate", json=JOB).json()["job_id"]
    watched = {route: caller.request(route.format(job_id=job), {}) for route in WATCHED}
    return {route: caller.request(route, body(4)) for route, body in STREAMED.items()} | watched


@pytest.mark.parametrize("route", sorted({*STREAMED, *WATCHED}))
def test_stream_begins_at_once_with_bytes_of_no_event(caller: Caller, route: str) -> None:
    connection = caller.send(requests(caller)[route])
    connection.settimeout(SILENCE_S)
    got = b""
    while b"\r\n\r\n" not in got or not got.partition(b"\r\n\r\n")[2].endswith(b"\n\n\r\n"):
        got += connection.recv(1)
    connection.close()
    head, _, chunk = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert chunk.partition(b"\r\n")[2].removesuffix(b"\r\n") in OPENINGS


@pytest.mark.parametrize("route", sorted(STREAMED))
def test_event_source_client_is_told_nothing_by_the_first_bytes(tmp_path: Path, route: str) -> None:
    with live(tmp_path, config=config_of(tmp_path)) as running, httpx.Client(timeout=60) as client:
        caller = Caller(running)
        request = caller.request(route, STREAMED[route](4))
        headers = {"Content-Type": request.headers["content-type"]}
        with connect_sse(client, "POST", str(request.url), content=request.read(), headers=headers) as source:
            events = list(source.iter_sse())
        caller.close()
    assert [event.event.rpartition(".")[2] for event in events] == ["completed"]
    assert events[0].json()["b64_json"]


REFUSALS: dict[str, tuple[int, dict[str, Any]]] = {
    "too many": (400, {"n": 11}),
    "a size": (400, {"size": "1x1"}),
    "a model": (404, {"model": "none-such"}),
}


@pytest.mark.parametrize("route", sorted(STREAMED))
@pytest.mark.parametrize("refusal", REFUSALS)
def test_stream_that_is_refused_has_a_status_and_no_first_byte(caller: Caller, route: str, refusal: str) -> None:
    status, fields = REFUSALS[refusal]
    body = STREAMED[route](4)
    body["json" if "json" in body else "data"].update(fields)
    answer = caller.answer(caller.request(route, body))
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert "error" in json.loads(answer.content)


@pytest.mark.parametrize("route", sorted(STREAMED))
def test_stream_for_a_full_queue_is_refused_with_a_status(caller: Caller, route: str) -> None:
    while caller.native.post("/generate", json=JOB).status_code != 503:
        pass
    answer = caller.answer(caller.request(route, STREAMED[route](4)))
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "queue_full"
    assert answer.headers["retry-after"]
