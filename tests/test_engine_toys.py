"""Families at toy width through mflux's own classes: loaded, drawn with as their rows say, saved quantised, loaded."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest
from PIL import Image

from engine.backends.base import JobCancelled
from engine.catalog import Family
from engine.protocol import Lora
from tests.engine_studio import Studio, Watching, differs
from tests.engine_support import SPECS
from tests.toys import TOYS, Toy


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
    toy.save(folder)
    studio = Studio(SPECS[toy.name], folder, **toy.usual)
    studio.load()
    return studio


@pytest.fixture
def bare(studio: Studio) -> Image.Image:
    """What is drawn where nothing is said."""
    studio.load()
    return studio.draw()


@pytest.fixture
def inputs(studio: Studio, tmp_path: Path) -> dict[str, str]:
    """A photo, and a mask that keeps its left half."""
    size = studio.usual["width_px"]
    Image.radial_gradient("L").resize((size, size)).convert("RGB").save(tmp_path / "photo.png")
    mask = Image.new("L", (size, size))
    mask.paste(255, (size // 2, 0, size, size))
    mask.save(tmp_path / "mask.png")
    return {"photo": str(tmp_path / "photo.png"), "mask": str(tmp_path / "mask.png")}


def test_seed_and_prompt_count_and_progress_is_told(studio: Studio, bare: Image.Image) -> None:
    watching = Watching()
    assert differs(bare, studio.draw(watching, seeds=(8,)))
    steps = studio.usual["steps"]
    assert watching.steps == [(step + 1, steps) for step in range(steps)]
    assert watching.decoded == 1
    assert [preview[:2] for preview in watching.previews] == [b"\xff\xd8"]
    assert differs(bare, studio.draw(prompt='{"short_description": "a cat"}'))


def test_a_cancel_ends_a_picture_within_a_step_and_the_model_goes_on(studio: Studio, bare: Image.Image) -> None:
    cancelled = Watching(cancel_at=1)
    with pytest.raises(JobCancelled):
        studio.draw(cancelled)
    assert (len(cancelled.steps), cancelled.decoded) == (1, 0)
    skipped = Watching(skip_at=1)
    assert studio.draw(skipped).size == bare.size
    assert (len(skipped.steps), skipped.decoded) == (1, 1)
    assert not differs(bare, studio.draw())


def test_a_picture_begins_from_another_and_a_mask_keeps_of_it(studio: Studio, inputs: dict[str, str]) -> None:
    if not studio.spec.init_image:
        pytest.skip("its row says that it begins from noise only")
    studio.load()
    watching = Watching()
    low = studio.draw(watching, inputs, init_image="photo", denoise=0.25, steps=4)
    assert watching.steps == [(1, 1)]
    assert differs(low, studio.draw(None, inputs, init_image="photo", denoise=0.75, steps=4))
    if studio.spec.masks:
        masked = studio.draw(None, inputs, init_image="photo", mask="mask", denoise=1.0)
        half = (0, 0, masked.width // 2, masked.height)
        with Image.open(inputs["photo"]) as photo:
            assert not differs(masked.crop(half), photo.crop(half))
            assert differs(masked, photo)


def test_subseeds_lead_from_one_picture_to_another(studio: Studio, bare: Image.Image) -> None:
    near, far = (studio.draw(subseeds=(8,), subseed_strength=share) for share in (0.3, 1.0))
    assert differs(bare, near)
    assert differs(near, far)


def test_guidance_and_a_negative_prompt_count(studio: Studio, bare: Image.Image) -> None:
    if not studio.spec.negative_prompt:
        pytest.skip("its row says that it takes no negative prompt")
    guidance = studio.spec.default_guidance + 1
    guided = studio.draw(guidance=guidance)
    assert differs(bare, guided)
    assert differs(guided, studio.draw(guidance=guidance, negative_prompt="blue"))


def test_references_are_followed(studio: Studio, bare: Image.Image, inputs: dict[str, str]) -> None:
    if not studio.spec.max_references:
        pytest.skip("its row says that it cannot edit")
    one = studio.draw(None, inputs, references=("photo",))
    assert one.size == bare.size
    assert differs(bare, one)
    assert differs(one, studio.draw(None, inputs, references=("photo", "mask")))


def test_loras_are_put_on_scaled_and_taken_off(studio: Studio, toy: Toy, bare: Image.Image, tmp_path: Path) -> None:
    if not studio.spec.lora:
        pytest.skip("its row says that it wears none")
    toy.save_lora(tmp_path / "one.safetensors")
    files = {"one": str(tmp_path / "one.safetensors")}
    worn, half = (studio.draw(None, files, loras=(Lora(name="one", scale=scale),)) for scale in (1.0, 0.5))
    assert differs(bare, worn)
    assert differs(worn, half)
    assert not differs(bare, studio.draw())


def test_quantised_it_is_saved_loaded_again_and_draws_the_same(studio: Studio, tmp_path: Path) -> None:
    studio.load(quantize=8)
    one = studio.draw()
    studio.save(tmp_path / "saved")
    studio.load(path=tmp_path / "saved")
    assert not differs(one, studio.draw())


def test_every_family_of_the_catalogue_has_a_module_of_its_name_that_loads_it() -> None:
    pytest.importorskip("mlx.core")
    for family in get_args(Family):
        assert hasattr(import_module(f"engine.families.{family}"), "build" if family == "flux2_tiny" else "load")
