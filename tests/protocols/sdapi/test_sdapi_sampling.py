"""/sdapi/v1 with Stable Diffusion: from fields, options and infotexts to a plan, and from a plan to its infotext."""

from __future__ import annotations

import random
from typing import Any

import pytest

from adapters.sdapi import requests
from adapters.sdapi.checkpoints import checkpoint_rows, current_of, embedding_rows, name_of, vae_rows
from adapters.sdapi.field_names import field_of
from adapters.sdapi.infotext_field import completed
from adapters.sdapi.init_images import InputImages
from adapters.sdapi.lists import SAMPLERS, SCHEDULERS
from adapters.sdapi.options import CONSTANTS, accepted
from adapters.sdapi.png_info import with_defaults
from adapters.sdapi.request_schemas import Img2Img, Txt2Img
from adapters.sdapi.responses import RenderInput, info, infotext
from adapters.sdapi.sampling import sampling_of
from adapters.sdapi.sampling_infotext import sampling_in
from adapters.shared.body import validated
from engine.catalog import ModelSpec
from engine.protocol import Generate, Lora, Refiner, Sampling
from gateway.errors import InvalidRequest
from gateway.images.infotext import parse
from gateway.images.png_chunks import with_text
from gateway.images.provenance import Signature, drawing_in
from gateway.jobs.request import SecondPassRequest
from gateway.jobs.resolve import KnownLora, Limits, resolve
from gateway.jobs.sampling_files import FileHashes
from gateway.jobs.sampling_request import SamplingRequest
from gateway.service.sampling_files import files_of
from tests.support.sampling import SD1, SD2, SDXL, Models, Shelf, a_sampling_request, resolved
from tests.support.sdapi import TINY, an_image, ended

LIBRARY = Shelf(
    vae_names=("ema.safetensors", "depths.vae.safetensors"),
    embedding_names=("EasyNegative",),
    sha256s={"depths": "ab" * 32, "dreams": "cd" * 32},
)
LORAS = {"fur": KnownLora(name="fur")}
START = InputImages(init_images=("0" * 64,))


def found_model(name: str) -> str | None:
    spec = LIBRARY.checkpoint(name)
    return None if spec is None else spec.name


def planned(
    body: Txt2Img | Img2Img, spec: ModelSpec = SD2, options: dict[str, Any] | None = None, **more: Any
) -> tuple[Generate, dict[str, Any]]:
    """The plan of a body, and what was done otherwise; as the route does it, without HTTP."""
    body, left_out = completed(body, found_model)
    used = {one.param: one.asked for one in left_out}
    read = sampling_in(body.infotext, found_model, body) if body.infotext else None
    if read is not None:
        body = read.fill(body)
        used |= {one.param: one.asked for one in read.adjustments}
    requests.check(body, refines=True)
    sampling = sampling_of(body, options or {}, None if read is None else read.sampling)
    request, adjustments = requests.to_request(body, checkpoint=None, limits=Limits(), sampling=sampling, **more)
    resolution = resolve(
        request,
        spec,
        Limits(),
        random_seed=lambda: 7,
        leniency="drop",
        known_loras=LORAS,
        files=files_of(request, spec, LIBRARY),
    )
    used |= {one.param: one.used for one in adjustments}
    return resolution.plan, used | {field_of(body, one.param): one.used for one in resolution.adjustments}


def asked(spec: ModelSpec = SD2, options: dict[str, Any] | None = None, **body: Any) -> Sampling:
    sampling = planned(validated(Txt2Img, {"prompt": "a cat", **body}), spec, options)[0].sampling
    assert sampling is not None
    return sampling


def test_a_body_without_a_sampler_is_sampled_by_euler() -> None:
    assert asked(SD1) == Sampling()
    assert asked(sampler_index="DDIM").sampler == "DDIM"
    assert asked(sampler_name="", sampler_index="LMS Karras").schedule == "Karras"


@pytest.mark.parametrize(
    ("body", "name", "value"),
    [
        ({"sampler_name": "DPM++ 2M SDE Karras"}, "schedule", "Karras"),
        ({"sampler_name": "Euler a", "eta": "0.5"}, "eta", 0.5),
        ({"s_churn": 3, "s_tmin": 0.1}, "s_churn", 3),
        ({"s_tmax": 4}, "s_tmax", 4),
        ({"s_noise": 1.05}, "s_noise", 1.05),
        ({"s_min_uncond": 2}, "s_min_uncond", 2),
        ({"seed_resize_from_w": 256, "seed_resize_from_h": 320}, "seed_resize_px", (256, 320)),
        ({"override_settings": {"CLIP_stop_at_last_layers": 2.0}}, "clip_skip", 2),
        ({"override_settings": {"eta_noise_seed_delta": 31337}}, "eta_noise_seed_delta", 31337),
        ({"override_settings": {"randn_source": "NV"}}, "random_source", "NV"),
        ({"override_settings": {"randn_source": "GPU"}}, "random_source", "CPU"),
        ({"override_settings": {"emphasis": "No norm"}}, "emphasis", "No norm"),
        ({"override_settings": {"sd_noise_schedule": "Zero Terminal SNR"}}, "zero_terminal_snr", True),
        ({"override_settings": {"comma_padding_backtrack": 0}}, "comma_padding_backtrack", 0),
        ({"override_settings": {"pad_cond_uncond": True}}, "pad_cond_uncond", True),
        ({"override_settings": {"skip_early_cond": 0.2}}, "skip_early_cond", 0.2),
        ({"override_settings": {"sgm_noise_multiplier": "true"}}, "sgm_noise_multiplier", True),
        ({"override_settings": {"img2img_extra_noise": 0.1}}, "img2img_extra_noise", 0.1),
        ({"override_settings": {"img2img_fix_steps": True}}, "img2img_fix_steps", True),
        ({"override_settings": {"sd_vae": "ema.safetensors"}}, "vae", "ema.safetensors"),
        ({"override_settings": {"sd_vae": "None"}}, "vae", None),
        ({"override_settings": {"sigma_max": 20, "sigma_min": 0.1}}, "sigma_max", 20),
        ({"sampler_name": "DDIM", "override_settings": {"eta_ddim": 0.4, "eta_ancestral": 0.9}}, "eta", 0.4),
        ({"sampler_name": "Euler a", "override_settings": {"eta_ddim": 0.4, "eta_ancestral": 0.9}}, "eta", 0.9),
        ({"negative_prompt": "EASYNEGATIVE"}, "embeddings", ("EasyNegative",)),
    ],
)
def test_fields_and_settings_become_the_sampling_of_the_plan(body: dict[str, Any], name: str, value: object) -> None:
    assert getattr(asked(**body), name) == value


def test_a_field_goes_before_a_setting_of_the_request_and_that_before_the_clients_options() -> None:
    options = {"s_noise": 1.01, "CLIP_stop_at_last_layers": 2, "s_churn": 1.0}
    body = {"s_noise": 1.03, "override_settings": {"s_noise": 1.02, "s_churn": 2.0}}
    found = asked(options=options, **body)
    assert (found.s_noise, found.s_churn, found.clip_skip) == (1.03, 2.0, 2)


def test_an_unknown_sampler_is_a1111s_first_one_and_reported() -> None:
    plan, used = planned(validated(Txt2Img, {"sampler_name": "Heun++ 3", "scheduler": "odd"}))
    assert plan.sampling is not None
    assert plan.sampling.sampler == "DPM++ 2M"
    assert (used["sampler_name"], used["scheduler"]) == ("DPM++ 2M", "Automatic")


def test_a_wrong_value_names_the_field_or_option_that_it_came_in() -> None:
    body = validated(Txt2Img, {"eta": 2, "override_settings": {"rho": 7}})
    with pytest.raises(InvalidRequest) as found:
        planned(body)
    assert field_of(body, found.value.param or "") == "eta"
    assert field_of(body, "sampling.rho") == "override_settings.rho"
    assert field_of(body, "sampling.clip_skip") == "override_settings.CLIP_stop_at_last_layers"
    assert field_of(body, "sampling.refiner") == "refiner_checkpoint"
    assert accepted({"rho": 101, "CLIP_stop_at_last_layers": 13, "emphasis": "loud"}) == {}


def test_a_refiner_without_a_share_takes_over_at_once_as_in_a1111() -> None:
    assert asked(SDXL, refiner_checkpoint="refiner").refiner == Refiner(model="refiner", switch_at=0.0)
    found = asked(SDXL, refiner_checkpoint="refiner.safetensors", refiner_switch_at="0.8")
    assert found.refiner == Refiner(model="refiner", switch_at=0.8)


def test_the_second_pass_has_its_own_values_and_latent_upscalers() -> None:
    body = {
        "enable_hr": True,
        "hr_upscaler": "Latent (bicubic antialiased)",
        "hr_sampler_name": "Euler a",
        "hr_scheduler": "Use same scheduler",
        "hr_negative_prompt": "blue",
        "hr_cfg": 4,
        "negative_prompt": "red",
        "width": 64,
        "height": 80,
        "hr_scale": 1.5,
    }
    plan, used = planned(validated(Txt2Img, {"prompt": "a cat", **body}))
    second = plan.second_pass
    assert second is not None
    assert (second.enlarge, second.sampler, second.negative_prompt, second.guidance) == (
        "latent-bicubic-antialiased",
        "Euler a",
        "blue",
        4.0,
    )
    assert (second.width_px, second.height_px) == (96, 120)
    assert not {name for name in used if name.startswith("hr_")}
    plain = planned(validated(Txt2Img, {"enable_hr": True, "hr_prompt": "<lora:fur:1>"}))
    assert plain[0].second_pass is not None
    assert plain[0].second_pass.enlarge == "latent"
    assert plain[1]["hr_prompt"] is None
    stand_in = planned(validated(Txt2Img, {"enable_hr": True, "hr_upscaler": "R-ESRGAN 4x+"}))
    assert stand_in[1]["hr_upscaler"] == "Lanczos"


def test_loras_have_two_strengths_and_a_rank_of_a_tag_is_reported() -> None:
    plan, used = planned(validated(Txt2Img, {"prompt": "a cat <lora:fur:0.5:0.8><lora:fur:te=0.2:dyn=4>"}))
    assert plan.loras == (
        Lora(name="fur", scale=0.8, text_encoder_scale=0.5),
        Lora(name="fur", scale=0.2),
    )
    assert "prompt" in used


def test_img2img_has_a_factor_for_its_noise() -> None:
    body = validated(Img2Img, {"prompt": "a cat", "init_images": ["x"], "initial_noise_multiplier": 0.9})
    plan, _ = planned(body, images=START)
    assert plan.sampling is not None
    assert plan.sampling.initial_noise_multiplier == 0.9


# Source: files of A1111 1.10.1 and 1.5.2
NEW = """a cat
Negative prompt: dog
Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 42, Size: 512x768, Model hash: cdcdcdcdcd, \
Model: name, VAE hash: 0123456789, VAE: ema.safetensors, Clip skip: 2, ENSD: 31337, RNG: CPU, Emphasis: No norm, \
Version: v1.10.1"""
OLD = """a [cat:dog:0.5]
Steps: 20, Sampler: DPM++ 2M SDE Karras, CFG scale: 7, Seed: 42, Size: 512x512, Model hash: 11112222, Version: v1.5.2"""


def test_an_infotext_of_a1111_gives_its_plan() -> None:
    body, _ = completed(validated(Txt2Img, {"infotext": NEW}), found_model)
    assert body.model == "dreams"
    plan, used = planned(validated(Txt2Img, {"infotext": NEW}), SD1)
    assert plan.sampling == Sampling(
        sampler="DPM++ 2M", clip_skip=2, eta_noise_seed_delta=31337, emphasis="No norm", vae="ema.safetensors"
    )
    assert (plan.steps, plan.guidance, plan.seeds, plan.negative_prompt) == (20, 7.5, (42,), "dog")
    assert not used


def test_an_infotext_of_an_old_version_is_drawn_as_that_version_drew_it() -> None:
    assert asked(SD1, infotext=OLD) == Sampling(
        sampler="DPM++ 2M SDE",
        schedule="Karras",
        random_source="NV",
        downcast_alphas_cumprod=True,
        old_prompt_editing=True,
    )
    newer = asked(SD1, infotext=OLD.replace("v1.5.2", "v1.7.0-225-gabcdef12"))
    assert not newer.downcast_alphas_cumprod
    foreign = asked(SD1, infotext=OLD.replace("v1.5.2", "f2.0.1v1.10.1-previous-659"))
    assert (foreign.downcast_alphas_cumprod, foreign.random_source) == (False, "NV")


def test_what_of_an_infotext_cannot_be_had_is_reported() -> None:
    text = OLD.replace("Seed: 42", "Seed: 42, Refiner: lost, ENSD: x").replace("DPM++ 2M SDE Karras", "DDIM")
    _, used = planned(validated(Txt2Img, {"infotext": text}), SD1)
    assert "infotext" in used
    read = sampling_in(text, found_model, validated(Txt2Img, {}))
    told = {str(one.asked).partition(":")[0] for one in read.adjustments}
    assert told == {"ENSD", "Pad conds v0", "Refiner switch by sampling steps", "Refiner"}


def test_an_infotext_of_old_hires_fix_has_the_size_of_the_first_pass() -> None:
    text = "a\nSteps: 9, Sampler: Euler a, Seed: 1, Size: 1024x768, Denoising strength: 0.7, First pass size: 0x0"
    plan, _ = planned(validated(Txt2Img, {"infotext": text}), SD1)
    assert plan.second_pass is not None
    assert (plan.width_px, plan.height_px) == (640, 448)
    assert (plan.second_pass.width_px, plan.second_pass.height_px) == (1024, 768)
    assert (plan.second_pass.enlarge, plan.second_pass.denoise) == ("latent", 0.7)


def test_png_info_has_what_an_old_version_implies() -> None:
    told = with_defaults(parse(OLD))
    assert (told["Downcast alphas_cumprod"], told["Old prompt editing timelines"]) == (True, True)
    assert "Downcast alphas_cumprod" not in with_defaults(parse(NEW))


def test_the_drawing_of_a_picture_of_a1111_has_its_sampling() -> None:
    drawing = drawing_in(with_text(an_image(), "parameters", NEW))
    assert drawing is not None
    assert drawing.sampling == SamplingRequest(
        sampler="DPM++ 2M",
        schedule="Karras",
        random_source="CPU",
        eta_noise_seed_delta=31337,
        clip_skip=2,
        emphasis="No norm",
        vae="ema.safetensors",
    )
    both = drawing_in(with_text(an_image(), "parameters", f"<lora:fur:0.5:0.8><lora:ink:1>{NEW}"))
    assert both is not None
    assert [(one.name, one.scale, one.text_encoder_scale) for one in both.loras] == [
        ("fur", 0.8, 0.5),
        ("ink", 1.0, None),
    ]
    forge = NEW.replace("CFG scale: 7.5", "CFG scale: 1, Distilled CFG Scale: 3.5")
    flux = drawing_in(with_text(an_image(), "parameters", forge))
    assert flux is not None
    assert flux.sampling is None


def test_fields_of_the_request_go_before_those_of_its_infotext() -> None:
    found = asked(SD1, infotext=NEW, sampler_name="Euler a", override_settings={"CLIP_stop_at_last_layers": 1})
    assert (found.sampler, found.clip_skip, found.emphasis, found.eta) == ("Euler a", 1, "No norm", None)


def a_plan(dice: random.Random, *, begins: bool) -> Generate:
    """A plan with random values, with a second pass or from an image."""
    second = None
    if not begins and dice.random() < 0.6:
        second = SecondPassRequest(
            width_px=1024,
            height_px=768,
            steps=dice.choice((None, 11)),
            denoise=0.55,
            enlarge=dice.choice(("lanczos", "nearest", "latent", "latent-nearest-exact", "latent-antialiased")),
            prompt=dice.choice((None, "a larger cat")),
            negative_prompt=dice.choice((None, "blue, EasyNegative")),
            guidance=dice.choice((None, 4.5)),
            sampler=dice.choice((None, "Euler", "DDIM", "DPM++ 2M", "LMS")),
            schedule=dice.choice((None, "Automatic", "Karras", "Exponential")),
        )
    spec = dice.choice((SD2, SDXL))
    sampling = a_sampling_request(dice, predicts_v=spec is SD2)
    if spec is SDXL and dice.random() < 0.5:
        sampling = sampling.model_copy(update={"refiner": "refiner", "refiner_switch_at": 0.75})
    varied = dice.random() < 0.3
    return resolved(
        sampling,
        spec,
        leniency="drop",
        library=LIBRARY,
        prompt="a cat\nwith (fur:1.2), [a:b:0.5]",
        negative_prompt=dice.choice((None, "dog: easynegative, x")),
        width_px=512,
        height_px=640,
        steps=dice.randint(1, 60),
        guidance=dice.choice((1.0, 7.0, 7.5)),
        seed=dice.randint(0, 2**60),
        subseed=99,
        subseed_strength=0.25 if varied else 0.0,
        second_pass=second,
        init_image="0" * 64 if begins else None,
        denoise=0.4 if begins else None,
    ).plan


@pytest.mark.parametrize("begins", [False, True], ids=["txt2img", "img2img"])
def test_the_infotext_of_a_plan_gives_that_plan_again(begins: bool) -> None:
    dice = random.Random(1)
    for _ in range(150):
        plan = a_plan(dice, begins=begins)
        signature = Signature.of(plan, 0, plan.seeds[0], FileHashes())
        assert signature is not None
        model = Img2Img if begins else Txt2Img
        body = validated(model, {"infotext": signature.infotext, "init_images": ["x"]})
        spec = next(row for row in LIBRARY.rows if row.name == plan.model)
        again, used = planned(body, spec, images=START if begins else InputImages())
        assert not used, signature.infotext
        assert again.model_copy(update={"previews": 0}) == plan, signature.infotext
        assert completed(body, found_model)[0].model == plan.model


def test_the_infotext_of_an_answer_is_that_of_a1111() -> None:
    body = validated(
        Txt2Img,
        {
            "prompt": "a cat <lora:fur:0.5>",
            "negative_prompt": "EasyNegative",
            "sampler_name": "DPM++ 2M",
            "cfg_scale": 7.5,
            "seed": 42,
            "steps": 20,
            "override_settings": {"CLIP_stop_at_last_layers": 2, "sd_vae": "ema"},
        },
    )
    plan, _ = planned(body, SD1)
    result = RenderInput(body, ended(plan), plan, lora_hashes={"fur": "a" * 12}, file_hashes=LIBRARY.hashes(plan))
    last = infotext(result, 0).split("\n")[-1]
    assert last.startswith(
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 42, Size: 512x512, "
        "Model hash: cdcdcdcdcd, Model: dreams, VAE hash: 00ff00ff00, VAE: ema.safetensors, Clip skip: 2, RNG: CPU, "
        'TI hashes: "EasyNegative: 123456789abc", Lora hashes: "fur: aaaaaaaaaaaa", Version: mflux-gateway'
    )
    told = info(result)
    assert (told["sampler_name"], told["clip_skip"], told["sd_model_hash"]) == ("DPM++ 2M", 2, "cdcdcdcdcd")
    assert (told["sd_vae_name"], told["sd_vae_hash"]) == ("ema.safetensors", "00ff00ff00")
    assert told["extra_generation_params"]["TI hashes"] == "EasyNegative: 123456789abc"
    hires = validated(Txt2Img, {"prompt": "a cat", "enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent"})
    plan, _ = planned(hires, SD1)
    pairs = parse(infotext(RenderInput(hires, ended(plan), plan), 0))
    assert (pairs["Hires upscale"], pairs["Hires upscaler"], pairs["Denoising strength"]) == ("1.5", "Latent", "0.75")
    assert "Hires resize-1" not in pairs


def test_checkpoints_are_listed_by_file_name_and_hash_and_others_by_name() -> None:
    library: Any = Models((SD1, SD2, TINY), (SD1, TINY), {"nice": "dreams"}, LIBRARY)
    dreams, tiny, nice = checkpoint_rows(library, "flux2-tiny")
    assert (dreams["title"], dreams["model_name"]) == ("dreams.safetensors [cdcdcdcdcd]", "dreams")
    assert (dreams["hash"], dreams["sha256"], dreams["filename"]) == ("cd" * 5, "cd" * 32, "dreams.safetensors")
    assert (tiny["title"], tiny["hash"]) == ("flux2-tiny", None)
    assert nice["title"] == nice["model_name"] == "nice"
    assert current_of(library, "dreams") == dreams["title"]
    assert current_of(library, "gone") == "gone"
    for title in (dreams["title"], "dreams", "cdcdcdcdcd", "dreams [0000000000]", "dreams.safetensors"):
        assert name_of(library, title) == "dreams", title
    assert name_of(library, "lost [0000000000]") == "lost"


def test_vae_files_and_textual_inversions_are_listed() -> None:
    library: Any = Models((SD1, TINY), (SD1, TINY), files=LIBRARY)
    assert vae_rows(library)[0] == {"model_name": "ema.safetensors", "filename": "ema.safetensors"}
    found = embedding_rows(library, "dreams")
    assert found["loaded"]["EasyNegative"] == {
        "step": None,
        "sd_checkpoint": None,
        "sd_checkpoint_name": None,
        "shape": 768,
        "vectors": 2,
    }
    assert embedding_rows(library, "flux2-tiny") == {"loaded": {}, "skipped": {}}


def test_samplers_and_schedules_are_a1111s_in_its_order() -> None:
    assert [row["name"] for row in SAMPLERS][:3] == ["DPM++ 2M", "DPM++ SDE", "DPM++ 2M SDE"]
    assert SAMPLERS[6]["aliases"] == ["k_euler_a", "k_euler_ancestral"]
    assert SAMPLERS[6]["options"] == {"uses_ensd": "True"}
    assert SCHEDULERS[2] == {
        "name": "karras",
        "label": "Karras",
        "aliases": None,
        "default_rho": 7.0,
        "need_inner_model": False,
    }
    assert (len(SAMPLERS), len(SCHEDULERS)) == (20, 12)


def test_options_start_at_a1111s_values() -> None:
    assert asked(SD1, options=dict(CONSTANTS), sampler_name="Euler a") == Sampling(sampler="Euler a")


def test_a_sampling_is_a_request_and_its_values_beat_the_other_ones() -> None:
    first, second = SamplingRequest(eta=0.5), SamplingRequest(eta=0.1, clip_skip=2)
    assert first.over(second) == SamplingRequest(eta=0.5, clip_skip=2)
