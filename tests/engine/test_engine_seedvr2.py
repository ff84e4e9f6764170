"""SeedVR2 at toy width through mflux's own classes: load, upscale, stop within its step, save quantised, load again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from engine.drawing.base import BackendError, ImageSkipped, JobCancelled, Model
from engine.protocol import PromptRead, Upscale
from gateway.jobs.resolve_upscale import size_of
from tests.support.engine import SPECS, plan
from tests.support.engine_toy_seedvr2 import BLOCKS, save_toy_seedvr2, toy_sized

SMALL = SPECS["seedvr2-3b"]


class Watching:
    """Counts what it is told; stops after a number of calls."""

    def __init__(self, stop_after: int = 10**6) -> None:
        self.told: list[str] = []
        self._stop_after = stop_after

    def _tell(self, what: str) -> None:
        self.told.append(what)
        if len(self.told) > self._stop_after:
            raise JobCancelled

    def check(self) -> None:
        self._tell("check")

    def report_prompt(self, prompt: PromptRead) -> None:
        self._tell("read")

    def step(self, step: int, steps: int, seconds: float, preview: Callable[[], bytes]) -> None:
        self._tell(f"{step}/{steps}")
        raise ImageSkipped

    def start_decoding(self) -> None:
        self._tell("decoding")


class Studio:
    def __init__(self, folder: Path) -> None:
        from engine.backends.mlx import MlxBackend

        self.folder = folder
        save_toy_seedvr2(folder / "model")
        self.backend = MlxBackend()
        self.photo = folder / "photo.png"
        Image.radial_gradient("L").resize((20, 16)).convert("RGB").save(self.photo)

    def load(self, name: str = "model", quantize: int | None = None) -> None:
        self.backend.load(Model(SMALL, str(self.folder / name), quantize))

    def upscale(self, watcher: Watching | None = None, short_px: int = 24, **said: Any) -> Image.Image:
        width, height = size_of(20, 16, short_px)
        fields: dict[str, Any] = {"model": SMALL.name, "image": "x", "width_px": width, "height_px": height}
        what = Upscale(**{**fields, "short_px": short_px, "seed": 7, **said})
        picture = self.backend.upscale(what, str(self.photo), watcher or Watching())
        made = Image.frombytes("RGB", (picture.width_px, picture.height_px), picture.rgb)
        assert made.size == (width, height)
        return made


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    pytest.importorskip("mlx.core")
    with toy_sized():
        yield Studio(tmp_path_factory.mktemp("seedvr2"))


def differs(one: Image.Image, other: Image.Image) -> bool:
    return ImageChops.difference(one, other).getbbox() is not None


def test_upscaler_depends_on_size_seed_and_softness_and_reports_every_block(studio: Studio) -> None:
    studio.load()
    watching = Watching()
    one = studio.upscale(watching)
    assert watching.told == ["check", *(f"{block}/{BLOCKS}" for block in range(1, BLOCKS + 1)), "decoding"]
    assert not differs(one, studio.upscale())
    assert differs(one, studio.upscale(seed=8))
    assert differs(one, studio.upscale(softness=1.0))
    assert studio.upscale(short_px=32).size == (40, 32)


@pytest.mark.parametrize("after", range(BLOCKS + 2))
def test_upscaler_cancel_works_at_any_point_and_upscaler_stays_usable(studio: Studio, after: int) -> None:
    studio.load()
    with pytest.raises(JobCancelled):
        studio.upscale(Watching(stop_after=after))
    pipeline = studio.backend._upscaler._pipeline  # type: ignore[union-attr]
    assert "encode" not in vars(pipeline.vae)
    if after == BLOCKS + 1:
        studio.upscale()


def test_a_quantised_copy_is_saved_and_loaded_again(studio: Studio) -> None:
    studio.load(quantize=8)
    one = studio.upscale()
    studio.backend.save(str(studio.folder / "eight"))
    studio.backend.load(replace(Model(SMALL, str(studio.folder / "model"), 8), copy=str(studio.folder / "eight")))
    assert not differs(one, studio.upscale())


def test_upscaler_model_draws_nothing_and_other_models_upscale_nothing(studio: Studio) -> None:
    studio.load()
    with pytest.raises(BackendError) as refused:
        studio.backend.draw(SMALL, plan(), 0, {}, Watching())
    assert refused.value.code == "bad_input"


def test_upscaler_models_of_both_sizes_are_built_as_named_by_mflux() -> None:
    """The 7B model has no toy: its geometry differs from the 3B one's only by mflux's own table."""
    from unittest.mock import patch

    from engine.pipelines import seedvr2

    for name in ("seedvr2-3b", "seedvr2-7b", "seedvr2"):
        with patch.object(seedvr2, "SeedVR2") as built, patch.object(seedvr2, "SeedVR2Upscaler"):
            seedvr2.load(Model(SPECS[name], "/weights", 8))
        said = built.call_args.kwargs
        assert (said["model_path"], said["quantize"]) == ("/weights", 8)
        assert SPECS[name].geometry in said["model_config"].aliases
        overrides = said["model_config"].transformer_overrides or {}
        assert overrides.get("num_layers", 32) == SPECS[name].default_steps
