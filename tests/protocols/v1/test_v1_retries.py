"""Each kind of failure as the class openai's client raises for it, and how often that client sends the request."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import openai
import pytest

from tests.support.live import Live, free_port
from tests.support.v1 import (
    MODEL,
    Counting,
    fill_queue,
    gateway,
    input_png,
    jobs,
    openai_client,
    opened,
    plain_client,
    wait_for_status,
)

PROMPT = "an apple"
KEY = "secret-of-at-least-some-length"
Call = Callable[[openai.OpenAI], object]


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long openai's client would have waited before it tried again; it does not wait here."""
    waits: list[float] = []
    monkeypatch.setattr("openai._base_client.time", SimpleNamespace(time=time.time, sleep=waits.append))
    return waits


def generate(client: openai.OpenAI, **more: Any) -> object:
    return client.images.generate(**{"prompt": PROMPT, "size": "64x64", **more})


SENT_ONCE: list[tuple[str, type[openai.APIStatusError], int, Call]] = [
    ("400", openai.BadRequestError, 400, lambda client: generate(client, n=11)),
    (
        "403, a foreign site",
        openai.PermissionDeniedError,
        403,
        lambda client: generate(
            client, extra_headers={"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
        ),
    ),
    ("404, a model", openai.NotFoundError, 404, lambda client: generate(client, model="none-such")),
    ("404, a route", openai.NotFoundError, 404, lambda client: client.moderations.create(input="x")),
    ("404, a vector store", openai.NotFoundError, 404, lambda client: client.vector_stores.list()),
    ("405", openai.APIStatusError, 405, lambda client: client.get("/images/generations", cast_to=object)),
    ("413", openai.APIStatusError, 413, lambda client: generate(client, extra_body={"more": "x" * 300_000})),
    ("415", openai.APIStatusError, 415, lambda client: generate(client, extra_headers={"Content-Type": "text/plain"})),
]


@pytest.mark.parametrize(("kind", "status", "call"), [row[1:] for row in SENT_ONCE], ids=[row[0] for row in SENT_ONCE])
def test_client_errors_are_not_retried_by_the_openai_client(
    counting: Counting, kind: type[openai.APIStatusError], status: int, call: Call
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        call(counting.client)
    assert type(caught.value) is kind
    assert caught.value.status_code == status
    assert str(caught.value).startswith(f"Error code: {status} - ")
    assert caught.value.code
    assert caught.value.request_id
    assert len(counting.hits) == 1


def test_idempotency_key_with_another_request_is_a_conflict_without_retry(counting: Counting) -> None:
    """409 would be sent again by default: the answer tells the client not to."""
    once = {"Idempotency-Key": "retries"}
    first = counting.client.images.generate(prompt=PROMPT, size="64x64", extra_headers=once)
    again = counting.client.images.generate(prompt=PROMPT, size="64x64", extra_headers=once)
    assert first._request_id == again._request_id
    with pytest.raises(openai.ConflictError):
        generate(counting.client, prompt="a pear", extra_headers=once)
    assert len(counting.hits) == 3


@pytest.mark.parametrize("stream", [False, True])
def test_full_queue_is_retried_by_the_client_after_its_retry_after(
    tmp_path: Path, slept: list[float], stream: bool
) -> None:
    with gateway(tmp_path, {"queue": {"waiting": 1}}, step_seconds=1.0) as busy, plain_client(busy) as plain:
        fill_queue(plain)
        with openai_client(busy) as counting, pytest.raises(openai.InternalServerError) as caught:
            generate(counting.client, stream=stream)
        assert (caught.value.status_code, caught.value.code) == (503, "queue_full")
        assert len(counting.hits) == 3
        assert len(slept) == 2
        assert all(1 <= wait <= 60 for wait in slept)


def test_too_many_jobs_of_one_key_are_a_rate_limit_error_that_clients_retry(tmp_path: Path, slept: list[float]) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"me {KEY}\n")
    keys.chmod(0o600)
    config = {"access": {"keys_file": str(keys)}, "queue": {"waiting_per_owner": 1}}
    with (
        gateway(tmp_path, config, ready=False, step_seconds=1.0) as busy,
        plain_client(busy, Authorization=f"Bearer {KEY}") as plain,
    ):
        fill_queue(plain, 429)
        with openai_client(busy, api_key=KEY) as counting, pytest.raises(openai.RateLimitError) as caught:
            generate(counting.client)
        assert (caught.value.type, caught.value.code) == ("rate_limit_error", "rate_limit_exceeded")
        assert len(counting.hits) == 3
        assert all(1 <= wait <= 60 for wait in slept)


def test_client_retries_when_there_is_no_answer_at_all(slept: list[float]) -> None:
    counting = Counting(f"http://127.0.0.1:{free_port()}")
    with counting.client, pytest.raises(openai.APIConnectionError):
        generate(counting.client)
    assert len(counting.hits) == len(slept) + 1 == 3


def test_client_timeout_and_retry_leaves_no_job_behind(tmp_path: Path, slept: list[float]) -> None:
    """Each try is a job of its own: without the cancel one slow picture would become three."""
    with gateway(tmp_path, step_seconds=1.0) as slow, plain_client(slow) as plain:
        with openai_client(slow, timeout=1.5, max_retries=1) as counting, pytest.raises(openai.APITimeoutError):
            generate(counting.client, n=10, extra_body={"steps": 8})
        assert (len(counting.hits), len(slept)) == (2, 1)
        for job in jobs(plain):
            assert wait_for_status(plain, "cancelled", job_id=job["id"])


# ---- keep-alives -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pinging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Streams here say more comments than events."""
    with gateway(tmp_path_factory.mktemp("v1"), {"http": {"heartbeat_s": 0.05}}, step_seconds=0.4) as running:
        yield running


@pytest.mark.parametrize("route", ["generations", "edits"])
def test_stream_without_events_is_kept_alive_by_comments_and_never_has_an_id(pinging: Live, route: str) -> None:
    """openai's client takes a comment after an `id:` line for an event, and dies of it."""
    ask: dict[str, Any] = {"prompt": PROMPT, "model": MODEL, "stream": True, "partial_images": 1}
    with plain_client(pinging) as plain:
        if route == "edits":
            form = {key: str(value).lower() if value is True else value for key, value in ask.items()}
            answer = plain.post("/v1/images/edits", data=form, files={"image": ("upload", input_png())})
        else:
            answer = plain.post("/v1/images/generations", json={**ask, "size": "64x64"})
    lines = answer.text.splitlines()
    comments = [line for line in lines if line.startswith(":")]
    assert len(comments) >= 3
    assert {line.partition(":")[0] for line in lines if line} == {"", "event", "data"}
    assert lines.count("") == len(comments) + answer.text.count("event: ")


def test_openai_client_receives_stream_events_and_no_comments(pinging: Live) -> None:
    with openai_client(pinging) as counting:
        made = counting.client.images.generate(
            prompt=PROMPT, size="64x64", n=2, stream=True, partial_images=2, extra_body={"steps": 4}
        )
        events = list(made)
    assert [event.type for event in events].count("image_generation.completed") == 2
    assert {event.type for event in events} == {"image_generation.completed", "image_generation.partial_image"}
    assert all(opened(event.b64_json).size == (64, 64) for event in events)


async def test_openai_async_client_reads_a_stream_with_pings(pinging: Live) -> None:
    async with openai.AsyncOpenAI(base_url=f"{pinging.url}/v1", api_key="none", timeout=60) as client:
        stream = await client.images.edit(image=input_png(), prompt=PROMPT, stream=True, partial_images=1)
        types = [event.type async for event in stream]
    assert types[-1] == "image_edit.completed"


def test_a_page_of_an_allowed_origin_may_call_with_the_headers_of_the_package(served: Live) -> None:
    """openai in a browser asks first, with a dozen headers of its own."""
    asked = {
        "Origin": "http://localhost:3000",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang,x-stainless-retry-count",
    }
    answer = httpx.options(f"{served.url}/v1/images/generations", headers=asked)
    assert answer.status_code in (200, 204)
    assert answer.headers["access-control-allow-origin"] == asked["Origin"]
    allowed = answer.headers["access-control-allow-headers"].lower()
    assert {"authorization", "content-type", "x-stainless-lang", "x-stainless-retry-count"} <= set(
        allowed.replace(" ", "").split(",")
    )
