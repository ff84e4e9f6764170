"""From what is asked of a picture that is to be larger to a plan: sizes, bounds, seeds, models (S-20)."""

from __future__ import annotations

from typing import Any

import pytest

from engine.catalog import CATALOG
from engine.protocol import Upscale
from gateway.errors import InvalidRequest
from gateway.forecast.work import work_of
from gateway.jobs.drawing import Drawing, to_text
from gateway.jobs.resolve import GenerationRequest, Limits
from gateway.jobs.resolve import resolve as resolve_drawing
from gateway.jobs.resolve_upscale import UpscaleRequest, is_video, resolve, size_of

SPECS = {spec.name: spec for spec in CATALOG}


def resolved(model: str = "seedvr2-3b", size: tuple[int, int] = (640, 480), **said: Any) -> Upscale:
    request = UpscaleRequest(image="x", from_width_px=size[0], from_height_px=size[1], **said)
    return resolve(request, SPECS[model], Limits(), random_seed=lambda: 7)


@pytest.mark.parametrize(
    ("size", "said", "result"),
    [
        ((640, 480), {}, (1280, 960)),
        ((640, 480), {"scale": 1.5}, (960, 720)),
        ((640, 480), {"scale": 1}, (640, 480)),
        ((640, 480), {"width_px": 960}, (960, 720)),
        ((640, 480), {"height_px": 960}, (1280, 960)),
        ((640, 480), {"width_px": 1280, "height_px": 1280}, (1706, 1280)),
        ((101, 99), {"scale": 2}, (202, 198)),
        ((333, 77), {"scale": 3}, (1002, 232)),
    ],
)
def test_upscale_result_has_the_proportions_of_the_image(
    size: tuple[int, int], said: dict[str, Any], result: tuple[int, int]
) -> None:
    plan = resolved(size=size, **said)
    assert (plan.width_px, plan.height_px) == result
    assert size_of(*size, plan.short_px) == result


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"scale": 0.5}, "scale"),
        ({"scale": 17}, "scale"),
        ({"scale": float("nan")}, "scale"),
        ({"scale": 2, "width_px": 900}, "scale"),
        ({"width_px": 100}, "width"),
        ({"height_px": 100_000}, "height"),
        ({"scale": 8}, "scale"),
        ({"softness": 1.5}, "softness"),
        ({"seed": -(2**63) - 1}, "seed"),
        ({"size": (4, 4), "scale": 2}, "scale"),
    ],
)
def test_upscale_parameter_out_of_bounds_is_refused_by_name(said: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        resolved(**said)
    assert refused.value.param == param


def test_upscale_plan_resolves_seed_quantize_and_model() -> None:
    assert (resolved().seed, resolved(seed=-1).seed, resolved(seed=5).seed) == (7, 7, 5)
    assert (resolved("seedvr2-7b-8-bit").quantize, resolved().quantize) == (8, None)
    assert resolved().inputs == {"x"}


def test_upscale_plan_keeps_the_image_infotext_unless_it_is_too_long() -> None:
    said = Drawing(prompt="p", model="m", width=8, height=8, steps=1, guidance=1, seed=1)
    assert resolved(drawn=said).drawn == to_text(said)
    endless = said.model_copy(update={"prompt": "p" * 60_000, "negative_prompt": "n" * 60_000})
    assert resolved(drawn=endless).drawn is None
    assert resolved().drawn is None


def test_models_for_generation_do_not_upscale_and_upscale_models_do_not_generate() -> None:
    for refusing in (
        lambda: resolved("flux2-klein-4b"),
        lambda: resolve_drawing(GenerationRequest(prompt="x"), SPECS["seedvr2"], Limits(), random_seed=lambda: 1),
    ):
        with pytest.raises(InvalidRequest) as refused:
            refusing()
        assert refused.value.param == "model"


def test_upscale_work_has_as_many_steps_as_the_model_has_blocks() -> None:
    work = work_of(resolved("seedvr2-7b"), SPECS["seedvr2-7b"])
    assert (work.mode, work.steps, work.images, round(work.drawn, 2)) == ("upscale", 36, 1, 1.23)


@pytest.mark.parametrize("data", [b"\0\0\0\x18ftypmp42", b"\x1aE\xdf\xa3webm", b"RIFF\0\0\0\0AVI LIST", b"OggS\0"])
def test_video_files_are_recognized_by_their_first_bytes(data: bytes) -> None:
    assert is_video(data)
    assert not is_video(b"RIFF\0\0\0\0WEBPVP8 ")
    assert not is_video(b"\x89PNG\r\n\x1a\n")
