"""/sdapi/v1, what a request says in other ways: hires fix, the infotext of an old picture, styles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adapters.sdapi.errors import AsA1111, render_error
from adapters.sdapi.infotext_field import completed
from adapters.sdapi.request_schemas import Img2Img, Txt2Img
from adapters.sdapi.styles import styles_of, with_styles
from adapters.shared.body import validated
from tests.support.sdapi import translated

# ---- hires fix -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "first", "second"),
    [
        ({}, (512, 512), (1024, 1024)),
        ({"hr_scale": "1.5"}, (512, 512), (768, 768)),
        ({"hr_resize_x": 1024, "height": 256}, (512, 256), (1024, 512)),
        ({"hr_resize_y": 1024, "height": 256}, (512, 256), (2048, 1024)),
        ({"hr_resize_x": 640, "hr_resize_y": 768}, (512, 512), (640, 768)),
        ({"firstphase_width": 256, "firstphase_height": 128, "hr_scale": 4}, (256, 128), (512, 512)),
    ],
)
def test_hires_fix_enlarges_by_a_factor_or_to_sides(
    body: dict[str, Any], first: tuple[int, int], second: tuple[int, int]
) -> None:
    request = translated(enable_hr=True, **body).request
    assert (request.width_px, request.height_px) == first
    assert request.second_pass is not None
    assert (request.second_pass.width_px, request.second_pass.height_px) == second


def test_hires_fix_takes_its_own_steps_prompt_and_denoise() -> None:
    body = {
        "hr_second_pass_steps": 3,
        "hr_prompt": "larger<lora:x:1>",
        "denoising_strength": 0.4,
        "hr_upscaler": "Nearest",
    }
    second = translated(enable_hr=True, **body).request.second_pass
    assert second is not None
    assert (second.steps, second.prompt, second.denoise, second.enlarge) == (3, "larger", 0.4, "nearest")
    plain = translated(enable_hr="true").request.second_pass
    assert plain is not None
    assert (plain.steps, plain.prompt, plain.denoise, plain.enlarge) == (None, None, 0.75, "lanczos")
    assert translated(hr_scale=2).request.second_pass is None


def test_an_unknown_hires_upscaler_is_a1111s_own_error() -> None:
    with pytest.raises(AsA1111) as caught:
        translated(enable_hr=True, hr_upscaler="4x-UltraSharp")
    response = render_error(caught.value)
    assert response.status_code == 500
    assert json.loads(response.body)["errors"] == "could not find upscaler named 4x-UltraSharp"
    assert translated(hr_upscaler="4x-UltraSharp").adjustments == ()


# ---- the infotext of another picture ---------------------------------------------------------------

OLD = """an old cat
Negative prompt: dog
Steps: 3, Sampler: Euler, Schedule type: Simple, CFG scale: 2.5, Seed: 42, Size: 320x256, Model: known, \
Variation seed: 7, Variation seed strength: 0.25, Denoising strength: 0.6, Hires upscale: 2, Hires upscaler: Lanczos"""


def test_an_infotext_fills_the_fields_that_are_not_set() -> None:
    sent = validated(Txt2Img, {"infotext": OLD, "seed": 1, "steps": None})
    asked, left_out = completed(sent, lambda name: name if name == "known" else None)
    assert left_out == ()
    assert (asked.prompt, asked.negative_prompt, asked.seed, asked.steps) == ("an old cat", "dog", 1, 3)
    assert (asked.width, asked.height, asked.cfg_scale, asked.model) == (320, 256, 2.5, "known")
    assert (asked.subseed, asked.subseed_strength) == (7, 0.25)
    assert (asked.enable_hr, asked.hr_scale, asked.hr_upscaler, asked.denoising_strength) == (True, 2.0, "Lanczos", 0.6)
    assert completed(sent, lambda name: None)[0].model is None


def test_an_infotext_of_img2img_sets_the_mask_fields() -> None:
    masked = "Mask blur: 6, Mask mode: Inpaint not masked, Masked content: latent noise, Inpaint area: Only masked"
    text = f"x\nSteps: 4, Seed: 1, {masked}"
    asked, _ = completed(validated(Img2Img, {"infotext": text}), lambda name: name)
    assert (asked.mask_blur, asked.inpainting_mask_invert, asked.inpainting_fill) == (6.0, True, 2)
    assert asked.inpaint_full_res is True


def test_invalid_values_of_an_infotext_give_adjustments() -> None:
    asked, left_out = completed(
        validated(Txt2Img, {"infotext": "x\nSteps: many, Seed: 5, Sampler: Euler"}), lambda name: name
    )
    assert (asked.steps, asked.seed) == (None, 5)
    assert [(item.param, item.asked) for item in left_out] == [("infotext", "steps: many")]


# ---- styles ----------------------------------------------------------------------------------------

CSV = """name,prompt,negative_prompt
cinematic,"{prompt}, cinematic still",blurry
plain,oil painting,
"""
YAML = """
- {name: cinematic, prompt: "{prompt}, cinematic still", negative_prompt: blurry}
- {name: plain, prompt: oil painting}
"""


@pytest.mark.parametrize(("name", "text"), [("styles.csv", CSV), ("styles.yaml", YAML)])
def test_styles_are_read_from_a_file_and_added_to_the_prompts(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    styles = styles_of(tmp_path / name)
    assert [style.name for style in styles] == ["cinematic", "plain"]
    sent = validated(Txt2Img, {"prompt": "a cat", "styles": ["plain", "cinematic", "None", "other"]})
    asked, unknown = with_styles(sent, styles)
    assert asked.prompt == "a cat, oil painting, cinematic still"
    assert asked.negative_prompt == "blurry"
    assert [(item.param, item.asked) for item in unknown] == [("styles", "other")]


@pytest.mark.parametrize("text", ["", "nonsense", "- 7", "{", "name\n"])
def test_an_invalid_styles_file_gives_no_styles(tmp_path: Path, text: str) -> None:
    for name in ("styles.csv", "styles.yml"):
        (tmp_path / name).write_text(text)
        assert styles_of(tmp_path / name) == ()
    assert styles_of(tmp_path / "nothing.csv") == styles_of(None) == ()
