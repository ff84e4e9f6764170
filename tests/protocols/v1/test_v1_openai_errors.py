"""What openai's client raises: the right class, with a name for the parameter, and nothing is sent twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.support.v1 import (
    MODEL,
    UNDISTILLED,
    Counting,
    gateway,
    input_png,
    openai_client,
    plain_client,
    wait_for_status,
)

PROMPT = "a red circle on a blue background"


@pytest.mark.parametrize(
    ("ask", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"n": 11}, "n"),
        ({"size": "huge"}, "size"),
        ({"size": "9999x9999"}, "size"),
        ({"background": "transparent"}, "background"),
        ({"output_format": "gif"}, "output_format"),
        ({"extra_body": {"num_inference_steps": 1000}}, "num_inference_steps"),
        ({"extra_body": {"cfg_scale": 31}}, "cfg_scale"),
        ({"extra_body": {"seed": 2**64}}, "seed"),
        ({"extra_body": {"loras": ["none-such"]}}, "loras"),
        ({"stream": True, "partial_images": 4}, "partial_images"),
        ({"stream": True, "size": "huge"}, "size"),
        ({"model": UNDISTILLED, "n": 10, "size": "2048x2048", "extra_body": {"step": 100}}, "step"),
    ],
    ids=str,
)
def test_request_refusal_is_a_400_that_names_the_parameter(counting: Counting, ask: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        counting.client.images.generate(**{"prompt": PROMPT, **ask})
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id
    assert len(counting.hits) == 1


@pytest.mark.parametrize("name", ["none-such", "gpt-4", "flux2-klein-4b", "../../etc"])
def test_missing_model_is_not_found(counting: Counting, name: str) -> None:
    for call in (
        lambda: counting.client.images.generate(prompt=PROMPT, model=name),
        lambda: counting.client.models.retrieve(name),
    ):
        with pytest.raises(openai.NotFoundError) as caught:
            call()
        assert caught.value.code == ("model_not_on_disk" if name == "flux2-klein-4b" else "model_not_found")
    assert len(counting.hits) == 2


def test_unknown_routes_are_not_found(counting: Counting) -> None:
    with pytest.raises(openai.NotFoundError):
        counting.client.responses.create(model=MODEL, input="draw")
    with pytest.raises(openai.NotFoundError):
        counting.client.files.create(file=b"x", purpose="vision")
    assert len(counting.hits) == 2


def test_client_timeout_stops_its_job(tmp_path_factory: pytest.TempPathFactory) -> None:
    with gateway(tmp_path_factory.mktemp("slow"), step_seconds=0.3) as slow, plain_client(slow) as native:
        with openai_client(slow, timeout=1.0, max_retries=0) as counting, pytest.raises(openai.APITimeoutError):
            counting.client.images.generate(prompt=PROMPT, extra_body={"steps": 8}, n=10)
        assert wait_for_status(native, "cancelled")["protocol"] == "openai"
        with openai_client(slow) as counting:
            stream = counting.client.images.generate(
                prompt=PROMPT, stream=True, partial_images=1, n=10, extra_body={"steps": 8}
            )
            assert next(iter(stream)).type == "image_generation.partial_image"
            stream.close()
        job = wait_for_status(native, "cancelled")
        assert job["id"] == stream.response.headers["x-request-id"]
        with openai_client(slow) as counting:
            edited = counting.client.images.edit(
                image=input_png(), prompt=PROMPT, stream=True, partial_images=1, n=10, extra_body={"steps": 8}
            )
            assert next(iter(edited)).type == "image_edit.partial_image"
            edited.close()
        assert wait_for_status(native, "cancelled", job_id=edited.response.headers["x-request-id"])


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ({"oom_at_step": 2}, "engine_oom"),
        ({"raise_in": "load"}, "model_load_failed"),
        ({"raise_in": "decode"}, "internal_error"),
    ],
    ids=str,
)
def test_failed_picture_is_a_server_error_that_the_client_does_not_retry(
    tmp_path_factory: pytest.TempPathFactory, script: dict[str, Any], code: str
) -> None:
    with gateway(tmp_path_factory.mktemp("failing"), **script) as failing, openai_client(failing) as counting:
        with pytest.raises(openai.InternalServerError) as caught:
            counting.client.images.generate(prompt=PROMPT, size="64x64")
        assert (caught.value.code, caught.value.type) == (code, "server_error")
        assert "/secret" not in caught.value.message
        assert len(counting.hits) == 1
        with pytest.raises(openai.APIError) as streamed:  # noqa: PT012
            for _ in counting.client.images.generate(prompt=PROMPT, size="64x64", stream=True):
                raise AssertionError("a failed picture was completed")
        assert streamed.value.code == code
        assert not isinstance(streamed.value, openai.APIStatusError)
        assert len(counting.hits) == 2
        with pytest.raises(openai.APIError) as edited:  # noqa: PT012
            for _ in counting.client.images.edit(image=input_png(), prompt=PROMPT, stream=True):
                raise AssertionError("a failed picture was completed")
        assert edited.value.code == code
        assert len(counting.hits) == 3


def test_stream_continues_over_an_engine_crash(tmp_path: Path) -> None:
    script: dict[str, Any] = {"crash_at_step": 3, "crash_times": 1, "counter_path": str(tmp_path / "crashes")}
    with gateway(tmp_path, **script) as dying, openai_client(dying) as counting:
        events = list(counting.client.images.generate(prompt=PROMPT, n=2, size="64x64", stream=True, partial_images=1))
    completed = [event for event in events if event.type == "image_generation.completed"]
    assert [(event.model_extra or {})["image_index"] for event in completed] == [0, 1]
    assert len(events) - len(completed) <= 2
    assert len(counting.hits) == 1


def test_job_cancelled_by_somebody_is_an_error_that_the_client_does_not_retry(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    def stop(native: httpx.Client) -> None:
        native.delete(f"/api/v1/jobs/{wait_for_status(native, 'generating')['id']}")

    folder = tmp_path_factory.mktemp("stopped")
    with (
        gateway(folder, step_seconds=0.5) as slow,
        plain_client(slow) as native,
        openai_client(slow) as counting,
        ThreadPoolExecutor(1) as beside,
    ):
        stopped = beside.submit(stop, native)
        with pytest.raises(openai.APIStatusError) as caught:
            counting.client.images.generate(prompt=PROMPT, n=5)
        stopped.result()
        assert (caught.value.status_code, caught.value.code) == (499, "cancelled")
        assert len(counting.hits) == 1
