"""Z-Image at toy width through mflux's own classes: load, draw in every way, save quantised, load again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from engine.backends.base import Model, PictureSkipped
from engine.protocol import Lora
from tests.engine_support import SPECS, plan
from tests.engine_toy_z_image import save_toy_lora, save_toy_z_image, toy_sized

TURBO, BASE = SPECS["z-image-turbo"], SPECS["z-image"]


class Watching:
    """Counts steps, takes a preview of the first, skips where told to."""

    def __init__(self, skip_at: int | None = None) -> None:
        self.steps: list[tuple[int, int]] = []
        self.previews: list[bytes] = []
        self.decoded = 0
        self._skip_at = skip_at

    def step(self, step: int, steps: int, seconds: float, preview: Callable[[], bytes]) -> None:
        self.steps.append((step, steps))
        if step == 1:
            self.previews.append(preview())
        if step == self._skip_at:
            raise PictureSkipped

    def decoding(self) -> None:
        self.decoded += 1


class Studio:
    def __init__(self, folder: Path) -> None:
        from engine.backends.mlx import MlxBackend

        self.folder = folder
        self.model = folder / "model"
        save_toy_z_image(self.model)
        self.backend = MlxBackend()
        self.spec = TURBO

    def load(self, spec: Any = TURBO, path: Path | None = None, quantize: int | None = None) -> None:
        self.spec = spec
        self.backend.load(Model(spec, str(path or self.model), quantize))

    def draw(self, watcher: Watching | None = None, inputs: dict[str, str] | None = None, **said: Any) -> Image.Image:
        what = plan(model=self.spec.name, **{"height_px": 64, "steps": 2, **said})
        picture = self.backend.draw(self.spec, what, 0, inputs or {}, watcher or Watching())
        return Image.frombytes("RGB", (picture.width_px, picture.height_px), picture.rgb)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    pytest.importorskip("mlx.core")
    with toy_sized():
        yield Studio(tmp_path_factory.mktemp("z_image"))


@pytest.fixture
def photo(tmp_path: Path) -> str:
    Image.radial_gradient("L").resize((64, 64)).convert("RGB").save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


def differs(one: Image.Image, other: Image.Image) -> bool:
    return ImageChops.difference(one, other).getbbox() is not None


def test_seed_prompt_and_size_count_and_nothing_else_does(studio: Studio) -> None:
    studio.load()
    one = studio.draw()
    assert not differs(one, studio.draw())
    assert differs(one, studio.draw(seeds=(8,)))
    assert differs(one, studio.draw(prompt="a cat"))
    assert studio.draw(width_px=96, height_px=48).size == (96, 48)
    assert not differs(one, studio.draw())


def test_steps_are_told_with_previews_and_a_skip_ends_the_picture(studio: Studio) -> None:
    studio.load()
    watching = Watching()
    studio.draw(watching, steps=3)
    assert watching.steps == [(1, 3), (2, 3), (3, 3)]
    assert watching.decoded == 1
    assert [preview[:2] for preview in watching.previews] == [b"\xff\xd8"]
    skipped = Watching(skip_at=2)
    assert studio.draw(skipped, steps=5).size == (64, 64)
    assert skipped.steps == [(1, 5), (2, 5)]


def test_a_picture_is_kept_the_more_the_less_denoise(studio: Studio, photo: str) -> None:
    studio.load()

    def drawn(denoise: float) -> tuple[Image.Image, list[tuple[int, int]]]:
        watching = Watching()
        picture = studio.draw(watching, {"x": photo}, init_image="x", denoise=denoise, steps=4)
        return picture, watching.steps

    assert drawn(0.25)[1] == [(1, 1)]
    assert differs(drawn(0.25)[0], drawn(0.75)[0])
    assert not differs(drawn(1.0)[0], studio.draw(steps=4))


def test_a_mask_keeps_what_is_outside_it(studio: Studio, photo: str, tmp_path: Path) -> None:
    studio.load()
    mask = Image.new("L", (64, 64))
    mask.paste(255, (32, 0, 64, 64))
    mask.save(tmp_path / "mask.png")
    inputs = {"x": photo, "m": str(tmp_path / "mask.png")}
    contents = [
        studio.draw(None, inputs, init_image="x", mask="m", denoise=0.9, mask_content=content)
        for content in ("original", "noise", "nothing")
    ]
    with Image.open(photo) as opened:
        kept = studio.draw(None, inputs, init_image="x", denoise=0.9)
        assert differs(contents[0], opened)
    assert all(differs(one, other) for one, other in ((contents[0], contents[1]), (contents[0], contents[2])))
    assert differs(contents[0], kept)


def test_subseeds_lead_from_one_picture_to_another(studio: Studio) -> None:
    studio.load()
    one, middle, other = (studio.draw(subseeds=(8,), subseed_strength=share) for share in (0.0, 0.5, 1.0))
    assert not differs(one, studio.draw())
    assert not differs(other, studio.draw(seeds=(8,)))
    assert differs(middle, one)
    assert differs(middle, other)


def test_loras_are_put_on_scaled_and_taken_off(studio: Studio, tmp_path: Path) -> None:
    studio.load()
    save_toy_lora(tmp_path / "one.safetensors")
    files = {"one": str(tmp_path / "one.safetensors")}
    bare = studio.draw()
    worn, half = (studio.draw(None, files, loras=(Lora(name="one", scale=scale),)) for scale in (1.0, 0.5))
    assert differs(bare, worn)
    assert differs(worn, half)
    assert not differs(bare, studio.draw())


def test_the_base_model_follows_guidance_and_a_negative_prompt(studio: Studio) -> None:
    studio.load(BASE)
    plain = studio.draw(guidance=1.0)
    guided = studio.draw(guidance=4.0)
    assert differs(plain, guided)
    assert differs(guided, studio.draw(guidance=4.0, negative_prompt="blue"))
    assert not differs(plain, studio.draw(guidance=1.0, negative_prompt="blue"))


@pytest.mark.parametrize("bits", [8, 4])
def test_quantised_it_is_saved_loaded_again_and_draws_the_same(studio: Studio, bits: int, tmp_path: Path) -> None:
    studio.load(quantize=bits)
    one = studio.draw()
    studio.backend._painter._pipeline.save_model(str(tmp_path / "saved"))  # type: ignore[union-attr]
    studio.load(path=tmp_path / "saved")
    assert not differs(one, studio.draw())
