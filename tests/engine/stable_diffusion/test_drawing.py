"""Whole images of toy checkpoints by the real backend."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageStat

from engine.catalog import ModelSpec
from engine.drawing.base import BackendError, JobCancelled
from engine.passes import denoise as denoise_passes
from engine.protocol import Refiner, Sampling, SecondPass, input_name
from engine.spool import write_ppm
from tests.support.engine_studio import Studio, Watching, differs, save_inputs
from tests.support.stable_diffusion import toy_checkpoint, toy_vae
from tests.support.stable_diffusion_tensors import NARROW_VAE, TOY_SIZES

SIDE_PX = 16
FAMILIES = ("sd1", "sd2", "sdxl", "sdxl_refiner")


def spec_of(family: Any, **more: Any) -> ModelSpec:
    return ModelSpec(
        name=f"toy-{family}", family=family, geometry=family, licence="none", description="toy", size_gb=0.01,
        distilled=False, default_steps=20, useful_max_steps=150, default_guidance=7.0, step_px=8, negative_prompt=True,
        prediction="epsilon", **more,
    )  # fmt: skip


def studio_of(folder: Path, family: Any, **more: Any) -> Studio:
    usual = {
        "width_px": SIDE_PX, "height_px": SIDE_PX, "steps": 2, "guidance": 7.0, "prompt": "a red circle",
        "negative_prompt": "blue", "sampling": Sampling(sampler="Euler"),
    }  # fmt: skip
    sizes = replace(TOY_SIZES[family], vae_channels=NARROW_VAE)
    path = toy_checkpoint(folder / "model", family, sizes=sizes, **more)
    inputs = save_inputs(folder, (SIDE_PX, SIDE_PX))
    return Studio(spec_of(family), path, inputs=inputs, **usual)


@pytest.fixture(scope="module", params=FAMILIES)
def studio(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Studio:
    studio = studio_of(tmp_path_factory.mktemp("toy"), request.param)
    studio.load()
    return studio


@pytest.fixture(scope="module")
def sd1(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    studio = studio_of(tmp_path_factory.mktemp("sd1"), "sd1")
    studio.load()
    return studio


def sampled(**said: Any) -> Sampling:
    return Sampling(**{"sampler": "Euler", **said})


def test_image_depends_on_seed_prompt_negative_prompt_and_guidance(studio: Studio) -> None:
    watching = Watching(look=True)
    image = studio.draw(watching)
    assert watching.steps == [(1, 2), (2, 2)]
    assert watching.decoded == 1
    assert [preview[:2] for preview in watching.previews] == [b"\xff\xd8"]
    for change in ({"seeds": (8,)}, {"prompt": "a cat"}, {"negative_prompt": ""}, {"guidance": 3.0}):
        assert differs(image, studio.draw(**change)), change


def test_job_cancel_or_skip_stops_an_image_within_one_step(studio: Studio) -> None:
    cancelled = Watching(cancel_at=1)
    with pytest.raises(JobCancelled):
        studio.draw(cancelled)
    assert cancelled.steps == [(1, 2)]
    skipped = Watching(skip_at=1)
    assert studio.draw(skipped).size == (SIDE_PX, SIDE_PX)
    assert (skipped.steps, skipped.decoded) == ([(1, 2)], 1)


@pytest.mark.parametrize("studio", ["sd1", "sdxl"], indirect=True)
def test_memory_limited_image_has_the_same_pixels(studio: Studio) -> None:
    assert not differs(studio.draw(), studio.spared(), by=1)
    studio.load()


@pytest.mark.parametrize("studio", ["sd1", "sdxl"], indirect=True)
def test_saved_model_draws_the_same_pixels(studio: Studio, tmp_path: Path) -> None:
    image = studio.draw()
    (tmp_path / "copy").mkdir()
    studio.backend.save(str(tmp_path / "copy"))
    again = Studio(studio.spec, tmp_path / "copy", inputs=studio.inputs, **studio.usual)
    again.load()
    assert not differs(image, again.draw(), by=1)


@pytest.mark.parametrize("bits", [8, 4])
def test_quantised_model_draws(sd1: Studio, bits: int) -> None:
    quantised = Studio(sd1.spec, sd1.model, inputs=sd1.inputs, **sd1.usual)
    quantised.load(quantize=bits)
    assert quantised.draw().size == (SIDE_PX, SIDE_PX)


@pytest.mark.parametrize("studio", ["sd2", "sdxl"], indirect=True)
def test_model_with_v_prediction_draws_another_image(studio: Studio, tmp_path: Path) -> None:
    v = studio_of(tmp_path, studio.spec.family, v=True)
    v.load()
    assert differs(studio.draw(), v.draw())


def test_folder_and_file_of_one_model_draw_the_same_pixels(sd1: Studio, tmp_path: Path) -> None:
    folder = studio_of(tmp_path, "sd1", form="folder")
    folder.load()
    assert not differs(sd1.draw(), folder.draw(), by=1)


@pytest.mark.parametrize("sampler", ["Euler", "DDIM", "UniPC"])
def test_input_image_is_followed_more_at_a_lower_denoise(sd1: Studio, sampler: Any) -> None:
    def drawn(denoise: float) -> Image.Image:
        return sd1.draw(init_image="photo", denoise=denoise, steps=6, guidance=1.0, sampling=sampled(sampler=sampler))

    def distance(denoise: float) -> float:
        return sum(ImageStat.Stat(ImageChops.difference(drawn(denoise), kept)).mean)

    kept = drawn(0.0)
    assert distance(0.2) < distance(0.9)


def test_image_to_image_runs_a1111s_number_of_steps(sd1: Studio) -> None:
    watching = Watching()
    sd1.draw(watching, init_image="photo", denoise=0.6, steps=5)
    assert len(watching.steps) == 4
    watching = Watching()
    sd1.draw(watching, init_image="photo", denoise=0.6, steps=5, sampling=sampled(img2img_fix_steps=True))
    assert len(watching.steps) == 5


@pytest.mark.parametrize("sampler", ["Euler a", "DDIM"])
@pytest.mark.parametrize("content", ["original", "noise", "nothing"])
def test_mask_keeps_the_rest_of_the_image(sd1: Studio, content: Any, sampler: Any) -> None:
    said = {"init_image": "photo", "mask": "mask", "mask_content": content, "denoise": 0.9}
    image = sd1.draw(**said, sampling=sampled(sampler=sampler))
    photo = Image.open(sd1.inputs["photo"])
    kept, repainted = (0, 0, SIDE_PX // 2, SIDE_PX), (SIDE_PX // 2, 0, SIDE_PX, SIDE_PX)
    assert not differs(image.crop(kept), photo.crop(kept))
    assert differs(image.crop(repainted), photo.crop(repainted), by=8)


def test_inpainting_model_draws_with_and_without_an_image(tmp_path: Path) -> None:
    studio = studio_of(tmp_path, "sd1", inpainting=True)
    studio.load()
    whole = studio.draw()
    masked = studio.draw(init_image="photo", mask="mask", denoise=1.0)
    blue = studio.draw(init_image="blue", mask="mask", denoise=1.0)
    right = (SIDE_PX // 2, 0, SIDE_PX, SIDE_PX)
    assert differs(whole, masked)
    assert differs(masked.crop(right), blue.crop(right)), "the model sees the image around its part"


def test_random_source_seed_resize_clip_skip_and_ensd_change_the_image(sd1: Studio) -> None:
    image = sd1.draw(sampling=sampled(sampler="Euler a"))
    for change in (
        {"random_source": "NV"},
        {"seed_resize_px": (8, 8)},
        {"clip_skip": 2},
        {"eta_noise_seed_delta": 31337},
        {"eta": 0.5},
        {"schedule": "SGM Uniform"},
    ):
        assert differs(image, sd1.draw(sampling=sampled(sampler="Euler a", **change))), change


def test_subseed_moves_the_image_towards_its_own(sd1: Studio) -> None:
    other = sd1.draw(seeds=(8,))
    assert not differs(other, sd1.draw(subseeds=(8,), subseed_strength=1.0), by=1)
    assert differs(other, sd1.draw(subseeds=(8,), subseed_strength=0.5))


def test_prompt_weight_and_editing_change_the_image(sd1: Studio) -> None:
    image = sd1.draw(prompt="a red circle", steps=3)
    for prompt in ("a (red:1.5) circle", "a [red:blue:1] circle", "a [red|blue] circle", "a red circle AND a cat"):
        assert differs(image, sd1.draw(prompt=prompt, steps=3)), prompt
    assert not differs(image, sd1.draw(prompt="a [red:blue:40] circle", steps=3))


def test_vae_file_decodes_in_place_of_the_models_own(sd1: Studio, tmp_path: Path) -> None:
    vae = toy_vae(tmp_path)
    other = sd1.draw(sampling=sampled(vae="toy"), inputs={input_name("vae", "toy"): str(vae)})
    assert differs(sd1.draw(), other)


def test_checkpoint_without_a_vae_draws_with_a_vae_file_only(sd1: Studio, tmp_path: Path) -> None:
    bare = studio_of(tmp_path, "sd1", has_vae=False)
    bare.load()
    with pytest.raises(BackendError, match="choose a VAE file by sd_vae"):
        bare.draw()
    inputs = {input_name("vae", "toy"): str(toy_vae(tmp_path))}
    drawn = (studio.draw(sampling=sampled(vae="toy"), inputs=inputs) for studio in (bare, sd1))
    assert not differs(*drawn, by=1)


@pytest.mark.parametrize("studio", ["sdxl"], indirect=True)
def test_refiner_goes_on_with_the_image(studio: Studio, tmp_path: Path) -> None:
    path = toy_checkpoint(tmp_path / "refiner", "sdxl_refiner")
    inputs = {input_name("model", "refiner"): str(path)}

    def refined(switch_at: float) -> Image.Image:
        refiner = Refiner(model="refiner", switch_at=switch_at)
        return studio.draw(sampling=sampled(refiner=refiner), inputs=inputs)

    image = studio.draw()
    assert differs(image, refined(0.5))
    assert not differs(image, refined(1.0))


SECOND = {"width_px": 24, "height_px": 24, "steps": 2, "denoise": 0.7}


@pytest.mark.parametrize("how", ["latent", "latent-nearest-exact", "latent-bicubic-antialiased", "lanczos"])
def test_second_pass_enlarges_and_draws_exactly_its_steps(sd1: Studio, how: Any, tmp_path: Path) -> None:
    watching = Watching()
    plan = sd1.plan(second_pass=SecondPass(**SECOND, enlarge=how))

    def save(first: Any) -> str:
        write_ppm(tmp_path / "first.ppm", first)
        return str(tmp_path / "first.ppm")

    finished = denoise_passes(sd1.backend, sd1.spec, plan, 0, sd1.inputs, watching, save)()
    assert (finished.width_px, finished.height_px) == (24, 24)
    assert watching.steps == [(step, 4) for step in range(1, 5)]


def test_second_pass_that_is_skipped_gives_the_enlarged_first_one(sd1: Studio) -> None:
    skipped = Watching(skip_at=1)
    assert sd1.draw(skipped, second_pass=SecondPass(**SECOND, enlarge="latent")).size == (24, 24)
    assert skipped.steps == [(1, 4)]
