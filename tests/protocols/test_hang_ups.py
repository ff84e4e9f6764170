"""A client that hangs up while it waits stops its job within a step, on every route; with a key it comes back."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gateway.http.openapi import EVENTS
from tests.support.guarded import rest
from tests.support.hang_up import Caller, close, reset, shut_down
from tests.support.live import Live, live
from tests.support.waiting_routes import DRAWN, LOADED, READ, SIZE, STREAMED, WATCHED, config_of, openai, rows, sdapi

STEP_S = 0.1
ONE_MORE = 2
"""Steps after the gateway was asked for the last one: the one that was drawn, and one that ended meanwhile."""
LONG, SHORT = 40, 4
KEY = "Idempotency-Key"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("hang_ups")
    with live(folder, config=config_of(folder), fake_script={"step_seconds": STEP_S}) as running:
        yield running


@pytest.fixture(scope="module")
def loading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A gateway that loads each model for a minute."""
    folder = tmp_path_factory.mktemp("loading")
    with live(folder, config=config_of(folder), fake_script={"load_seconds": 60.0}) as running:
        yield running


@pytest.fixture
def caller(gateway: Live) -> Iterator[Caller]:
    caller = Caller(gateway)
    yield caller
    caller.close()


def test_every_route_that_waits_is_tried_here_and_takes_an_idempotency_key() -> None:
    """A route that waits without saying so fails at its first request."""
    waiting = {name for name, route in rows().items() if route.row.waits}
    assert waiting == {*DRAWN, *LOADED, *READ}
    assert {name for name, route in rows().items() if EVENTS in route.row.operation.media} == {*STREAMED, *WATCHED}
    for name in waiting:
        assert KEY in rows()[name].row.operation.headers, name


def assert_stopped_within_a_step(caller: Caller, connection: socket.socket, leave: Callable[[Any], None]) -> None:
    """The job of this connection is drawn, the client leaves, and at most one more step is drawn."""
    with caller.steps() as steps:
        caller.job("drawing")
        leave(connection)
        job = caller.jobs()[-1]
        told = caller.native.get(f"/jobs/{job['id']}").json().get("progress_detail")
        after = [step for job_id, step in steps if job_id == job["id"]]
    assert caller.job("cancelled")["id"] == job["id"]
    if told is not None and after:
        assert after[-1] <= told["step"] + ONE_MORE


@pytest.mark.parametrize("route", DRAWN)
def test_image_of_a_client_that_hangs_up_is_stopped_within_a_step(caller: Caller, route: str) -> None:
    connection = caller.send(caller.request(route, DRAWN[route](LONG)))
    assert_stopped_within_a_step(caller, connection, close)


@pytest.mark.parametrize("route", STREAMED)
def test_streamed_image_of_a_client_that_hangs_up_is_stopped_within_a_step(caller: Caller, route: str) -> None:
    connection = caller.send(caller.request(route, STREAMED[route](LONG)))
    assert_stopped_within_a_step(caller, connection, close)


@pytest.mark.parametrize("leave", [shut_down, reset])
@pytest.mark.parametrize("tail", [b"", b"\r\n", b"GET /health/live HTTP/1.1\r\n"], ids=["", "line end", "next request"])
def test_hang_up_is_noticed_however_the_connection_ends(
    caller: Caller, leave: Callable[[Any], None], tail: bytes
) -> None:
    """What a client sent after its request waits to be read."""
    connection = caller.send(caller.request("POST /sdapi/v1/txt2img", sdapi()(LONG)), tail=tail)
    assert_stopped_within_a_step(caller, connection, leave)


@pytest.mark.parametrize("route", DRAWN)
def test_client_with_an_idempotency_key_comes_back_for_its_images(caller: Caller, route: str) -> None:
    keyed = {KEY: "once"}
    caller.leave(caller.request(route, DRAWN[route](SHORT), **keyed))
    job = caller.job("completed")
    answer = caller.answer(caller.request(route, DRAWN[route](SHORT), **keyed))
    assert answer.status_code == 200, answer.text
    assert [one["id"] for one in caller.jobs()] == [job["id"]]


@pytest.mark.parametrize("route", STREAMED)
def test_client_with_an_idempotency_key_comes_back_for_its_stream(caller: Caller, route: str) -> None:
    keyed = {KEY: "once"}
    caller.leave(caller.request(route, STREAMED[route](SHORT), **keyed))
    job = caller.job("completed")
    answer = caller.answer(caller.request(route, STREAMED[route](SHORT), **keyed))
    assert ".completed" in answer.text
    assert [one["id"] for one in caller.jobs()] == [job["id"]]


@pytest.mark.parametrize("route", LOADED)
def test_model_load_of_a_client_that_hangs_up_is_stopped_for_the_next_job(loading: Live, route: str) -> None:
    caller, other = Caller(loading), Caller(loading)
    try:
        connection = caller.send(caller.request(route, LOADED[route](0)))
        job = caller.job("loading")
        unlike = "other" if job["model"] == "base" else "base"
        other.native.post("/generate", json={"prompt": "x", "model": unlike, **SIZE}).raise_for_status()
        connection.close()
        assert caller.job("cancelled")["id"] == job["id"]
    finally:
        other.close()
        caller.close()


@pytest.mark.parametrize("route", LOADED)
def test_model_load_with_an_idempotency_key_continues_after_a_hang_up(gateway: Live, route: str) -> None:
    caller = Caller(gateway)
    for model in ("base", "other"):
        caller.native.post(f"/models/{model}/unload").raise_for_status()
    caller.leave(caller.request(route, LOADED[route](0), **{KEY: "once"}))
    assert caller.job("completed")["type"] == "load"
    caller.close()


def test_launch_with_an_idempotency_key_keeps_its_uid_after_a_hang_up(gateway: Live) -> None:
    caller = Caller(gateway)
    caller.native.post("/models/other/unload").raise_for_status()
    launch = {"json": {"model_name": "other", "model_uid": "mine", "model_type": "image"}}
    caller.leave(caller.request("POST /v1/models", launch, **{KEY: "uid"}))
    caller.job("completed")
    assert caller.answer(caller.request("GET /v1/models/mine/progress", {})).json() == {"progress": 1.0}
    caller.close()


def test_waiting_job_of_a_client_that_hangs_up_never_starts(caller: Caller) -> None:
    first = caller.native.post("/generate", json={"prompt": "x", **SIZE, "steps": LONG}).json()["job_id"]
    caller.job("drawing")
    caller.leave(caller.request("POST /sdapi/v1/txt2img", sdapi()(LONG)))
    second = caller.job("cancelled")
    assert second["started_at"] is None
    assert caller.native.get(f"/jobs/{first}").json()["status"] == "generating"


@pytest.mark.parametrize("route", ["POST /sdapi/v1/txt2img", "POST /v1/images/edits"])
def test_client_that_hangs_up_during_its_upload_leaves_no_job(caller: Caller, route: str) -> None:
    request = caller.request(route, DRAWN[route](LONG))
    body = request.read()
    request.headers["Content-Length"] = str(len(body) + 10)
    caller.send(request).close()
    caller.leave(caller.request("POST /sdapi/v1/txt2img", sdapi()(SHORT), **{KEY: "later"}))
    caller.job("completed")
    assert len(caller.jobs()) == 1


def test_job_that_a_client_submitted_continues_when_its_stream_is_left(caller: Caller) -> None:
    job = caller.native.post("/generate", json={"prompt": "x", **SIZE, "steps": SHORT}).json()["job_id"]
    connection = caller.send(caller.request(f"GET /api/v1/jobs/{job}/stream", {}))
    assert connection.recv(1)
    connection.close()
    assert caller.job("completed")["id"] == job


def test_job_of_a_client_that_hangs_up_continues_while_a_stream_watches_it(caller: Caller) -> None:
    connection = caller.send(caller.request("POST /v1/images/generations", openai()(SHORT * 2)))
    job = caller.job("drawing")["id"]
    watching = caller.send(caller.request(f"GET /api/v1/jobs/{job}/stream", {}))
    assert watching.recv(1)
    connection.close()
    assert caller.job("completed")["id"] == job
    watching.close()


def test_client_that_only_closes_its_sending_half_gets_its_answer(caller: Caller) -> None:
    """As `nc -N` does."""
    for version in ("1.1", "1.0"):
        connection = caller.send(caller.request("POST /sdapi/v1/txt2img", sdapi()(SHORT)), version=version)
        connection.shutdown(socket.SHUT_WR)
        answer = rest(connection)
        connection.close()
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b'"images"' in answer
