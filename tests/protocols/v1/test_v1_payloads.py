"""What a client of /v1 may say: tables from a body to the core's words, and to refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest

from adapters.shared.body import validated
from adapters.v1.errors import client_param_names
from adapters.v1.payload import check_text_only, flatten
from adapters.v1.request_schemas import Edit, Generation, Inpainting, Variation
from adapters.v1.requests import library_name, to_request
from engine.protocol import Lora
from gateway.errors import InvalidRequest
from gateway.jobs.resolve import GenerationRequest
from gateway.jobs.sampling_request import SamplingRequest

APPLE = {"prompt": "an apple"}


def asked(**body: Any) -> Generation:
    return validated(Generation, flatten({**APPLE, **body}))


def requested(**body: Any) -> GenerationRequest:
    return to_request(asked(**body), {"flux2-tiny"})


def refused(body: object) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        validated(Generation, check_text_only(flatten(body)))
    return caught.value


@pytest.mark.parametrize(
    ("body", "word", "value"),
    [
        ({"n": 3}, "count", 3),
        ({"n": "3"}, "count", 3),
        ({"seed": 7}, "seed", 7),
        ({"seed": -1}, "seed", -1),
        ({"seed": "7"}, "seed", 7),
        ({"seed": [7]}, "seeds", (7,)),
        ({"seed": [7, 3, -1], "n": 3}, "seeds", (7, 3, -1)),
        ({"seed": ["7", "3"]}, "seeds", (7, 3)),
        ({"seed": [7]}, "seed", None),
        ({"steps": 3}, "steps", 3),
        ({"num_inference_steps": 3}, "steps", 3),
        ({"step": 3}, "steps", 3),
        ({"steps": 2, "step": 3}, "steps", 2),
        ({"steps": None, "step": 3}, "steps", 3),
        ({"guidance": 1}, "guidance", 1.0),
        ({"guidance_scale": 2.5}, "guidance", 2.5),
        ({"cfg_scale": 2.5}, "guidance", 2.5),
        ({"negative_prompt": "blurry"}, "negative_prompt", "blurry"),
        ({"size": "512x256"}, "width_px", 512),
        ({"size": "512x256"}, "height_px", 256),
        ({"size": "512*256"}, "height_px", 256),
        ({"size": " 512 X 256 "}, "height_px", 256),
        ({"size": "512,256"}, "height_px", 256),
        ({"size": "512 256"}, "height_px", 256),
        ({"size": "auto"}, "width_px", None),
        ({"size": "original"}, "width_px", None),
        ({"size": None}, "width_px", None),
        ({"size": ""}, "width_px", None),
        ({}, "width_px", None),
        ({"size": "512x256", "width": 128}, "width_px", 128),
        ({"size": "512x256", "width": 128}, "height_px", 256),
        ({"width": 128, "height": 64}, "height_px", 64),
        ({"loras": ["a", {"name": "b", "scale": 0.5}]}, "loras", (Lora(name="a"), Lora(name="b", scale=0.5))),
        ({"lora": {"path": "c", "scale": -1}}, "loras", (Lora(name="c", scale=-1.0),)),
        ({"model": "flux2-tiny"}, "model", "flux2-tiny"),
        ({"model": None}, "model", None),
        ({"model": ""}, "model", None),
        ({"model": "dall-e-3"}, "model", None),
        ({"model": "no/such:model"}, "model", "no/such:model"),
        ({"partial_images": 2}, "previews", None),
        ({"partial_images": 2, "stream": True}, "previews", 2),
        ({"stream": True}, "previews", 0),
    ],
    ids=str,
)
def test_request_field_maps_to_the_core_field(body: dict[str, Any], word: str, value: object) -> None:
    assert getattr(requested(**body), word) == value


def test_null_in_any_request_field_counts_as_unset() -> None:
    names = {name for field, info in Generation.model_fields.items() for name in _spellings(field, info)}
    nothing = dict.fromkeys((names | {"kwargs", "user", "image", "svg"}) - {"prompt"})
    assert requested(**nothing) == requested()


def _spellings(field: str, info: Any) -> list[str]:
    return list(info.validation_alias.choices) if info.validation_alias else [field]


def test_unknown_fields_are_ignored() -> None:
    extras = {"user": "me", "safety_identifier": 7, "extra_headers": {}, "strength": 2, "svg": {}}
    assert requested(**extras) == requested()


def test_samplers_are_named_beside_the_prompt_or_in_xinferences_kwargs() -> None:
    assert requested(sampler_name="Euler a", scheduler="karras").sampling == SamplingRequest(
        sampler="Euler a", schedule="karras"
    )
    assert requested(kwargs='{"sampler_name": "DPM++ 2M Karras"}').sampling == SamplingRequest(
        sampler="DPM++ 2M Karras"
    )
    assert requested(sampler="default", scheduler="default").sampling is None


def test_kwargs_parameter_is_read_as_xinference_sends_it() -> None:
    kwargs = json.dumps({"num_inference_steps": 3, "guidance_scale": 1.0, "seed": 5, "request_id": "r", "width": None})
    found = requested(size="1024*1024", kwargs=kwargs, response_format="url")
    assert (found.steps, found.guidance, found.seed, found.width_px) == (3, 1.0, 5, 1024)
    assert requested(kwargs="{}") == requested() == requested(kwargs=None) == requested(kwargs="")


def test_top_level_parameters_override_kwargs() -> None:
    found = requested(steps=2, seed=1, kwargs={"num_inference_steps": 3, "seed": 5, "cfg_scale": 1})
    assert (found.steps, found.seed, found.guidance) == (2, 1, 1.0)


def test_kwargs_cannot_set_what_is_no_drawing_parameter() -> None:
    assert asked(kwargs={"stream": True, "n": 9, "prompt": "a pear", "model": "x"}) == asked()


BAD_VALUES: dict[str, tuple[Any, ...]] = {
    "n": (0, 11, -1, 1.5, True, "many", [1], 2**62),
    "size": (512, "512", "512x", "x512", "axb", "512x512x512", "-1x5", "1e3x5", "٥x٥", [5, 5], {}, "5" * 99),
    "width": ("wide", True, 1.5),
    "complexity": ("highest", 1),
    "frame_count": (4, "4"),
    "frame_duration_ms": (100,),
    "svg": ({"model": "x"}, "<svg/>"),
    "response_format": ("file", "b64", 1, {}),
    "output_format": ("gif", "svg", "bmp", 1),
    "output_compression": (-1, 101, "most", True),
    "background": ("transparent", "green", 1),
    "quality": ("best", 5),
    "stream": ("true", 1, 0, []),
    "partial_images": (-1, 4, True, "x"),
    "seed": ("x", 1.5, True, [], ["x"], [True], [None], {}, [1.5]),
    "lora": ({"name": 5}, {"name": "x", "scale": "strong"}),
    "loras": (5, [5], [{}], [None], [{"name": "x", "scale": "strong"}]),
    "kwargs": ("{", "[]", "5", 5, [], '{"a":NaN}', '{"a":1,"a":2}'),
}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "prompt"),
    ({"prompt": None}, "prompt"),
    ({"prompt": ""}, "prompt"),
    ({"prompt": " \n"}, "prompt"),
    ({"prompt": 5}, "prompt"),
    ({"prompt": ["an apple"]}, "prompt"),
    ({"prompt": "x" * 32_001}, "prompt"),
    ({**APPLE, "model": 7}, "model"),
    ({**APPLE, "style": "baroque"}, "style"),
    ({**APPLE, "moderation": "none"}, "moderation"),
    ({**APPLE, "steps": "x"}, "steps"),
    ({**APPLE, "num_inference_steps": "x"}, "num_inference_steps"),
    ({**APPLE, "guidance_scale": "nan"}, "guidance_scale"),
    ({**APPLE, "cfg_scale": True}, "cfg_scale"),
    ({**APPLE, "negative_prompt": 5}, "negative_prompt"),
    ({**APPLE, "kwargs": '{"guidance_scale":"x"}'}, "guidance_scale"),
    ({**APPLE, "kwargs": '{"reference_images":["x"]}'}, "reference_images"),
    ({**APPLE, "image": "data:image/png;base64,AAAA"}, "image"),
    ({**APPLE, "ref_images": ["x"]}, "ref_images"),
    *(({**APPLE, field: value}, field) for field, values in BAD_VALUES.items() for value in values),
]


@pytest.mark.parametrize(("body", "param"), REFUSED, ids=lambda value: repr(value)[:60])
def test_parameter_that_cannot_be_honoured_is_refused_by_name(body: dict[str, Any], param: str) -> None:
    error = refused(body)
    assert error.param == param
    assert error.status == 400
    assert len(error.message) < 600


@pytest.mark.parametrize("body", [None, [], "text", 5, True, [APPLE]])
def test_body_that_is_not_a_json_object_is_refused(body: object) -> None:
    assert refused(body).param is None


@pytest.mark.parametrize(
    ("sent", "core_word", "named"),
    [
        ({"size": "9x9"}, "width", "size"),
        ({"size": "9x9", "width": 9}, "width", "width"),
        ({"height": 9}, "height", "height"),
        ({}, "steps", "steps"),
        ({"step": 500}, "steps", "step"),
        ({"cfg_scale": 99}, "guidance", "cfg_scale"),
        ({"n": 10}, "count", "n"),
        ({}, "model", "model"),
        ({}, None, None),
    ],
)
def test_error_of_the_core_names_the_field_as_the_client_wrote_it(
    sent: dict[str, Any], core_word: str | None, named: str | None
) -> None:
    with pytest.raises(InvalidRequest) as caught, client_param_names(sent):
        raise InvalidRequest("no", param=core_word)
    assert caught.value.param == named


@pytest.mark.parametrize("name", ["strength", "image_strength", "denoising_strength"])
@pytest.mark.parametrize("route", [Edit, Variation, Inpainting])
def test_strength_parameter_has_three_names_when_there_is_an_input_picture(route: type[Edit], name: str) -> None:
    assert validated(route, flatten({**APPLE, name: "0.4"})).denoise == 0.4
    assert validated(route, flatten({**APPLE, "kwargs": json.dumps({name: 0.4})})).denoise == 0.4


def test_prompt_is_optional_only_for_a_variation() -> None:
    assert validated(Variation, {}).prompt == ""
    for route in (Edit, Inpainting):
        with pytest.raises(InvalidRequest) as caught:
            validated(route, {"prompt": " "})
        assert caught.value.param == "prompt"


@pytest.mark.parametrize("route", [Variation, Inpainting])
def test_stream_is_refused_on_routes_without_events(route: type[Variation]) -> None:
    assert not validated(route, {**APPLE, "stream": False}).stream
    with pytest.raises(InvalidRequest) as caught:
        validated(route, {**APPLE, "stream": True})
    assert caught.value.param == "stream"


@pytest.mark.parametrize("name", ["dall-e-2", "dall-e-3", "gpt-image-1", "gpt-image-2.5-flare", "chatgpt-image-latest"])
def test_model_names_built_into_clients_mean_the_default_model(name: str) -> None:
    assert library_name(name, {"flux2-tiny"}) is None
    assert library_name(name, {name}) == name


@pytest.mark.parametrize("name", ["dall-e-4", "gpt-4", "gpt-imagex", "x-gpt-image-1", "dall-e-3\n", "gpt-image-../x"])
def test_model_name_without_alias_is_looked_up_unchanged(name: str) -> None:
    assert library_name(name, {"flux2-tiny"}) == name


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        ({}, {"url", "b64_json"}),
        ({"model": "dall-e-3"}, {"url", "b64_json"}),
        ({"model": "gpt-image-1"}, {"b64_json"}),
        ({"model": "chatgpt-image-latest"}, {"b64_json"}),
        ({"response_format": "url"}, {"url"}),
        ({"response_format": "b64_json"}, {"b64_json"}),
        ({"model": "gpt-image-1", "response_format": "url"}, {"url"}),
    ],
)
def test_response_row_holds_url_or_base64_as_requested_and_both_by_default(
    body: dict[str, Any], rows: set[str]
) -> None:
    assert asked(**body).rows == rows


@pytest.mark.parametrize(
    ("said", "word"), [(None, "auto"), ("hd", "high"), ("standard", "medium"), ("low", "low"), ("max", "max")]
)
def test_quality_is_answered_with_the_current_openai_values(said: str | None, word: str) -> None:
    assert asked(quality=said).quality_word == word
