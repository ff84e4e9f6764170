"""The unmodified openai client against a real gateway with the fake engine."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import openai
import pytest
from openai.types import Image as Row
from openai.types import ImageEditCompletedEvent, ImageEditPartialImageEvent

from gateway.images.provenance import KEYWORD
from tests.support.live import Live
from tests.support.v1 import (
    MODEL,
    SKETCH,
    SLASHED,
    UNDISTILLED,
    Counting,
    gateway,
    hole_mask,
    input_png,
    opened,
)

PROMPT = "a red circle on a blue background"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with gateway(tmp_path_factory.mktemp("v1")) as running:
        yield running


@pytest.fixture
def client(counting: Counting) -> openai.OpenAI:
    return counting.client


def row(answer: Any) -> Row:
    found: Row = answer.data[0]
    return found


# ---- generate --------------------------------------------------------------------------------------


def test_a_picture_comes_as_base64(client: openai.OpenAI) -> None:
    answer = client.images.generate(prompt=PROMPT, model=MODEL, size="64x96", response_format="b64_json")
    image = opened(row(answer).b64_json)
    assert (image.format, image.size, image.mode) == ("PNG", (64, 96), "RGB")
    assert row(answer).url is None
    assert (answer.size, answer.output_format, answer.background) == ("64x96", "png", "opaque")
    assert answer.usage is not None
    assert answer.usage.total_tokens == 0
    assert answer._request_id == answer.model_extra["job_id"]  # type: ignore[index]


def test_picture_by_url_is_the_same_as_in_base64(client: openai.OpenAI) -> None:
    ask = {"prompt": PROMPT, "extra_body": {"seed": 7}}
    by_url = row(client.images.generate(**ask, response_format="url"))  # type: ignore[call-overload]
    assert by_url.b64_json is None
    fetched = httpx.get(by_url.url or "")
    assert fetched.headers["content-type"] == "image/png"
    both = row(client.images.generate(**ask))  # type: ignore[call-overload]
    assert opened(fetched.content).tobytes() == opened(both.b64_json).tobytes()
    assert both.url is not None
    assert both.url != by_url.url


def test_model_draws_at_its_default_size_when_no_size_is_requested(client: openai.OpenAI) -> None:
    assert client.images.generate(prompt=PROMPT).size == "128x128"
    assert client.images.generate(prompt=PROMPT, size="auto").size == "128x128"


def test_size_in_the_response_is_the_size_actually_drawn(client: openai.OpenAI) -> None:
    answer = client.images.generate(prompt=PROMPT, size="70x64", response_format="b64_json")
    assert (answer.size, opened(row(answer).b64_json).size) == ("64x64", (64, 64))
    assert answer.model_extra is not None
    assert [told["param"] for told in answer.model_extra["adjustments"]] == ["width", "size"]


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_a_picture_comes_in_the_format_asked_for(client: openai.OpenAI, output_format: Any) -> None:
    answer = client.images.generate(prompt=PROMPT, output_format=output_format, output_compression=80)
    assert answer.output_format == output_format
    fetched = httpx.get(row(answer).url or "")
    assert fetched.headers["content-type"] == f"image/{output_format}"
    for image in (opened(row(answer).b64_json), opened(fetched.content)):
        assert (image.format, image.size) == (output_format.upper(), (128, 128))


def test_several_pictures_have_seeds_that_count_up(client: openai.OpenAI) -> None:
    answer = client.images.generate(prompt=PROMPT, n=2, size="64x64", extra_body={"seed": 41})
    assert [(item.model_extra or {})["seed"] for item in answer.data or []] == [41, 42]
    again = client.images.generate(prompt=PROMPT, size="64x64", extra_body={"seed": 42})
    assert opened((answer.data or [])[1].b64_json).tobytes() == opened(row(again).b64_json).tobytes()


@pytest.mark.parametrize("picture_format", ["png", "webp"])
def test_picture_metadata_does_not_reveal_the_prompt(
    client: openai.OpenAI, picture_format: Literal["png", "webp"]
) -> None:
    """S-32."""
    drawn = row(client.images.generate(prompt=PROMPT, output_format=picture_format))
    for data in (base64.b64decode(drawn.b64_json or ""), httpx.get(drawn.url or "").content):
        assert PROMPT.encode() not in data
        assert KEYWORD.encode() not in data


@pytest.mark.parametrize("model", ["dall-e-2", "dall-e-3", "studio", SLASHED])
def test_openai_model_names_and_aliases_are_drawn_with(client: openai.OpenAI, model: str) -> None:
    answer = client.images.generate(prompt=PROMPT, model=model, size="64x64", quality="standard", style="vivid")
    assert row(answer).url
    assert row(answer).b64_json


def test_gpt_image_model_names_get_only_base64(client: openai.OpenAI) -> None:
    found = row(client.images.generate(prompt=PROMPT, model="gpt-image-2", background="opaque", moderation="low"))
    assert found.b64_json
    assert found.url is None


def test_fields_without_a_value_are_unset(client: openai.OpenAI) -> None:
    answer = client.images.generate(prompt=PROMPT, model=None, n=None, size=None, quality=None, output_format=None)
    assert answer.size == "128x128"


# ---- stream ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_a_stream_shows_partial_images_and_then_the_picture(client: openai.OpenAI, output_format: Any) -> None:
    with client.images.generate(
        prompt=PROMPT, size="96x64", stream=True, partial_images=2, output_format=output_format
    ) as stream:
        events = list(stream)
    *partial, completed = events
    assert completed.type == "image_generation.completed"
    assert {event.type for event in partial} == {"image_generation.partial_image"}
    # A reader that is slower than the engine is shown the newest preview alone.
    assert [getattr(event, "partial_image_index", None) for event in partial] in ([0], [0, 1])
    for event in events:
        image = opened(event.b64_json)
        assert (image.format, image.size, event.size) == (output_format.upper(), (96, 64), "96x64")


def test_a_stream_of_several_pictures_completes_each(client: openai.OpenAI) -> None:
    with client.images.generate(
        prompt=PROMPT, n=3, size="64x64", stream=True, partial_images=1, extra_body={"seed": 5}
    ) as stream:
        events = list(stream)
    completed = [event for event in events if event.type == "image_generation.completed"]
    assert [event.model_extra["seed"] for event in completed] == [5, 6, 7]  # type: ignore[index]
    assert [event.model_extra["image_index"] for event in completed] == [0, 1, 2]  # type: ignore[index]
    partial = [event for event in events if event.type == "image_generation.partial_image"]
    assert {event.partial_image_index for event in partial} == {0}
    assert len(partial) <= 3


def test_a_stream_without_partial_images_is_one_event(client: openai.OpenAI) -> None:
    with client.images.generate(prompt=PROMPT, stream=True, size="64x64") as stream:
        assert [event.type for event in stream] == ["image_generation.completed"]


# ---- models ----------------------------------------------------------------------------------------


def test_model_list_contains_the_models_that_can_draw(client: openai.OpenAI) -> None:
    found = {model.id: model for model in client.models.list()}
    assert {MODEL, SLASHED, "studio"} <= set(found)
    assert "flux2-klein-4b" not in found
    assert found["studio"].model_extra["model_name"] == MODEL  # type: ignore[index]


@pytest.mark.parametrize("name", [MODEL, SLASHED, "studio", "dall-e-3"])
def test_a_model_is_found_by_its_exact_name(client: openai.OpenAI, name: str) -> None:
    model = client.models.retrieve(name)
    assert (model.id, model.object) == (name, "model")
    assert model.model_extra["model_type"] == "image"  # type: ignore[index]


# ---- edit, vary ------------------------------------------------------------------------------------


def test_an_edit_keeps_the_size_of_its_picture(client: openai.OpenAI) -> None:
    answer = client.images.edit(image=input_png(), prompt=PROMPT)
    assert (answer.size, opened(row(answer).b64_json).size) == ("96x64", (96, 64))
    assert row(answer).url


def test_edit_model_uses_several_pictures_as_references(client: openai.OpenAI) -> None:
    pictures = [input_png(), ("b.webp", input_png("WEBP"), "image/webp"), io.BytesIO(input_png())]
    ask: Any = {"prompt": PROMPT, "model": UNDISTILLED, "extra_body": {"steps": 1, "seed": 3}}
    one = client.images.edit(image=pictures[0], **ask)
    three = client.images.edit(image=[input_png(), *pictures[1:]], **ask)
    assert opened(row(one).b64_json).tobytes() != opened(row(three).b64_json).tobytes()


def test_mask_leaves_the_picture_outside_unchanged(client: openai.OpenAI) -> None:
    answer = client.images.edit(image=input_png(), mask=hole_mask(), prompt=PROMPT, extra_body={"seed": 11})
    drawn, before = opened(row(answer).b64_json), opened(input_png())
    right, left = (48, 0, 96, 64), (0, 0, 48, 64)
    assert drawn.crop(right).tobytes() == before.crop(right).tobytes()
    assert drawn.crop(left).tobytes() != before.crop(left).tobytes()


def test_edit_accepts_every_parameter(client: openai.OpenAI) -> None:
    answer = client.images.edit(
        image=input_png(),
        prompt=PROMPT,
        model=SKETCH,
        n=2,
        size="64x64",
        quality="high",
        background="opaque",
        input_fidelity="high",
        output_format="jpeg",
        output_compression=70,
        user="me",
        extra_body={"loras": [], "nested": {"key": True}},
    )
    assert [opened(item.b64_json).format for item in answer.data or []] == ["JPEG", "JPEG"]
    assert answer.model_extra is not None
    assert {told["param"] for told in answer.model_extra["adjustments"]} == {"image", "input_fidelity"}


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_variation_resembles_its_input_picture(client: openai.OpenAI) -> None:
    answer = client.images.create_variation(image=input_png(), n=2, size="96x64", response_format="b64_json")
    assert [opened(item.b64_json).size for item in answer.data or []] == [(96, 64)] * 2
    assert [item.url for item in answer.data or []] == [None, None]
    again = client.images.create_variation(image=input_png(), extra_body={"prompt": PROMPT, "strength": 0.0})
    assert opened(row(again).b64_json).tobytes() == opened(input_png()).tobytes()


def test_edit_stream_has_its_own_event_names(client: openai.OpenAI) -> None:
    with client.images.edit(
        image=input_png(), prompt=PROMPT, n=2, stream=True, partial_images=2, output_format="webp"
    ) as stream:
        events = list(stream)
    completed = [event for event in events if isinstance(event, ImageEditCompletedEvent)]
    partial = [event for event in events if isinstance(event, ImageEditPartialImageEvent)]
    assert len(completed) == 2
    assert len(completed) + len(partial) == len(events)
    assert partial
    for event in events:
        assert (opened(event.b64_json).format, opened(event.b64_json).size) == ("WEBP", (96, 64))


@pytest.mark.parametrize(
    ("ask", "param"),
    [
        ({"image": b"no picture"}, "image"),
        ({"image": [input_png(), input_png(), input_png()]}, "image"),
        ({"image": input_png(), "mask": b"no mask"}, "mask"),
        ({"image": input_png(), "background": "transparent"}, "background"),
        ({"image": input_png(), "output_format": "svg"}, "output_format"),
        ({"image": input_png(), "n": 11}, "n"),
        ({"image": input_png(), "stream": True, "size": "9x9"}, "size"),
        ({"image": input_png(), "extra_body": {"strength": 2}}, "strength"),
        ({"image": input_png(), "extra_body": {"loras": ["none-such"]}}, "loras"),
    ],
    ids=lambda value: repr(value)[-40:],
)
def test_a_refused_edit_is_a_bad_request_that_names_the_parameter(
    counting: Counting, ask: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        counting.client.images.edit(**{"prompt": PROMPT, **ask})
    assert caught.value.param == param
    assert len(counting.hits) == 1


# ---- keys ------------------------------------------------------------------------------------------


def test_openai_client_with_a_right_and_a_wrong_key(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("me secret-of-at-least-some-length\n")
    keys.chmod(0o600)
    with gateway(tmp_path, {"access": {"keys_file": str(keys)}}, ready=False, step_seconds=0.0) as locked:
        for key in ("none", "wrong-key-of-some-length"):
            counting = Counting(locked.url, {"api_key": key})
            with counting.client, pytest.raises(openai.AuthenticationError) as caught:
                counting.client.images.generate(prompt=PROMPT)
            assert (caught.value.code, len(counting.hits)) == ("invalid_api_key", 1)
        with Counting(locked.url, {"api_key": "secret-of-at-least-some-length"}).client as known:
            answer = known.images.edit(image=input_png(), prompt=PROMPT)
        assert opened(httpx.get(row(answer).url or "").content).size == (96, 64)
