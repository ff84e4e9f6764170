"""Families at toy width through mflux's own classes: loaded, drawn with as their rows say, saved quantised, loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import pytest
from PIL import Image

from engine.catalog import Family, ModelSpec
from engine.drawing.base import JobCancelled
from engine.protocol import Control, Lora
from tests.support import toys, toys_further, toys_pictures
from tests.support.engine import SPECS
from tests.support.engine_studio import SIDE_PX, Studio, Watching, differs, save_inputs
from tests.support.mflux_alone import Alone
from tests.support.toys import Toy

CAPTION = '{"short_description": "a cat", "edit_instruction": "draw a cat"}'
TOYS = {toy.name: toy for toy in (*toys.TOYS, *toys_pictures.TOYS, *toys_further.TOYS)}


def those(wanted: Callable[[ModelSpec], bool]) -> pytest.MarkDecorator:
    """The toys whose row of the catalogue says that they can do it."""
    names = [name for name in TOYS if wanted(SPECS[name])]
    return pytest.mark.parametrize("toy", names, indirect=True, scope="module")


@pytest.fixture(scope="module", params=TOYS)
def toy(request: pytest.FixtureRequest) -> Iterator[Toy]:
    mx = pytest.importorskip("mlx.core")
    mx.disable_compile()  # the CPU's compiler takes longer than all pictures together
    with TOYS[request.param].in_place():
        yield TOYS[request.param]
    mx.enable_compile()


@pytest.fixture(scope="module")
def studio(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Studio:
    folder = tmp_path_factory.mktemp("toy")
    toy.save(folder / "model")
    also = toy.part(folder / "model")
    return Studio(SPECS[toy.name], folder / "model", also=also, inputs=save_inputs(folder), **toy.usual)


@pytest.fixture(scope="module")
def bare(studio: Studio) -> Image.Image:
    """What is drawn where nothing more is said."""
    studio.load()
    return studio.draw()


def test_image_equals_that_of_mflux_alone(studio: Studio) -> None:
    """As its row has it, with guidance where it counts; see test_parity.py."""
    spec = studio.spec
    said: dict[str, Any] = {"guidance": spec.default_guidance, "steps": max(2, spec.min_steps)}
    if spec.family.startswith("fibo"):
        said["prompt"] = CAPTION
    if spec.negative_prompt:
        said["negative_prompt"] = "grey"
    if spec.control:  # mflux is given ready maps of any kind only by Qwen-Image-2.1 and where it has depths
        said["control"] = Control(kind=spec.control, image="photo", is_map=spec.family == "qwen21", strength=0.7)
    studio.load()
    assert not differs(studio.draw(**said), Alone(studio).draw(studio.plan(**said)))


def test_image_depends_on_seed_subseed_and_prompt_and_progress_is_reported(studio: Studio, bare: Image.Image) -> None:
    studio.load()
    watching = Watching(look=True)
    other = studio.draw(watching, seeds=(8,))
    assert differs(bare, other)
    assert watching.decoded == 1
    assert [preview[:2] for preview in watching.previews] == [b"\xff\xd8"]
    assert not differs(other, studio.draw(subseeds=(8,), subseed_strength=1.0), by=2)
    assert differs(bare, studio.draw(prompt=CAPTION))


def test_job_cancel_or_skip_stops_an_image_of_any_size_within_one_step(studio: Studio, bare: Image.Image) -> None:
    studio.load()
    steps = max(3, studio.spec.min_steps)
    cancelled = Watching(cancel_at=2)
    with pytest.raises(JobCancelled):
        studio.draw(cancelled, steps=steps)
    assert (cancelled.steps, cancelled.decoded) == ([(1, steps), (2, steps)], 0)
    skipped = Watching(skip_at=1)
    width = SIDE_PX + studio.spec.step_px
    assert studio.draw(skipped, steps=steps, width_px=width).size == (width, SIDE_PX)
    assert (skipped.steps, skipped.decoded) == ([(1, steps)], 1)
    assert not differs(bare, studio.draw())


def test_image_decoded_on_a_thread_beside_the_next_has_its_own_pixels(studio: Studio, bare: Image.Image) -> None:
    """The next one is denoised, previewed and decoded meanwhile."""
    studio.load()
    watching = Watching()
    decode = studio.backend.denoise(studio.spec, studio.plan(), 0, studio.inputs, watching)
    assert watching.decoded == 1
    with ThreadPoolExecutor(1) as thread:
        beside = thread.submit(decode)
        other = studio.draw(Watching(look=True), seeds=(8,))
        finished = beside.result()
    assert not differs(bare, Image.frombytes("RGB", (finished.width_px, finished.height_px), finished.rgb))
    assert not differs(other, studio.draw(seeds=(8,)))


def test_memory_limited_pipeline_unloads_encoders_and_draws_same_pixels(studio: Studio, bare: Image.Image) -> None:
    assert not differs(bare, studio.spared(), by=2)
    painter: Any = studio.backend._pipeline
    places = painter._text_encoders._places
    if not studio.usual.get("references"):
        assert all(getattr(owner, name) is None for owner, name in places)
        assert painter.can_read(None) == (not places)
    assert differs(bare, studio.spared(seeds=(8,)))
    assert studio.backend._pipeline is painter, "the same words need no encoder again"


@those(lambda spec: spec.name == "ernie-image")
def test_prompt_change_reloads_text_encoder(studio: Studio) -> None:
    """With one of them: the backend loads all alike."""
    spared = [studio.spared(prompt=prompt) for prompt in ("one", CAPTION)]
    studio.load()
    for prompt, picture in zip(("one", CAPTION), spared, strict=True):
        assert not differs(picture, studio.draw(prompt=prompt), by=2)


@those(lambda spec: spec.init_image)
def test_image_to_image_starts_from_input_and_mask_keeps_part_of_it(studio: Studio) -> None:
    studio.load()
    watching = Watching()
    low = studio.draw(watching, init_image="photo", denoise=0.25, steps=4)
    assert watching.steps == [(1, 1)]
    assert differs(low, studio.draw(init_image="photo", denoise=0.75, steps=4))
    if studio.spec.masks:
        masked = studio.draw(init_image="photo", mask="mask", denoise=1.0)
        half = (0, 0, masked.width // 2, masked.height)
        with Image.open(studio.inputs["photo"]) as photo:
            assert not differs(masked.crop(half), photo.crop(half))
            assert differs(masked, photo)


@those(lambda spec: spec.name == "z-image")
def test_image_to_image_masked_area_starts_from_requested_fill(studio: Studio) -> None:
    """With one of them: all families begin alike."""
    studio.load()
    said = {"init_image": "photo", "mask": "mask", "denoise": 0.9}
    original, *others = (studio.draw(**said, mask_content=content) for content in ("original", "noise", "nothing"))
    assert all(differs(original, other) for other in others)


@those(lambda spec: spec.guidance_range[0] < spec.guidance_range[1])
def test_engine_guidance_and_negative_prompt_change_the_image(studio: Studio, bare: Image.Image) -> None:
    studio.load()
    guidance = studio.spec.default_guidance + 1
    guided = studio.draw(guidance=guidance)
    assert differs(bare, guided)
    if studio.spec.negative_prompt:
        assert differs(guided, studio.draw(guidance=guidance, negative_prompt="blue"))


@those(lambda spec: spec.max_references > 0)
def test_engine_reference_images_change_the_image(studio: Studio, bare: Image.Image) -> None:
    studio.load()
    one = studio.draw(references=("blue",))
    assert one.size == bare.size
    assert differs(bare, one)
    if studio.spec.max_references > 1:
        assert differs(one, studio.draw(references=("blue", "photo")))


@those(lambda spec: spec.control is not None)
def test_controlnet_map_follows_requested_strength(studio: Studio, bare: Image.Image) -> None:
    studio.load()
    kind = studio.spec.control
    assert kind is not None
    photo, blue = (studio.draw(control=Control(kind=kind, image=name, is_map=True)) for name in ("photo", "blue"))
    assert differs(photo, blue)
    if studio.also:
        weak = Control(kind=kind, image="photo", is_map=True, strength=0.5)
        assert differs(photo, studio.draw(control=weak))


@those(lambda spec: spec.lora)
def test_loras_are_applied_scaled_and_removed(studio: Studio, toy: Toy, bare: Image.Image, tmp_path: Path) -> None:
    studio.load()
    toy.save_lora(tmp_path / "one.safetensors")
    files = {"one": str(tmp_path / "one.safetensors")}
    worn, half = (studio.draw(None, files, loras=(Lora(name="one", scale=scale),)) for scale in (1.0, 0.5))
    assert differs(bare, worn)
    assert differs(worn, half)
    assert not differs(bare, studio.draw())


def test_model_quantised_is_saved_complete_and_draws_the_same_when_reloaded(studio: Studio, tmp_path: Path) -> None:
    studio.load(quantize=8)
    one = studio.draw()
    if studio.spec.copies:
        studio.backend.save(str(tmp_path / "saved"))
        studio.load(copy=tmp_path / "saved")
        assert not differs(one, studio.draw())


def test_every_family_of_the_catalogue_has_a_module_that_loads_it() -> None:
    pytest.importorskip("mlx.core")
    from engine.pipelines import module_of

    for family in get_args(Family):
        assert hasattr(import_module(module_of(family)), "build" if family == "flux2_tiny" else "load")
