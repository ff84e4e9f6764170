"""The unmodified xinference_client, sync and async, against a real gateway with the fake engine."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from xinference_client import AsyncRESTfulClient, RESTfulClient

from tests.support.live import Live
from tests.support.v1 import (
    MODEL,
    SLASHED,
    UNDISTILLED,
    assert_openai_error,
    gateway,
    hole_mask,
    input_png,
    opened,
    plain_client,
    wait_for_status,
    white_mask,
)

PROMPT = "an apple"
INPAINTING = "/v1/images/inpainting"
LEFT, RIGHT = (0, 0, 48, 64), (48, 0, 96, 64)


@pytest.fixture
def client(served: Live) -> Iterator[RESTfulClient]:
    client = RESTfulClient(served.url)
    yield client
    client.close()


def fetched(answer: Any) -> Image.Image:
    """Asked for a url, which is the client's default."""
    (row,) = answer["data"]
    assert row["b64_json"] is None
    return opened(httpx.get(row["url"]).content)


# ---- the four routes that draw ---------------------------------------------------------------------


def test_text_to_image(client: RESTfulClient) -> None:
    model = client.get_model(MODEL)
    assert fetched(model.text_to_image(PROMPT)).size == (1024, 1024)
    answer = model.text_to_image(PROMPT, n=2, size="64*96", response_format="b64_json", seed=7, num_inference_steps=2)
    assert [opened(row["b64_json"]).size for row in answer["data"]] == [(64, 96)] * 2
    assert [(row["url"], row["seed"]) for row in answer["data"]] == [(None, 7), (None, 8)]


def test_image_to_image(client: RESTfulClient) -> None:
    model = client.get_model(MODEL)
    assert fetched(model.image_to_image(input_png(), PROMPT)).size == (96, 64)
    same = model.image_to_image([input_png()], PROMPT, negative_prompt="pear", size="96*64", strength=0.0, seed=1)
    assert fetched(same).tobytes() == opened(input_png()).tobytes()


def test_image_to_image_of_several_pictures(client: RESTfulClient) -> None:
    model = client.get_model(UNDISTILLED)
    assert fetched(model.image_to_image([input_png(), input_png()], PROMPT, num_inference_steps=1)).size == (96, 64)
    with pytest.raises(RuntimeError, match="takes at most 2 pictures"):
        client.get_model(MODEL).image_to_image([input_png()] * 3, PROMPT)


@pytest.mark.parametrize("mask", [hole_mask(), white_mask()], ids=["transparent", "white"])
def test_image_edit(client: RESTfulClient, mask: bytes, tmp_path: Path) -> None:
    model = client.get_model(MODEL)
    (tmp_path / "picture.png").write_bytes(input_png())
    drawn = fetched(model.image_edit(str(tmp_path / "picture.png"), PROMPT, mask=mask, seed=11))
    before = opened(input_png())
    assert drawn.crop(RIGHT).tobytes() == before.crop(RIGHT).tobytes()
    assert drawn.crop(LEFT).tobytes() != before.crop(LEFT).tobytes()
    assert fetched(model.image_edit([input_png()], PROMPT, size="original")).size == (96, 64)


def test_inpainting(client: RESTfulClient) -> None:
    model = client.get_model(MODEL)
    drawn = fetched(model.inpainting(input_png(), white_mask(), PROMPT, seed=11, mask_blur=0, strength=1.0))
    before = opened(input_png())
    assert drawn.crop(RIGHT).tobytes() == before.crop(RIGHT).tobytes()
    assert drawn.crop(LEFT).tobytes() != before.crop(LEFT).tobytes()


def test_localai_inpaints_with_mask_and_steps(plain: httpx.Client) -> None:
    files = {"image": ("image", input_png()), "mask": ("mask", white_mask())}
    answer = plain.post(INPAINTING, data={"prompt": PROMPT, "steps": "2", "model": MODEL}, files=files)
    drawn = opened(answer.json()["data"][0]["b64_json"])
    assert drawn.crop(RIGHT).tobytes() == opened(input_png()).crop(RIGHT).tobytes()


def test_mask_transparency_does_not_count_for_inpainting(plain: httpx.Client) -> None:
    files = {"image": ("image", input_png()), "mask_image": ("mask", hole_mask())}
    answer = plain.post(INPAINTING, data={"prompt": PROMPT}, files=files)
    assert "nothing to change" in assert_openai_error(answer, 400)["message"]


def test_invalid_drawing_request_raises_runtime_error_in_the_xinference_client(client: RESTfulClient) -> None:
    model = client.get_model(MODEL)
    for ask, words in (
        (lambda: model.text_to_image(""), "prompt"),
        (lambda: model.text_to_image(PROMPT, size="9*9"), "width must be between"),
        (lambda: model.text_to_image(PROMPT, n=11), "n: "),
        (lambda: model.image_to_image(b"no picture", PROMPT), "not a PNG, JPEG or WebP"),
        (lambda: model.inpainting(input_png(), b"no picture", PROMPT), "not a PNG, JPEG or WebP"),
        (lambda: model.image_edit(input_png(), PROMPT, strength=7), "between 0 and 1"),
    ):
        with pytest.raises(RuntimeError) as caught:
            ask()
        assert words in str(caught.value)
        assert "Client Error" not in str(caught.value)


# ---- models ----------------------------------------------------------------------------------------


def test_models_are_listed_and_described(client: RESTfulClient) -> None:
    listed = client.list_models()
    assert {MODEL, SLASHED, "studio", "flux2-tiny"} <= set(listed)
    for name in (MODEL, "dall-e-3"):
        described = client.describe_model(name)
        assert (described["model_type"], described["model_name"]) == ("image", MODEL)
        assert described["model_ability"] == ["text2image", "image2image", "inpainting"]
    with pytest.raises(RuntimeError, match="Model 'none-such' not found"):
        client.get_model("none-such")


def test_a_model_is_launched_and_terminated(client: RESTfulClient) -> None:
    def loaded() -> Any:
        return client.get_launch_model_progress(MODEL)["progress"]

    assert client.launch_model(MODEL, model_type="image") == MODEL
    assert loaded() == 1.0
    client.terminate_model(MODEL)
    assert loaded() == 0.0
    client.terminate_model(MODEL)
    assert client.launch_model(MODEL, model_type="image", model_engine=None) == MODEL
    assert loaded() == 1.0
    assert fetched(client.get_model(MODEL).text_to_image(PROMPT, size="64*64")).size == (64, 64)


def test_launch_lists_ignored_options_and_refuses_those_it_cannot_honour(plain: httpx.Client) -> None:
    answer = plain.post("/v1/models", json={"model_name": MODEL, "replica": 1, "quantize": True, "cpu_offload": True})
    assert answer.json() == {"model_uid": MODEL, "ignored": ["cpu_offload", "quantize"]}
    for option in ("gguf_quantization", "gguf_model_path", "model_path"):
        refused = plain.post("/v1/models", json={"model_name": MODEL, option: "/etc/passwd"})
        error = assert_openai_error(refused, 400)
        assert error["param"] == option
        assert "passwd" not in refused.text
    assert assert_openai_error(plain.post("/v1/models", json={}), 400)["param"] == "model_name"
    assert assert_openai_error(plain.post("/v1/models", json=[]), 400)["param"] is None
    llm = plain.post("/v1/models", json={"model_name": MODEL, "model_type": "LLM"})
    assert assert_openai_error(llm, 400)["param"] == "model_type"
    assert_openai_error(plain.post("/v1/models", json={"model_name": "FLUX.1-schnell"}), 404)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", INPAINTING, 405),
        ("POST", "/v1/cluster/auth", 405),
        ("DELETE", "/v1/models/none", 404),
        ("DELETE", "/v1/models/", 405),
        ("GET", "/v1/models/none/progress", 404),
        ("POST", f"/v1/models/{MODEL}/cancel", 400),
        ("POST", "/v1/models/none/requests/r/abort", 404),
        ("GET", "/v1/requests/none/progress", 400),
        ("GET", "/v1/address", 404),
    ],
)
def test_unknown_xinference_route_error_has_a_detail_field(
    plain: httpx.Client, method: str, path: str, status: int
) -> None:
    assert_openai_error(plain.request(method, path), status)


def test_a_model_id_with_a_slash_has_routes_below_it(plain: httpx.Client) -> None:
    assert plain.get("/v1/models/org%2Fm:4bit/progress").status_code == 200
    assert plain.post("/v1/models/org%2Fm:4bit/requests/r/abort", json={}).json() == {"msg": "NOT_FOUND"}


def test_launch_progress_can_be_polled_and_the_launch_cancelled(tmp_path: Path) -> None:
    loaded = tmp_path / "loaded"
    with gateway(tmp_path, load_until_path=str(loaded)) as slow, plain_client(slow) as plain:
        client = RESTfulClient(slow.url)
        assert client.launch_model(MODEL, model_type="image", wait_ready=False) == MODEL
        assert plain.get(f"/v1/models/{MODEL}/progress").json() == {"progress": 0.0, "launching": True}
        loaded.touch()
        end = time.monotonic() + 20
        while client.get_launch_model_progress(MODEL)["progress"] != 1.0 and time.monotonic() < end:
            time.sleep(0.05)
        assert client.get_launch_model_progress(MODEL)["progress"] == 1.0
        loaded.unlink()
        client.terminate_model(MODEL)  # both names have the same weights, which are loaded once
        assert client.launch_model(SLASHED, model_type="image", wait_ready=False) == SLASHED
        client.close()
        assert plain.post("/v1/models/org%2Fm:4bit/cancel").json() == {"msg": "DONE"}


def test_launch_that_fails_reports_the_error(tmp_path: Path) -> None:
    with gateway(tmp_path, raise_in="load") as failing:
        client = RESTfulClient(failing.url)
        with pytest.raises(RuntimeError, match="could not be loaded"):
            client.launch_model(MODEL, model_type="image")
        client.close()


# ---- named requests --------------------------------------------------------------------------------


def test_request_id_can_be_polled_for_progress_and_aborted(tmp_path: Path) -> None:
    with gateway(tmp_path, step_seconds=0.3) as slow, plain_client(slow) as plain, ThreadPoolExecutor(1) as beside:
        client = RESTfulClient(slow.url)
        model = client.get_model(MODEL)
        drawing = beside.submit(model.text_to_image, PROMPT, n=5, size="64*64", request_id="mine")
        wait_for_status(plain, "generating")
        seen = [client.get_progress("mine")["progress"] for _ in range(8) if not time.sleep(0.2)]
        assert seen == sorted(seen)
        assert 0 < seen[-1] < 1
        assert client.abort_request(MODEL, "mine") == {"msg": "DONE"}
        with pytest.raises(RuntimeError, match="cancelled"):
            drawing.result()
        assert client.abort_request(MODEL, "mine") == {"msg": "NO_OP"}
        assert client.abort_request(MODEL, "another") == {"msg": "NOT_FOUND"}
        assert client.get_progress("mine") == {"progress": 1.0}
        with pytest.raises(RuntimeError, match="No request has this id"):
            client.get_progress("another")
        client.close()


def test_request_id_is_not_visible_to_other_clients(plain: httpx.Client) -> None:
    ask = {"prompt": PROMPT, "size": "64x64", "kwargs": json.dumps({"request_id": "r1"})}
    assert plain.post("/v1/images/generations", json=ask, headers={"X-Client-Id": "one"}).status_code == 200
    path = "/v1/requests/r1/progress"
    assert plain.get(path, headers={"X-Client-Id": "one"}).json() == {"progress": 1.0}
    assert_openai_error(plain.get(path, headers={"X-Client-Id": "two"}), 400)


# ---- keys ------------------------------------------------------------------------------------------


def test_the_client_sends_its_key_where_one_is_needed(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("me secret-of-at-least-some-length\n")
    keys.chmod(0o600)
    with gateway(tmp_path, {"access": {"keys_file": str(keys)}}, ready=False, step_seconds=0.0) as locked:
        known = RESTfulClient(locked.url, api_key="secret-of-at-least-some-length")
        assert fetched(known.get_model(MODEL).text_to_image(PROMPT, size="64*64")).size == (64, 64)
        known.close()
        unknown = RESTfulClient(locked.url)
        with pytest.raises(RuntimeError, match="A valid API key is required"):
            unknown.list_models()
        unknown.close()


def test_without_keys_no_key_is_needed(plain: httpx.Client) -> None:
    assert plain.get("/v1/cluster/auth").json() == {"auth": False}


# ---- async -----------------------------------------------------------------------------------------


async def test_xinference_async_client_draws_and_fails_like_the_sync_client(served: Live) -> None:
    client = AsyncRESTfulClient(served.url)
    try:
        model = await client.get_model(MODEL)
        answers = await asyncio.gather(
            model.text_to_image(PROMPT, size="64*64"),
            model.image_to_image(input_png(), PROMPT),
            model.inpainting(input_png(), white_mask(), PROMPT),
        )
        with pytest.raises(RuntimeError, match="width must be between"):
            await model.text_to_image(PROMPT, size="9*9")
        assert await client.launch_model(MODEL, model_type="image") == MODEL
        await client.terminate_model(MODEL)
        await model.close()
    finally:
        await client.close()
    assert [fetched(answer).size for answer in answers] == [(64, 64), (96, 64), (96, 64)]
