"""/sdapi/v1, the way in: leniency, translation, the start picture."""

from __future__ import annotations

import json
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError

from adapters.sdapi.errors import render_error
from adapters.sdapi.field_names import adjustments_of
from adapters.sdapi.options import CONSTANTS, accepted, output_options
from adapters.sdapi.prompt_tags import split_tags, without_hash
from adapters.sdapi.request_schemas import Img2Img, Txt2Img
from adapters.sdapi.resize import on_background, resize, size_of
from adapters.shared.body import validated
from gateway.errors import GatewayError, InvalidRequest
from gateway.jobs.resolve import Adjustment, resolve
from tests.support.sdapi import BASE, LIMITS, TINY, begun, to_request, translated


def dropped(**body: Any) -> dict[str, Adjustment]:
    return {item.param: item for item in translated(**body).adjustments}


# ---- leniency --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "sent", "meant"),
    [
        ("steps", "20", 20),
        ("steps", "4.0", 4),
        ("steps", 10.5, 10),
        ("steps", True, 1),
        ("width", 512.0, 512),
        ("width", "512", 512),
        ("cfg_scale", "1.0", 1.0),
        ("cfg_scale", 7, 7.0),
        ("seed", None, -1),
        ("seed", "", -1),
        ("seed", -1.0, -1),
        ("seed", "42", 42),
        ("send_images", "false", False),
        ("send_images", 0, False),
        ("send_images", None, True),
        ("denoising_strength", None, 0.75),
        ("styles", None, []),
        ("styles", [None], []),
        ("styles", "None", ["None"]),
        ("override_settings", None, {}),
        ("alwayson_scripts", None, {}),
        ("script_args", None, []),
        ("sampler_index", None, "Euler"),
        ("prompt", 7, "7"),
        ("eta", "anything", "anything"),
        ("hr_scale", "1.0", 1.0),
        ("hr_second_pass_steps", 15.5, 15),
    ],
)
def test_field_values_are_converted_as_clients_expect(field: str, sent: object, meant: object) -> None:
    assert getattr(validated(Txt2Img, {field: sent}), field) == meant


@pytest.mark.parametrize("name", sorted(Img2Img.model_fields))
def test_null_equals_an_absent_field(name: str) -> None:
    assert validated(Img2Img, {name: None}) == Img2Img()


@pytest.mark.parametrize(
    ("field", "sent", "kind"),
    [
        ("steps", "twenty", "type_error.integer"),
        ("steps", "", "type_error.integer"),
        ("steps", [], "type_error.integer"),
        ("steps", 1e300, "type_error.integer"),
        ("steps", "9" * 5000, "type_error.integer"),
        ("steps", "nan", "type_error.integer"),
        ("cfg_scale", "nan", "type_error.float"),
        ("cfg_scale", "inf", "type_error.float"),
        ("cfg_scale", {}, "type_error.float"),
        ("send_images", "maybe", "type_error.bool"),
        ("prompt", ["a"], "type_error.str"),
        ("prompt", {"a": 1}, "type_error.str"),
        ("override_settings", [], "type_error.dict"),
        ("alwayson_scripts", "x", "type_error.dict"),
        ("styles", {}, "type_error.list"),
    ],
)
def test_an_invalid_value_is_a_422_naming_the_field(field: str, sent: object, kind: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        validated(Txt2Img, {field: sent})
    response = render_error(caught.value)
    assert response.status_code == 422
    (detail,) = json.loads(response.body)["detail"]
    assert detail["loc"] == ["body", field]
    assert detail["type"] == kind


@pytest.mark.parametrize("body", [[], "text", 7, None])
def test_a_body_that_is_not_an_object_is_a_422(body: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        validated(Txt2Img, body)
    answer = json.loads(render_error(caught.value).body)
    assert answer["detail"] == [{"loc": ["body"], "msg": "value is not a valid dict", "type": "type_error.dict"}]


def test_payloads_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Txt2Img().steps = 3  # type: ignore[misc]


# ---- translation -----------------------------------------------------------------------------------


def test_an_empty_body_requests_one_random_image_of_512_with_the_models_own_steps_and_guidance() -> None:
    request = translated().request
    assert (request.width_px, request.height_px) == (512, 512)
    assert request.steps is None
    assert request.guidance is None
    assert request.seed == -1
    assert request.count == 1
    assert request.model is None


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ({"batch_size": 2, "n_iter": 3}, 6),
        ({"num_images": 4}, 4),
        ({"num_images": 4, "batch_size": 2}, 4),
        ({"batch_size": "2"}, 2),
        ({"n_iter": 2.0}, 2),
    ],
)
def test_batches_and_iterations_multiply(body: dict[str, Any], count: int) -> None:
    assert translated(**body).request.count == count


@pytest.mark.parametrize("body", [{"batch_size": 0}, {"batch_size": -1, "n_iter": -1}])
def test_less_than_one_image_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        translated(**body)


@pytest.mark.parametrize(
    ("body", "model"),
    [
        ({"model": "a"}, "a"),
        ({"sd_model_checkpoint": "a"}, "a"),
        ({"override_settings": {"sd_model_checkpoint": "a"}}, "a"),
        ({"override_settings": {"sd_model_checkpoint": "a [0123456789]"}}, "a"),
        ({"model": "a", "sd_model_checkpoint": "b"}, "a"),
        ({"model": "", "sd_model_checkpoint": "b"}, "b"),
        ({"override_settings": {"sd_model_checkpoint": None}}, None),
        ({"override_settings": {"sd_model_checkpoint": 7}}, None),
        ({}, None),
    ],
)
def test_the_model_is_named_in_three_places(body: dict[str, Any], model: str | None) -> None:
    assert translated(**body).request.model == model


def test_the_chosen_checkpoint_is_the_model_of_requests_that_name_none() -> None:
    assert to_request(Txt2Img(), checkpoint="chosen", limits=LIMITS).request.model == "chosen"
    named = validated(Txt2Img, {"model": "named"})
    assert to_request(named, checkpoint="chosen", limits=LIMITS).request.model == "named"


@pytest.mark.parametrize(
    ("body", "guidance"),
    [
        ({"cfg_scale": 7}, 7.0),
        ({"cfg_scale": 1, "distilled_cfg_scale": 3.5}, 3.5),
        ({"guidance": 2.0, "cfg_scale": 7, "distilled_cfg_scale": 3.5}, 2.0),
        ({"cfg_scale": 7, "distilled_guidance": "2.5"}, 2.5),
        ({"cfg_scale": None}, None),
    ],
)
def test_guidance_comes_from_the_first_of_its_fields(body: dict[str, Any], guidance: float | None) -> None:
    assert translated(**body).request.guidance == guidance


@pytest.mark.parametrize(("asked", "steps"), [(22, 22), (50, 50), (100, 100), (101, 100), (150, 100), (151, 151)])
def test_steps_as_far_as_a1111s_slider_goes_are_cut_to_the_limit(asked: int, steps: int) -> None:
    assert translated(steps=asked).request.steps == steps


@pytest.mark.parametrize(
    ("prompt", "clean", "loras"),
    [
        ("a cat", "a cat", ()),
        ("a cat <lora:fur:0.8>", "a cat ", (("fur", 0.8),)),
        ("<lora:a:1:0.5:dyn=3>x<lyco:b>", "x", (("a", 0.5), ("b", 1.0))),
        ("<lora:a:te=0.1:unet=0.3><lora:b:te=0.2>", "", (("a", 0.3), ("b", 0.2))),
        ("<lora:a:much:nan>", "", (("a", 1.0),)),
        ("<hypernet:h:1>x", "x", ()),
        ("a < b > c", "a < b > c", ()),
        ("(emphasis:1.2) [a:b:0.3]", "(emphasis:1.2) [a:b:0.3]", ()),
    ],
)
def test_extra_network_tags_leave_the_prompt(prompt: str, clean: str, loras: tuple[tuple[str, float], ...]) -> None:
    left, found = split_tags(prompt)
    assert (left, tuple((lora.name, lora.scale) for lora in found)) == (clean, loras)


def test_disabled_extra_networks_give_no_adjustment() -> None:
    request = translated(prompt="x<lora:a:1>", disable_extra_networks=True).request
    assert request.prompt == "x"
    assert request.loras == ()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"script_name": "sd upscale"}, "script_name"),
        ({"alwayson_scripts": {"ADetailer": {"args": []}}}, "alwayson_scripts"),
        ({"refiner_checkpoint": "sdxl-refiner"}, "refiner_checkpoint"),
    ],
)
def test_fields_that_would_change_the_image_are_refused_by_name(body: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        translated(**body)
    response = render_error(caught.value)
    assert response.status_code == 422
    assert json.loads(response.body)["detail"][0]["loc"] == ["body", field]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 404, None),
        ({"init_images": []}, 404, None),
        ({"init_images": ["a"], "resize_mode": 4}, 422, "resize_mode"),
        ({"init_images": ["a"], "resize_mode": -1}, 422, "resize_mode"),
    ],
)
def test_img2img_refuses_what_it_cannot_do(body: dict[str, Any], status: int, field: str | None) -> None:
    with pytest.raises(GatewayError) as caught:
        to_request(validated(Img2Img, body), checkpoint=None, limits=LIMITS)
    response = render_error(caught.value)
    answer = json.loads(response.body)
    assert response.status_code == status
    if field is None:
        assert answer["detail"] == "Init image not found"
    else:
        assert answer["detail"][0]["loc"] == ["body", field]


@pytest.mark.parametrize(
    "body",
    [
        {"refiner_checkpoint": ""},
        {"refiner_checkpoint": "None"},
        {"script_args": [1, 2]},
        {"script_name": ""},
        {"alwayson_scripts": {}},
        {"enable_hr": False, "hr_scale": "1.0", "hr_upscaler": "Latent", "hr_resize_x": 2048},
        {"styles": ["None", ""]},
        {"sampler_name": "", "sampler_index": "Euler"},
        {"scheduler": "automatic"},
        {"mask": None},
    ],
)
def test_fields_at_their_defaults_give_no_adjustment(body: dict[str, Any]) -> None:
    assert dropped(**body) == {}


@pytest.mark.parametrize(
    ("body", "param", "used"),
    [
        ({"sampler_name": "DPM++ 2M Karras"}, "sampler_name", "Euler"),
        ({"sampler_index": "DDIM"}, "sampler_name", "Euler"),
        ({"sampler_name": "", "sampler_index": "Euler a"}, "sampler_name", "Euler"),
        ({"scheduler": "karras"}, "scheduler", "Simple"),
        ({"restore_faces": True}, "restore_faces", None),
        ({"tiling": True}, "tiling", None),
        ({"steps": 150}, "steps", 100),
        ({"override_settings": {"samples_format": "avif"}}, "override_settings.samples_format", "png"),
        ({"enable_hr": True, "hr_upscaler": "Latent (antialiased)"}, "hr_upscaler", "Lanczos"),
        ({"enable_hr": True, "hr_negative_prompt": "x"}, "hr_negative_prompt", None),
        ({"enable_hr": True, "hr_sampler_name": "DDIM"}, "hr_sampler_name", "Euler"),
        ({"enable_hr": True, "hr_checkpoint_name": "x"}, "hr_checkpoint_name", None),
        ({"enable_hr": True, "hr_prompt": "<lora:x:1>"}, "hr_prompt", None),
        ({"override_settings": {"CLIP_stop_at_last_layers": 2}}, "override_settings.CLIP_stop_at_last_layers", 1),
        ({"override_settings": {"anything": [1]}}, "override_settings.anything", None),
    ],
)
def test_ignored_fields_give_adjustments(body: dict[str, Any], param: str, used: object) -> None:
    assert dropped(**body)[param].used == used


def test_override_settings_without_effect_give_no_adjustment() -> None:
    assert dropped(override_settings={**CONSTANTS, "sd_model_checkpoint": "flux2-tiny"}) == {}


def test_adjustments_of_the_core_have_the_clients_field_names_and_values() -> None:
    asked = validated(Txt2Img, {"steps": 150, "distilled_cfg_scale": 3.5, "cfg_scale": 1, "prompt": "x<lora:a:1>"})
    found = to_request(asked, checkpoint=None, limits=LIMITS)
    cores = resolve(found.request, TINY, LIMITS, random_seed=lambda: 1, leniency="drop").adjustments
    told = {item.param: (item.asked, item.used) for item in adjustments_of(asked, found.adjustments, cores)}
    assert told == {"steps": (150, 8), "distilled_cfg_scale": (3.5, 1.0), "prompt": ("a", None)}


def test_a_base_model_takes_cfg_scale_as_guidance() -> None:
    plan = resolve(translated(cfg_scale=7).request, BASE, LIMITS, random_seed=lambda: 1, leniency="drop").plan
    assert plan.guidance == 7.0


@pytest.mark.parametrize(
    ("body", "denoise"),
    [({}, 0.75), ({"denoising_strength": 0.3}, 0.3), ({"denoising_strength": 0.3, "image_strength": "0.5"}, 0.5)],
)
def test_denoise_is_image_strength_or_denoising_strength(body: dict[str, Any], denoise: float) -> None:
    asked = validated(Img2Img, {"init_images": ["a"], **body})
    request = to_request(asked, checkpoint=None, limits=LIMITS, images=begun(Img2Img)).request
    assert request.denoise == denoise
    assert request.init_image == "0" * 64


@pytest.mark.parametrize(
    ("title", "name"),
    [("a [0123456789]", "a"), ("a", "a"), ("a [b] c", "a [b] c"), ("a/b.safetensors [x]", "a/b.safetensors")],
)
def test_a_hash_behind_a_checkpoint_title_is_ignored(title: str, name: str) -> None:
    assert without_hash(title) == name


# ---- options ---------------------------------------------------------------------------------------


def test_options_are_set_where_they_have_an_effect_and_a_valid_value() -> None:
    asked = {"samples_format": "jpg", "jpeg_quality": "90", "send_seed": False, "tiling": True, "enable_pnginfo": "x"}
    assert accepted(asked) == {"samples_format": "jpg", "jpeg_quality": 90, "send_seed": False}
    assert accepted({"samples_format": ["jpg"], "jpeg_quality": 101, "img2img_background_color": "red"}) == {}
    look = output_options({"samples_format": "webp"}, {"img2img_background_color": "#102030"})
    assert (look.format, look.background, look.with_infotext) == ("webp", "#102030", True)


# ---- the start picture -----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
@pytest.mark.parametrize("size", [(64, 64), (100, 30), (30, 100), (2000, 1), (1, 2000), (96, 128)])
def test_the_init_image_is_resized_to_the_result(mode: int, size: tuple[int, int]) -> None:
    picture = resize(Image.new("RGB", size, "red"), size_of(100, 130, LIMITS), mode)
    assert picture.size == (96, 128)
    assert picture.getcolors() == [(96 * 128, (255, 0, 0))]


def test_stretching_cropping_and_filling_differ() -> None:
    halves = Image.new("RGB", (128, 64), "red")
    halves.paste((0, 0, 255), (64, 0, 128, 64))
    halves.paste((0, 255, 0), (0, 0, 16, 64))
    stretched, cropped, filled = (resize(halves, (64, 64), mode) for mode in (0, 1, 2))
    assert stretched.getpixel((2, 32)) == (0, 255, 0)
    assert cropped.getpixel((2, 32)) == (255, 0, 0)
    assert filled.getpixel((2, 2)) == (0, 255, 0)
    assert filled.getpixel((60, 62)) == (0, 0, 255)


def test_transparent_init_images_are_put_on_the_background() -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert on_background(clear, "#ffffff").getcolors() == [(64, (255, 255, 255))]
    assert on_background(clear, "#102030").getcolors() == [(64, (16, 32, 48))]


def test_a_size_out_of_bounds_is_refused_before_an_image_is_resized() -> None:
    for size in ((10**9, -5), (64, -5), (10**300, 64), (8192, 8192)):
        with pytest.raises(InvalidRequest) as refused:
            size_of(*size, LIMITS)
        assert refused.value.param in ("width", "height")
