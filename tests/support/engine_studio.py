"""A model in the real backend, drawn with directly, and who watches it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops, ImageDraw

from engine.catalog import ModelSpec
from engine.drawing.base import ImageSkipped, JobCancelled, Model, prompt_key
from engine.protocol import Control, Generate, PromptRead
from tests.support.engine import plan

SIDE_PX = 32


class Watching:
    """Counts steps; takes a preview of the first, skips or cancels where told to."""

    def __init__(self, *, look: bool = False, skip_at: int | None = None, cancel_at: int | None = None) -> None:
        self.steps: list[tuple[int, int]] = []
        self.previews: list[bytes] = []
        self.decoded = 0
        self.readings: list[PromptRead] = []
        self._look = look
        self._skip_at = skip_at
        self._cancel_at = cancel_at
        self.checks = 0

    def check(self) -> None:
        self.checks += 1

    def report_prompt(self, prompt: PromptRead) -> None:
        self.readings.append(prompt)

    def step(self, step: int, steps: int, seconds: float, preview: Callable[[], bytes]) -> None:
        self.steps.append((step, steps))
        if self._look and step == 1:
            self.previews.append(preview())
        if step == self._skip_at:
            raise ImageSkipped
        if step == self._cancel_at:
            raise JobCancelled

    def start_decoding(self) -> None:
        self.decoded += 1


class Studio:
    """Draws 32 pixels square in as few steps as `spec` allows, and with the pictures that it cannot draw without, where
    nothing else is said; `model` is the folder of its weights, `also` are further ones, `inputs` files by name.
    """

    def __init__(
        self, spec: ModelSpec, model: Path, *, also: tuple[str, ...] = (), inputs: dict[str, str], **usual: Any
    ) -> None:
        from engine.backends.mlx import MlxBackend

        self.spec = spec
        self.model = model
        self.also = also
        self.inputs = inputs
        self.backend = MlxBackend()
        needs: dict[str, Any] = {}
        if spec.needs_reference:
            needs["references"] = ("photo",)
        if spec.needs_mask:
            needs |= {"init_image": "photo", "mask": "mask", "denoise": 1.0}
        if spec.control:
            needs["control"] = Control(kind=spec.control, image="photo", is_map=False)
        size = {"width_px": SIDE_PX, "height_px": SIDE_PX}
        self.usual = {**size, "steps": spec.min_steps, "guidance": max(1.0, spec.guidance_range[0]), **needs, **usual}

    def load(self, copy: Path | None = None, quantize: int | None = None, said: str | None = None) -> None:
        """As it lies on disk, quantised at load or not; or its copy, with everything. `said` is a `prompt_key`."""
        model = Model(self.spec, str(copy or self.model), quantize, also=() if copy else self.also, prompt_key=said)
        if not self.backend.holds(model):
            self.backend.load(model)

    def spared(self, quantize: int | None = None, **said: Any) -> Image.Image:
        """Loaded and drawn with as little memory as can be."""
        said = {**said, "low_ram": True}
        self.load(None, quantize, prompt_key(self.plan(**said)))
        return self.draw(**said)

    def plan(self, **said: Any) -> Generate:
        """What `draw` asks for."""
        return plan(model=self.spec.name, **{**self.usual, **said})

    def draw(self, watcher: Watching | None = None, inputs: dict[str, str] | None = None, **said: Any) -> Image.Image:
        what = self.plan(**said)
        picture = self.backend.draw(self.spec, what, 0, {**self.inputs, **(inputs or {})}, watcher or Watching())
        return Image.frombytes("RGB", (picture.width_px, picture.height_px), picture.rgb)


def save_inputs(folder: Path, size: tuple[int, int] = (SIDE_PX, SIDE_PX)) -> dict[str, str]:
    """A photo, a blue picture, and a mask that keeps the left half, each of this width and height in pixels."""
    photo = Image.radial_gradient("L").resize(size).convert("RGB")
    ImageDraw.Draw(photo).rectangle((4, 4, 20, 12), fill="red")
    mask = Image.new("L", photo.size)
    mask.paste(255, (photo.width // 2, 0, *photo.size))
    pictures = {"photo": photo, "blue": Image.new("RGB", photo.size, "blue"), "mask": mask}
    for name, picture in pictures.items():
        picture.save(folder / f"{name}.png")
    return {name: str(folder / f"{name}.png") for name in pictures}


def differs(one: Image.Image, other: Image.Image, by: int = 0) -> bool:
    """Whether a value of any pixel differs by more than `by`."""
    assert one.size == other.size
    return max(high for _, high in ImageChops.difference(one, other).getextrema()) > by
