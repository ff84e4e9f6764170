"""From what a client said to a plan: every hole filled, every bound checked, every change told (S-20, S-21)."""

from __future__ import annotations

from typing import Any

import pytest

from engine.catalog import CATALOG
from engine.protocol import Control, Lora
from gateway.errors import InvalidRequest
from gateway.jobs.resolve import GenerationRequest, KnownLora, Limits, Resolution, SecondPassRequest, resolve

SPECS = {spec.name: spec for spec in CATALOG}


def resolved(
    model: str = "flux2-klein-4b",
    leniency: Any = "refuse",
    as_sent: bool = False,
    known_loras: dict[str, KnownLora] | None = None,
    **said: Any,
) -> Resolution:
    return resolve(
        GenerationRequest(**{"prompt": "a red circle", **said}),
        SPECS[model],
        Limits(),
        random_seed=lambda: 7,
        leniency=leniency,
        steps_as_sent=as_sent,
        known_loras=known_loras,
    )


def told(resolution: Resolution) -> dict[str, tuple[object, object]]:
    return {a.param: (a.asked, a.used) for a in resolution.adjustments}


def test_request_parameters_left_out_have_the_model_defaults() -> None:
    plan = resolved().plan
    assert (plan.width_px, plan.height_px, plan.steps, plan.guidance, plan.seeds) == (1024, 1024, 4, 1.0, (7,))
    assert resolved("flux2-klein-base-4b").plan.steps == 50
    assert resolved("flux2-tiny").plan.width_px == 128


def test_seed_minus_one_is_random_and_counts_up_over_the_next_images() -> None:
    assert resolved(seed=-1, count=3).plan.seeds == (7, 8, 9)
    assert resolved(seed=2**64 - 1, count=2).plan.seeds == (2**64 - 1, 0)
    assert resolved(seed=-5, count=2).plan.seeds == (-5, -4)


def test_image_sizes_are_rounded_down_to_16_and_that_is_reported() -> None:
    resolution = resolved(width_px=520, height_px=512)
    assert (resolution.plan.width_px, told(resolution)) == (512, {"width": (520, 512)})


def test_steps_and_size_unsupported_by_the_model_become_the_nearest_supported() -> None:
    resolution = resolved("qwen-image-2.1", steps=1, width_px=1008, height_px=1024)
    assert told(resolution) == {"steps": (1, 2), "width": (1008, 992)}
    second = SecondPassRequest(width_px=1104, height_px=1120, steps=1)
    plan = resolved("qwen-image-2.1", second_pass=second).plan
    assert plan.second_pass is not None
    assert (plan.second_pass.width_px, plan.second_pass.height_px, plan.second_pass.steps) == (1088, 1120, 2)


def test_distilled_model_caps_steps_and_fixes_guidance_and_reports_both() -> None:
    resolution = resolved(steps=20, guidance=7.0)
    assert told(resolution) == {"steps": (20, 8), "guidance": (7.0, 1.0)}
    assert resolved(steps=20, as_sent=True).plan.steps == 20
    base = resolved("flux2-klein-base-4b", steps=30, guidance=7.0)
    assert (base.plan.steps, base.plan.guidance, base.adjustments) == (30, 7.0, ())


def test_model_with_a_fixed_number_of_steps_ignores_the_requested_number() -> None:
    assert told(resolved("iris-3b", steps=1)) == {"steps": (1, 4)}
    assert told(resolved("iris-3b", steps=20, as_sent=True)) == {"steps": (20, 4)}


def test_guidance_out_of_the_model_range_is_clamped_and_reported() -> None:
    high = resolved("flux2-klein-base-4b", guidance=20.0)
    assert (high.plan.guidance, told(high)) == (10.0, {"guidance": (20.0, 10.0)})
    low = resolved("flux2-klein-base-4b", guidance=0.0)
    assert (low.plan.guidance, told(low)) == (1.0, {"guidance": (0.0, 1.0)})


@pytest.mark.parametrize("leniency", ["refuse", "drop"])
def test_upscale_model_is_refused_for_image_generation(leniency: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SPECS, "large", SPECS["z-image"].model_copy(update={"name": "large", "task": "upscale"}))
    with pytest.raises(InvalidRequest, match="enlarges pictures") as refused:
        resolved("large", leniency=leniency)
    assert refused.value.param == "model"


def test_quantize_of_the_model_catalog_row_overrides_the_setting() -> None:
    request = GenerationRequest(prompt="x")
    plan = resolve(request, SPECS["flux2-klein-4b-4-bit"], Limits(), random_seed=lambda: 1, default_quantize=8).plan
    assert plan.quantize == 4


def test_a_lora_that_does_not_exist_is_refused_or_dropped_visibly() -> None:
    with pytest.raises(InvalidRequest) as refused:
        resolved(loras=(Lora(name="../x"),))
    assert refused.value.param == "loras"
    assert told(resolved(loras=(Lora(name="x"),), leniency="drop")) == {"loras": ("x", None)}


def test_loras_of_the_library_are_used_at_their_scale() -> None:
    loras = (Lora(name="dark"), Lora(name="outline", scale=0.5), Lora(name="x"))
    known = {"dark": KnownLora(name="night"), "outline": KnownLora(name="outline")}
    found = resolved(loras=loras, leniency="drop", known_loras=known)
    assert found.plan.loras == (Lora(name="night"), Lora(name="outline", scale=0.5))
    assert told(found) == {"loras": ("x", None)}
    for bad in (Lora(name="dark", scale=5), Lora(name="dark", scale=float("nan"))):
        with pytest.raises(InvalidRequest) as refused:
            resolved(loras=(bad,), known_loras=known)
        assert refused.value.param == "loras"


def test_nine_loras_are_too_many_and_eight_are_not() -> None:
    """S-20."""
    known = {"night": KnownLora(name="night")}
    assert len(resolved(loras=(Lora(name="night"),) * 8, known_loras=known).plan.loras) == 8
    with pytest.raises(InvalidRequest):
        resolved(loras=(Lora(name="night"),) * 9, known_loras=known)


@pytest.mark.parametrize("leniency", ["refuse", "drop"])
def test_lora_incompatible_with_the_model_is_refused_with_every_leniency(leniency: str) -> None:
    """A picture without it is another one than was asked for."""
    known = {"night": KnownLora(name="night", trouble="It does not fit.")}
    with pytest.raises(InvalidRequest) as refused:
        resolved(loras=(Lora(name="night"),), known_loras=known, leniency=leniency)
    assert (refused.value.param, refused.value.message) == ("loras", "It does not fit.")


def test_model_without_lora_support_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SPECS, "bare", SPECS["z-image"].model_copy(update={"name": "bare", "lora": False}))
    known = {"night": KnownLora(name="night")}
    with pytest.raises(InvalidRequest):
        resolved("bare", loras=(Lora(name="night"),), known_loras=known)
    dropped = resolved("bare", loras=(Lora(name="night"),), known_loras=known, leniency="drop")
    assert (dropped.plan.loras, told(dropped)) == ((), {"loras": ("night", None)})


def test_denoise_counts_only_with_an_input_picture() -> None:
    assert resolved(denoise=0.3).plan.denoise == 1.0
    assert resolved(denoise=0.3, init_image="0" * 64).plan.denoise == 0.3
    assert resolved(init_image="0" * 64).plan.denoise == 0.75


def test_image_seeds_may_differ_within_one_job() -> None:
    assert resolved(seeds=(5, 5, -1)).plan.seeds == (5, 5, 7)
    assert resolved(seeds=(5, 9), count=2).plan.seeds == (5, 9)
    for request in ({"seeds": (5, 9), "count": 3}, {"seeds": (5, 2**64)}, {"seeds": (1,) * 11}):
        with pytest.raises(InvalidRequest) as refused:
            resolved(**request)
        assert refused.value.param in ("seed", "count")


def test_subseeds_follow_each_other_while_the_seed_stays() -> None:
    plan = resolved(seed=5, subseed=9, subseed_strength=0.25, count=3).plan
    assert (plan.seeds, plan.subseeds, plan.subseed_strength) == ((5, 5, 5), (9, 10, 11), 0.25)
    plan = resolved(seed=5, subseed=9, count=3).plan
    assert (plan.seeds, plan.subseeds) == ((5, 6, 7), ())


@pytest.mark.parametrize(
    ("model", "said", "param"),
    [
        ("flux1-kontext-dev", {}, "references"),
        ("qwen-image-edit-2511", {}, "references"),
        ("qwen-image-edit-2511", {"references": ("a",) * 4}, "references"),
        ("flux1-fill-dev", {}, "mask"),
        ("flux1-fill-dev", {"init_image": "a"}, "mask"),
        ("flux1-depth-dev", {}, "control"),
        ("flux1-depth-dev", {"control": Control(kind="canny", image="a")}, "control"),
        ("flux1-depth-dev", {"control": Control(kind="depth", image="a", strength=2.1)}, "control"),
        ("flux1-redux-dev", {"references": ("a",), "init_image": "a", "mask": "b"}, "mask"),
        ("flux1-redux-dev", {"references": ("a",), "init_image": "a"}, "init_image"),
        ("flux1-dev", {"control": Control(kind="canny", image="a")}, "control"),
        (
            "flux1-redux-dev",
            {"references": ("a",), "second_pass": SecondPassRequest(width_px=64, height_px=64)},
            "second_pass",
        ),
    ],
)
def test_inputs_missing_or_unsupported_by_the_model_are_refused(model: str, said: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        resolved(model, **said)
    assert caught.value.param == param


def test_inputs_optional_for_the_model_are_dropped_with_leniency_drop() -> None:
    control = Control(kind="canny", image="a")
    resolution = resolved("flux1-dev", leniency="drop", control=control)
    assert (resolution.plan.control, told(resolution)) == (None, {"control": ("canny", None)})
    resolution = resolved("flux1-redux-dev", leniency="drop", references=("a",), init_image="b", mask="c")
    assert (resolution.plan.init_image, resolution.plan.mask, resolution.plan.denoise) == (None, None, 1.0)
    assert set(told(resolution)) == {"init_image", "mask"}


def test_init_image_becomes_the_reference_of_an_edit_only_model() -> None:
    resolution = resolved("qwen-image-edit-2509", init_image="a", denoise=0.5)
    assert (resolution.plan.references, resolution.plan.init_image, resolution.plan.denoise) == (("a",), None, 1.0)
    assert told(resolution) == {"init_image": ("a start", "a reference")}
    plan = resolved("flux1-kontext-dev", init_image="a", mask="b").plan
    assert (plan.references, plan.init_image, plan.mask, plan.denoise) == (("a",), "a", "b", 1.0)
    plan = resolved("flux1-kontext-dev", init_image="a", references=("b",), denoise=0.5).plan
    assert (plan.references, plan.init_image, plan.denoise) == (("b",), "a", 0.5)


def test_inpainting_model_has_full_denoise_unless_another_is_requested() -> None:
    assert resolved("flux1-fill-dev", init_image="a", mask="b").plan.denoise == 1.0
    assert resolved("flux1-fill-dev", init_image="a", mask="b", denoise=0.6).plan.denoise == 0.6


def test_control_is_in_the_plan_of_a_model_that_supports_its_kind() -> None:
    control = Control(kind="canny", image="a", strength=0.7, is_map=False)
    assert resolved("flux1-schnell-controlnet-canny", control=control).plan.control == control


def test_reference_images_are_accepted_only_by_edit_models() -> None:
    names = ("0" * 64,)
    assert resolved(references=names).plan.references == names
    with pytest.raises(InvalidRequest) as refused:
        resolved("z-image-turbo", references=names)
    assert refused.value.param == "references"
    dropped = resolved("z-image-turbo", references=names, leniency="drop")
    assert dropped.plan.references == ()
    assert told(dropped) == {"references": (1, None)}


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"width_px": 63}, "width"),
        ({"height_px": 8193}, "height"),
        ({"steps": 0}, "steps"),
        ({"steps": 101}, "steps"),
        ({"count": 0}, "count"),
        ({"count": 11}, "count"),
        ({"guidance": -0.1}, "guidance"),
        ({"guidance": float("nan")}, "guidance"),
        ({"guidance": float("inf")}, "guidance"),
        ({"seed": -(2**63) - 1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"denoise": 1.1, "init_image": "0" * 64}, "denoise"),
        ({"denoise": float("nan"), "init_image": "0" * 64}, "denoise"),
        ({"prompt": "é" * 20_000}, "prompt"),
        ({"mask": "0" * 64}, "mask"),
        ({"subseed_strength": 1.1}, "subseed_strength"),
        ({"subseed_strength": 0.1, "subseed": 2**64}, "subseed"),
        ({"references": ("0" * 64,) * 5}, "references"),
    ],
)
def test_request_parameter_out_of_bounds_is_refused_by_name_at_submit(said: dict[str, Any], param: str) -> None:
    """S-20."""
    with pytest.raises(InvalidRequest) as refused:
        resolved(**said)
    assert refused.value.param == param


def test_the_cost_of_a_job_is_capped() -> None:
    """S-20: width x height x steps x pictures."""
    with pytest.raises(InvalidRequest, match="pictures must be at most"):
        resolved("flux2-klein-base-4b", width_px=2048, height_px=2048, steps=100, count=10)


def test_equal_requests_have_equal_fingerprints() -> None:
    a, b = GenerationRequest(prompt="x", seed=1), GenerationRequest(prompt="x", seed=2)
    assert a.fingerprint() == GenerationRequest(prompt="x", seed=1).fingerprint() != b.fingerprint()


def test_second_pass_has_the_steps_of_the_first_by_default_and_a_rounded_down_size() -> None:
    asked = {"width_px": 1000, "height_px": 512, "denoise": 0.5}
    resolution = resolved(steps=3, width_px=512, height_px=512, second_pass=asked)
    second = resolution.plan.second_pass
    assert second is not None
    assert (second.width_px, second.height_px, second.steps, second.denoise) == (992, 512, 3, 0.5)
    assert told(resolution) == {"second_pass": ("1000x512", "992x512")}
    second = resolved(second_pass={**asked, "width_px": 992, "steps": 20}).plan.second_pass
    assert second is not None
    assert second.steps == 8


@pytest.mark.parametrize(
    ("changes", "param"),
    [({"width_px": 32}, "second_pass"), ({"width_px": 8208}, "second_pass"), ({"denoise": 1.5}, "denoise")],
)
def test_a_second_pass_out_of_bounds_is_refused(changes: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        resolved(second_pass={"width_px": 512, "height_px": 512, **changes})
    assert caught.value.param == param


def test_the_second_pass_counts_towards_the_cost_of_a_job() -> None:
    larger = {"width_px": 2048, "height_px": 2048, "steps": 25}
    assert len(resolved("flux2-klein-base-4b", count=10).plan.seeds) == 10
    with pytest.raises(InvalidRequest) as caught:
        resolved("flux2-klein-base-4b", count=10, second_pass=larger)
    assert caught.value.param == "second_pass"
