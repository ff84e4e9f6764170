"""Work of a plan: the few numbers that determine its time. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from engine.catalog import ModelSpec
from engine.protocol import SECOND_ORDER, Generate, Load, Upscale, steps_to_run
from gateway.jobs.job import Plans
from gateway.jobs.plans import Download, Lane, Ocr
from gateway.models.lora_repositories import LORA

MEGAPIXEL = 1_000_000.0


@dataclass(frozen=True, slots=True)
class Work:
    """One job, or the rest of it. Sizes are in megapixels."""

    lane: Lane
    model: str
    """The model whose weights it needs."""
    quantize: int | None
    mode: str
    """Kind of plan with equal cost for equal size and steps: txt2img, img2img, edit, and further properties."""
    images: int
    """Images to draw or pages to read; 0 if a model is only loaded."""
    steps: int = 0
    """Steps of one image."""
    drawn: float = 0.0
    """Size that one step computes: the image, and as much again for each reference."""
    filed: float = 0.0
    """Size of one image that is encoded and stored."""
    gigabytes: float = 0.0
    """Gigabytes to download."""
    memory_bytes: int = 0
    """Memory that it is expected to need; 0 where there is one node, which has checked that itself."""

    @property
    def needs(self) -> tuple[str, int | None] | None:
        """The model and bits that must be in the engine's memory."""
        return (self.model, self.quantize) if self.lane == "engine" else None

    @property
    def key(self) -> str:
        """Key under which its costs are stored."""
        return f"{self.model} {self.quantize or 'whole'} {self.mode}"


def work_of(plan: Plans, spec: ModelSpec | None = None, done: int = 0) -> Work:
    """The work of a plan of which `done` images or pages exist; `spec` is None for a model that is gone."""
    match plan:
        case Load(model=model, quantize=quantize):
            return Work("engine", model, quantize, "load", 0)
        case Ocr(model=model, count=count):
            return Work("cpu", model, None, "ocr", count - done)
        case Download(model=model):
            unknown = 0.3 if model.startswith(LORA) else 10.0
            return Work("network", model, None, "download", 1, gigabytes=unknown if spec is None else spec.size_gb)
        case Upscale(model=model, quantize=quantize, width_px=width, height_px=height):
            steps = 1 if spec is None else spec.default_steps
            size = width * height / MEGAPIXEL
            return Work("engine", model, quantize, "upscale", 1 - done, steps, size, size)
        case Generate():
            return _drawing(plan, spec, done)
        case _:
            assert_never(plan)


def _drawing(plan: Generate, spec: ModelSpec | None, done: int) -> Work:
    begins = plan.init_image is not None
    first_steps = steps_to_run(plan.steps, plan.denoise, plan.sampling) if begins else plan.steps
    native = None if spec is None or spec.native_px is None else spec.native_px**2
    first = native or plan.width_px * plan.height_px
    steps, pixel_steps, filed = first_steps, float(first_steps * first), plan.width_px * plan.height_px
    mode = "img2img" if begins else "txt2img"
    if plan.references:
        mode = "edit"
    if plan.guidance > 1 and (spec is None or not spec.distilled):
        mode += "+guidance"
    if plan.loras:
        mode += "+lora"
    if plan.sampling is not None and plan.sampling.sampler in SECOND_ORDER:
        mode += "+second_order"
    if (second := plan.second_pass) is not None:
        mode += "+second"
        more = second.steps if plan.sampling else steps_to_run(second.steps, second.denoise)
        filed = second.width_px * second.height_px
        steps, pixel_steps = steps + more, pixel_steps + more * (native or filed)
    if plan.tiles is not None:
        mode += "+tiles"
        filed = plan.tiles.width_px * plan.tiles.height_px
        steps, pixel_steps = steps * plan.tile_count, pixel_steps * plan.tile_count
    step_pixels = pixel_steps / steps * (1 + len(plan.references)) if steps else float(first)
    return Work(
        "engine",
        plan.model,
        plan.quantize,
        mode,
        len(plan.seeds) - done,
        steps,
        step_pixels / MEGAPIXEL,
        filed / MEGAPIXEL,
    )
