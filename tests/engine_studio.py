"""A model in the real backend, drawn with directly, and who watches it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops

from engine.backends.base import JobCancelled, Model, PictureSkipped
from engine.catalog import ModelSpec
from tests.engine_support import plan


class Watching:
    """Counts steps, takes a preview of the first, skips or cancels where told to."""

    def __init__(self, *, skip_at: int | None = None, cancel_at: int | None = None) -> None:
        self.steps: list[tuple[int, int]] = []
        self.previews: list[bytes] = []
        self.decoded = 0
        self._skip_at = skip_at
        self._cancel_at = cancel_at

    def step(self, step: int, steps: int, seconds: float, preview: Callable[[], bytes]) -> None:
        self.steps.append((step, steps))
        if step == 1:
            self.previews.append(preview())
        if step == self._skip_at:
            raise PictureSkipped
        if step == self._cancel_at:
            raise JobCancelled

    def decoding(self) -> None:
        self.decoded += 1


class Studio:
    """Draws 32 pixels square with `spec` where nothing else is said; `model` is the folder of its weights."""

    def __init__(self, spec: ModelSpec, model: Path, **usual: Any) -> None:
        from engine.backends.mlx import MlxBackend

        self.spec = spec
        self.model = model
        self.backend = MlxBackend()
        self.usual = {"width_px": 32, "height_px": 32, "steps": 2, "guidance": spec.default_guidance, **usual}

    def load(self, path: Path | None = None, quantize: int | None = None) -> None:
        model = Model(self.spec, str(path or self.model), quantize)
        if not self.backend.holds(model):
            self.backend.load(model)

    def draw(self, watcher: Watching | None = None, inputs: dict[str, str] | None = None, **said: Any) -> Image.Image:
        what = plan(model=self.spec.name, **{**self.usual, **said})
        picture = self.backend.draw(self.spec, what, 0, inputs or {}, watcher or Watching())
        return Image.frombytes("RGB", (picture.width_px, picture.height_px), picture.rgb)

    def save(self, folder: Path) -> None:
        self.backend._painter._pipeline.save_model(str(folder))  # type: ignore[union-attr]


def differs(one: Image.Image, other: Image.Image) -> bool:
    return ImageChops.difference(one, other).getbbox() is not None
