"""From what a client says of sampling to a plan: names, bounds, files, and what other models honour of it."""

from __future__ import annotations

import random
from typing import Any, get_args

import pytest

from engine.catalog import CATALOG
from engine.protocol import Lora, Refiner, SamplerName, Sampling, ScheduleName
from gateway.errors import InvalidRequest
from gateway.jobs.request import GenerationRequest, SecondPassRequest
from gateway.jobs.resolve import KnownLora, Limits, resolve
from gateway.jobs.samplers import SAMPLERS, SCHEDULES, match
from gateway.jobs.sampling_request import SamplingRequest, request_of
from tests.support.sampling import (
    REFINER,
    SD1,
    SD2,
    SDXL,
    TURBO,
    Shelf,
    a_row,
    a_sampling_request,
    reasons,
    resolved,
)

FLUX = next(spec for spec in CATALOG if spec.family == "flux2")
HIRES = {"width_px": 1024, "height_px": 1024}


def sampled(sampling: SamplingRequest | None = None, **more: Any) -> Sampling:
    found = resolved(sampling, **more).plan.sampling
    assert found is not None
    return found


def test_every_sampler_and_schedule_of_the_protocol_has_a_row_with_a1111s_name() -> None:
    assert [sampler.name for sampler in SAMPLERS] == list(get_args(SamplerName))
    assert [schedule.label for schedule in SCHEDULES] == list(get_args(ScheduleName))


@pytest.mark.parametrize(
    ("name", "sampler", "schedule"),
    [
        ("Euler a", "Euler a", None),
        ("k_euler_a", "Euler a", None),
        ("EULER A", "Euler a", None),
        ("euler_ancestral", "Euler a", None),
        ("k_euler_ancestral", "Euler a", None),
        ("ddim", "DDIM", None),
        ("DPM++ 2M Karras", "DPM++ 2M", "Karras"),
        ("DPM++ 2M SDE Exponential", "DPM++ 2M SDE", "Exponential"),
        ("DPM++ 2M SDE Heun", "DPM++ 2M SDE Heun", None),
        ("DPM++ 2M SDE Heun Karras", "DPM++ 2M SDE Heun", "Karras"),
        ("LMS Karras", "LMS", "Karras"),
        ("DPM++ 2M SGMUniform", "DPM++ 2M", "SGM Uniform"),
        ("dpmpp_2m align_your_steps", "DPM++ 2M", "Align Your Steps"),
        ("uni_pc", "UniPC", None),
        ("Heun++ 3", None, None),
    ],
)
def test_samplers_are_found_by_names_aliases_and_old_names(name: str, sampler: str | None, schedule: str) -> None:
    found = match(name)
    assert (found.sampler, found.schedule) == (sampler, schedule)


def test_a_request_that_says_nothing_is_sampled_by_a1111s_defaults() -> None:
    assert sampled() == Sampling()
    assert sampled().sampler == "Euler"


def test_a_schedule_that_automatic_means_is_automatic() -> None:
    assert sampled(SamplingRequest(sampler="DPM++ 2M", schedule="karras")).schedule == "Automatic"
    assert sampled(SamplingRequest(sampler="Euler", schedule="Karras")).schedule == "Karras"
    assert sampled(SamplingRequest(sampler="DPM++ 2M Karras", schedule="exponential")).schedule == "Automatic"


def test_a_turbo_model_has_the_timesteps_it_was_trained_on_unless_the_client_names_a_schedule() -> None:
    assert sampled(spec=TURBO).schedule == "SGM Uniform"
    assert sampled(SamplingRequest(schedule="Automatic"), spec=TURBO).schedule == "Automatic"


def test_an_unknown_sampler_is_refused_and_for_a1111_is_its_first_one() -> None:
    with pytest.raises(InvalidRequest, match="no such sampler") as found:
        sampled(SamplingRequest(sampler="Heun++ 3"))
    assert found.value.param == "sampling.sampler"
    lenient = resolved(SamplingRequest(sampler="Heun++ 3", schedule="odd"), leniency="drop")
    assert lenient.plan.sampling == Sampling(sampler="DPM++ 2M")
    assert [(one.param, one.used) for one in lenient.adjustments] == [
        ("sampling.sampler", "DPM++ 2M"),
        ("sampling.schedule", "Automatic"),
    ]


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("eta", -0.1),
        ("eta", 1.1),
        ("s_churn", 101),
        ("s_tmin", 11),
        ("s_tmax", 1000),
        ("s_noise", 1.2),
        ("sigma_min", -1),
        ("rho", 101),
        ("clip_skip", 0),
        ("clip_skip", 13),
        ("comma_padding_backtrack", 75),
        ("s_min_uncond", 16),
        ("skip_early_cond", 1.1),
        ("initial_noise_multiplier", 1.6),
        ("img2img_extra_noise", 1.1),
        ("refiner_switch_at", 1.1),
        ("eta_noise_seed_delta", 2**63),
        ("seed_resize_width", 9000),
    ],
)
def test_a_value_out_of_range_is_refused_by_name_for_every_protocol(field: str, wrong: float) -> None:
    for leniency in ("refuse", "drop"):
        with pytest.raises(InvalidRequest) as found:
            sampled(SamplingRequest(**{field: wrong}), leniency=leniency)
        assert found.value.param == f"sampling.{field}"


def test_a_least_noise_above_the_most_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="below sigma_max"):
        sampled(SamplingRequest(sigma_min=9.0, sigma_max=5.0))


def test_values_that_a_sampler_does_not_read_are_reported() -> None:
    found = resolved(SamplingRequest(sampler="LMS", eta=0.5, s_churn=3.0, s_noise=1.05))
    assert found.plan.sampling == Sampling(sampler="LMS")
    assert set(reasons(found.adjustments)) == {"sampling.eta", "sampling.s_churn", "sampling.s_noise"}
    neutral = resolved(SamplingRequest(sampler="LMS", eta=1.0, s_churn=0, s_noise=1.0))
    assert not neutral.adjustments


def test_the_eta_of_a_sampler_itself_is_no_eta_of_the_plan() -> None:
    assert sampled(SamplingRequest(sampler="Euler a", eta=1.0)).eta is None
    assert sampled(SamplingRequest(sampler="Euler a", eta=0.0)).eta == 0.0
    assert sampled(SamplingRequest(sampler="DDIM", eta=0.0)).eta is None
    assert sampled(SamplingRequest(sampler="DDIM", eta=1.0)).eta == 1.0


def test_a_sampler_with_its_own_timesteps_reads_no_schedule() -> None:
    with pytest.raises(InvalidRequest) as found:
        sampled(SamplingRequest(sampler="DDIM", schedule="Karras"))
    assert found.value.param == "sampling.schedule"
    lenient = resolved(SamplingRequest(sampler="DDIM", schedule="Karras"), leniency="drop")
    assert lenient.adjustments[0].used == "Automatic"


def test_a_steepness_is_kept_where_the_schedule_has_one() -> None:
    assert sampled(SamplingRequest(sampler="DPM++ 2M", rho=5.0)).rho == 5.0
    assert sampled(SamplingRequest(sampler="DPM++ 2M", rho=7.0)).rho is None
    assert sampled(SamplingRequest(sampler="Euler", rho=5.0)).rho is None


def test_the_random_source_of_a_mac_is_the_cpu() -> None:
    assert sampled(SamplingRequest(random_source="gpu")).random_source == "CPU"
    assert sampled(SamplingRequest(random_source="nv")).random_source == "NV"
    with pytest.raises(InvalidRequest):
        sampled(SamplingRequest(random_source="dice"))


def test_zero_terminal_snr_needs_a_model_that_predicts_v() -> None:
    assert sampled(SamplingRequest(zero_terminal_snr=True), spec=SD2).zero_terminal_snr
    assert sampled(spec=a_row(prediction="v_prediction", zero_terminal_snr=True)).zero_terminal_snr
    with pytest.raises(InvalidRequest):
        sampled(SamplingRequest(zero_terminal_snr=True))
    assert not sampled(SamplingRequest(zero_terminal_snr=True), leniency="drop").zero_terminal_snr


def test_a_size_for_noise_is_a_multiple_of_8_and_not_the_images_own() -> None:
    def resize(width: int, height: int) -> tuple[int, int] | None:
        return sampled(
            SamplingRequest(seed_resize_width=width, seed_resize_height=height), width_px=512, height_px=512
        ).seed_resize_px

    assert resize(515, 389) == (512, 384)
    assert resize(512, 512) is None
    assert resize(-1, 512) is None


def test_a_vae_file_is_found_by_name_or_beside_the_checkpoint() -> None:
    library = Shelf(vae_names=("dreams.vae.safetensors", "ema.safetensors"))
    assert sampled(library=library).vae == "dreams.vae.safetensors"
    assert sampled(SamplingRequest(vae="None"), library=library).vae is None
    assert sampled(SamplingRequest(vae="ema"), library=library).vae == "ema.safetensors"
    assert sampled(SamplingRequest(vae="Automatic"), spec=SD2, library=library).vae is None
    with pytest.raises(InvalidRequest) as found:
        sampled(SamplingRequest(vae="lost.pt"), library=library)
    assert found.value.param == "sampling.vae"


def test_textual_inversions_of_the_plan_are_those_whose_names_the_prompts_contain() -> None:
    library = Shelf(embedding_names=("EasyNegative", "charturner", "bad-hands"))
    found = resolved(
        prompt="a CharTurner, walking",
        negative_prompt="(easynegative:1.1)",
        library=library,
        second_pass=SecondPassRequest(**HIRES, negative_prompt="bad-hands-5"),
    )
    assert found.plan.sampling is not None
    assert found.plan.sampling.embeddings == ("EasyNegative", "charturner", "bad-hands")
    assert sampled(library=library).embeddings == ()


def test_a_refiner_is_a_model_with_the_same_latents() -> None:
    refiner = SamplingRequest(refiner="refiner.safetensors [0123456789]", refiner_switch_at=0.7)
    assert sampled(refiner, spec=SDXL).refiner == Refiner(model=REFINER.name, switch_at=0.7)
    assert sampled(SamplingRequest(refiner="None"), spec=SDXL).refiner is None
    assert sampled(SamplingRequest(refiner=SDXL.name), spec=SDXL).refiner is None
    for spec, name in ((SD1, "refiner"), (SDXL, "lost")):
        with pytest.raises(InvalidRequest) as found:
            sampled(SamplingRequest(refiner=name), spec=spec, leniency="drop")
        assert found.value.param == "sampling.refiner"


def test_steps_and_guidance_of_a_turbo_model_are_as_asked() -> None:
    plan = resolved(spec=TURBO, steps=30, guidance=7.5, negative_prompt="red").plan
    assert (plan.steps, plan.guidance, plan.negative_prompt) == (30, 7.5, "red")
    assert not resolved(spec=TURBO, steps=30, guidance=7.5).adjustments


def test_sizes_are_multiples_of_8() -> None:
    plan = resolved(width_px=520, height_px=777).plan
    assert (plan.width_px, plan.height_px) == (520, 776)


def test_a_pass_of_exact_steps_has_a_schedule_within_the_models_timesteps() -> None:
    exact = SamplingRequest(img2img_fix_steps=True)
    with pytest.raises(InvalidRequest, match=r"at least 0\.02") as found:
        resolved(exact, init_image="0" * 64, denoise=0.01, steps=20)
    assert found.value.param == "denoise"
    assert resolved(init_image="0" * 64, denoise=0.01, steps=20).plan.denoise == 0.01
    with pytest.raises(InvalidRequest):
        resolved(second_pass=SecondPassRequest(**HIRES, denoise=0.01), steps=20)
    assert resolved(second_pass=SecondPassRequest(**HIRES, denoise=0.0), steps=20).plan.second_pass is not None


def test_the_second_pass_has_what_differs_from_the_first() -> None:
    second = SecondPassRequest(
        **HIRES,
        enlarge="latent-bicubic",
        prompt="larger",
        negative_prompt="",
        guidance=5.0,
        sampler="Euler a",
        schedule="karras",
    )
    found = resolved(SamplingRequest(sampler="DPM++ 2M"), second_pass=second, negative_prompt="red", guidance=7.0)
    used = found.plan.second_pass
    assert used is not None
    assert (used.enlarge, used.prompt, used.negative_prompt, used.guidance) == ("latent-bicubic", "larger", "", 5.0)
    assert (used.sampler, used.schedule) == ("Euler a", "Karras")
    same = SecondPassRequest(
        **HIRES, prompt="a cat", negative_prompt="red", guidance=7.0, sampler="DPM++ 2M", schedule="Karras"
    )
    plan = resolved(SamplingRequest(sampler="DPM++ 2M"), second_pass=same, negative_prompt="red", guidance=7.0).plan
    assert plan.second_pass is not None
    values = plan.second_pass.model_dump(include={"prompt", "negative_prompt", "guidance", "sampler", "schedule"})
    assert set(values.values()) == {None}


def test_a_schedule_asked_for_the_first_pass_counts_for_another_sampler_of_the_second() -> None:
    second = SecondPassRequest(**HIRES, sampler="Euler")
    named = resolved(SamplingRequest(sampler="DPM++ 2M", schedule="Karras"), second_pass=second).plan.second_pass
    plain = resolved(SamplingRequest(sampler="DPM++ 2M"), second_pass=second).plan.second_pass
    assert named is not None
    assert plain is not None
    assert (named.schedule, plain.schedule) == ("Karras", "Automatic")


def test_a_lora_keeps_its_scale_for_text_encoders_with_stable_diffusion_only() -> None:
    lora = Lora(name="fur", scale=0.5, text_encoder_scale=0.2)
    known = {"fur": KnownLora(name="fur")}

    def used(spec: Any) -> Lora:
        asked = GenerationRequest(prompt="a cat", loras=(lora,))
        return resolve(asked, spec, Limits(), random_seed=lambda: 7, known_loras=known).plan.loras[0]

    assert used(SD1) == lora
    assert used(FLUX) == Lora(name="fur", scale=0.5)


def test_other_models_honour_euler_with_their_own_schedule_and_report_the_rest() -> None:
    plain = resolved(SamplingRequest(sampler="euler", schedule="simple", clip_skip=1, vae="Automatic"), spec=FLUX)
    assert plain.plan.sampling is None
    assert not plain.adjustments
    asked = SamplingRequest(sampler="DPM++ 2M Karras", clip_skip=2, random_source="NV")
    found = resolved(asked, spec=FLUX)
    assert found.plan.sampling is None
    assert {one.param: one.used for one in found.adjustments} == {
        "sampling.sampler": "Euler",
        "sampling.schedule": "Simple",
        "sampling.clip_skip": None,
        "sampling.random_source": None,
    }


def test_other_models_enlarge_pixels_and_draw_both_passes_alike() -> None:
    second = SecondPassRequest(**HIRES, enlarge="latent", negative_prompt="red", sampler="LMS")
    found = resolved(spec=FLUX, second_pass=second)
    assert found.plan.second_pass is not None
    assert found.plan.second_pass.enlarge == "lanczos"
    assert set(reasons(found.adjustments)) == {
        "second_pass.enlarge",
        "second_pass.negative_prompt",
        "second_pass.sampler",
    }


def test_the_request_of_a_sampling_gives_that_sampling_again() -> None:
    library, dice = Shelf(vae_names=("depths.vae.safetensors",)), random.Random(0)
    for _ in range(300):
        first = sampled(a_sampling_request(dice), spec=SD2, library=library, leniency="drop")
        assert sampled(request_of(first), spec=SD2, library=library) == first
