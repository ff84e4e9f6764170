"""/sdapi/v1, what clients send beyond A1111's own fields: keys of other dialects, and the scripts that A1111 ships."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.sdapi.request_schemas import Img2Img, Txt2Img
from adapters.sdapi.scripts import apply
from adapters.shared.body import validated
from gateway.errors import InvalidRequest
from tests.support.sdapi import LIMITS, to_request, translated

BORROWED = [
    ({"lora": ""}, "lora"),
    ({"lora": "add_detail:0.8"}, "lora"),
    ({"lora": ["night"]}, "lora"),
    ({"lora": {"path": "night"}}, "lora"),
    ({"guidance": "high"}, "guidance"),
    ({"guidance": {"scale": 3}}, "guidance"),
    ({"guidance": -1}, "guidance"),
    ({"guidance": 1e30}, "guidance"),
    ({"distilled_guidance": 99}, "distilled_guidance"),
    ({"distilled_cfg_scale": -0.5}, "distilled_cfg_scale"),
    ({"num_images": "many"}, "num_images"),
    ({"num_images": []}, "num_images"),
    ({"num_images": 0}, "num_images"),
    ({"num_images": -1}, "num_images"),
    ({"lora_scales": "x"}, "lora_scales"),
    ({"lora_scales": {"night": 1}}, "lora_scales"),
    ({"lora_files": 5}, "lora_files"),
    ({"extra_images": 5}, "extra_images"),
    ({"extra_images": [{"image": "x"}]}, "extra_images"),
    ({"low_ram": "auto"}, "low_ram"),
    ({"model": {"name": "x"}}, "model"),
    ({"model": ["x"]}, "model"),
    ({"model": 3}, "model"),
    ({"model": 1.5}, "model"),
    ({"model": True}, "model"),
    ({"mode": 7.5}, None),
    ({"mode": {"edit": True}}, "mode"),
    ({"distilled_cfg_scale": "none"}, "distilled_cfg_scale"),
    ({"distilled_guidance": [1]}, "distilled_guidance"),
]


@pytest.mark.parametrize(("body", "param"), BORROWED, ids=[repr(body) for body, _ in BORROWED])
def test_a_borrowed_key_with_an_invalid_value_gives_an_adjustment(body: dict[str, Any], param: str | None) -> None:
    found, plain = translated(**body), translated()
    assert found.request == plain.request
    assert [item.param for item in found.adjustments] == ([] if param is None else [param])


@pytest.mark.parametrize("strength", [3, -1, 1.5, "1e30", "strong", {}, [0.5]])
def test_an_image_strength_out_of_range_gives_an_adjustment(strength: Any) -> None:
    body = {"init_images": ["aa"], "image_strength": strength}
    assert validated(Img2Img, body).untaken == ("image_strength",)
    assert validated(Img2Img, body).image_strength is None


def test_an_invalid_field_of_a1111_is_refused_beside_a_borrowed_key() -> None:
    with pytest.raises(InvalidRequest) as caught:
        validated(Txt2Img, {"lora": "x", "width": "wide"})
    assert caught.value.param == "width"


EXPORTED = {
    "Sampler": {"args": [4, "Euler", "Automatic"]},
    "Seed": {"args": [-1, False, -1, 0, 0, 0]},
    "Refiner": {"args": [False, "", 0.8]},
    "Comments": {"args": []},
    "Extra options": {"args": []},
    "Hypertile": {"args": []},
    "Soft inpainting": {"args": [False, 1, 0.5, 4, 0, 0.5, 2]},
    "ControlNet": {"args": []},
}


def with_scripts(scripts: dict[str, Any], **body: Any) -> Any:
    body_with_scripts, adjustments = apply(validated(Txt2Img, {**body, "alwayson_scripts": scripts}))
    return to_request(body_with_scripts, checkpoint=None, limits=LIMITS), adjustments


def test_scripts_of_a_payload_exported_by_a1111s_page_have_no_effect_at_their_defaults() -> None:
    found, adjustments = with_scripts(EXPORTED, prompt="x", steps=4)
    assert adjustments == ()
    assert found == translated(prompt="x", steps=4)


def test_arguments_of_a1111s_own_scripts_count_like_fields_of_the_request() -> None:
    scripts = {"SAMPLER": {"args": [7, "DPM++ 2M", "Karras"]}, "seed": {"args": [5, True, 9, 0.25, 0, 0]}}
    found, adjustments = with_scripts(scripts, prompt="x", steps=4, seed=1)
    assert (found.request.steps, found.request.seed) == (7, 5)
    assert (found.request.subseed, found.request.subseed_strength) == (9, 0.25)
    assert {item.param for item in found.adjustments} == {"sampler_name", "scheduler"}
    assert adjustments == ()
    unchecked, _ = with_scripts({"Seed": {"args": [5, False, 9, 0.25]}})
    assert (unchecked.request.seed, unchecked.request.subseed_strength) == (5, 0.0)
    part, _ = with_scripts({"Sampler": {"args": [7]}})
    assert part.request.steps == 7
    _, adjustments = with_scripts({"Soft inpainting": {"args": [True, 1, 0.5, 4, 0, 0.5, 2]}})
    assert [item.param for item in adjustments] == ["alwayson_scripts.Soft inpainting"]


@pytest.mark.parametrize(
    "scripts",
    [
        {"Sampler": {"args": ["many"]}},
        {"Seed": {"args": ["x"]}},
        {"Refiner": {"args": [True, "sdxl-refiner", 0.8]}},
        {"Dynamic Prompts": {"args": []}},
    ],
)
def test_script_arguments_that_cannot_be_honoured_are_refused(scripts: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        with_scripts(scripts)
    assert caught.value.param in ("alwayson_scripts", "refiner_checkpoint")
