"""Memory footprint of a model and an image: first guessed from the catalogue, then learned from jobs. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, assert_never

from engine.catalog import ModelSpec
from engine.catalog.memory import decoding, encoders_gb
from engine.protocol import Generate, Load, Upscale
from gateway.jobs.job import Plans
from gateway.jobs.plans import EngineJob

GB = 1_000_000_000
MEGAPIXEL = 1_000_000.0

IMAGE_GB = 0.1
STEP_GB = 1.0
"""Gigabytes per megapixel in the transformer; references are added to it."""
FLOAT32_RATIO = 3.0
"""Factor for an image's memory on a CPU: twice the bytes, and convolutions that unfold their input first."""
TILE_MEGAPIXELS = 512 * 512 / MEGAPIXEL
LOAD_RATIO = 1.05
QUANTISING_RATIO = 1.15
"""Factor for loading: a layer is whole in memory before it is quantised. `benchmarks.load_memory` measures both."""
KEPT_KINDS = 64
KEPT_SIZES = 16


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes. `weights` stay while the model is loaded, `load` is the peak of loading it, `image` is added to it."""

    weights: int
    load: int
    image: int = 0

    @property
    def peak(self) -> int:
        return max(self.load, self.weights + self.image)


def usual_bytes(plan: Plans, spec: ModelSpec) -> int:
    """Bytes that a plan needs on a usual machine, of which nothing is known; 0 for a plan without a model in memory."""
    return guess(plan, spec, disk_bytes=None, is_float32=False).peak if isinstance(plan, EngineJob) else 0


def guess(
    plan: EngineJob,
    spec: ModelSpec,
    *,
    disk_bytes: int | None,
    is_float32: bool,
    beside: bool = False,
    further: float = 0.0,
) -> Footprint:
    """A guess before anything was learned. `disk_bytes` is the size of 16-bit weights files, if known and unquantised;
    a CPU computes in float32 and keeps its weights so. `beside`: an image is decoded beside the steps of the next one.
    `further` are GB of models that an image needs beside its own, such as a refiner.
    """
    bits = spec.stored_bits or plan.quantize
    weights = spec.loaded_gb(plan.quantize) * GB
    if disk_bytes is not None:
        # Some models are wider in their files than in memory, others narrower.
        files_gb = spec.size_gb if spec.files_gb is None else spec.files_gb
        weights *= min(1.0, disk_bytes / (min(files_gb, spec.loaded_gb(None)) * GB))
    if is_float32 and bits is None:
        weights *= 2
    match plan:
        case Load():
            image = 0.0
        case Generate():
            image_mp, step_mp = sizes(plan, spec)
            both = STEP_GB * step_mp, _decode_gb(spec, image_mp, low_ram=plan.low_ram)
            image = (IMAGE_GB + (sum(both) if beside else max(both))) * GB
        case Upscale():
            image_mp, _ = sizes(plan, spec)
            image = (IMAGE_GB + STEP_GB * image_mp + _decode_gb(spec, image_mp, low_ram=True)) * GB
        case _:
            assert_never(plan)
    if is_float32:
        image *= FLOAT32_RATIO
    image += further * GB * (2 if is_float32 and bits is None else 1)
    load = weights
    if isinstance(plan, Generate) and plan.low_ram and not plan.references:
        # One after the other: the text encoder, then the transformer.
        encoders = min(weights, weights * encoders_gb(spec, plan.quantize) / spec.loaded_gb(plan.quantize))
        weights -= encoders
        load = max(encoders, weights)
    ratio = LOAD_RATIO if plan.quantize is None or spec.stored_bits else QUANTISING_RATIO
    return Footprint(int(weights), int(load * ratio), int(image))


def _decode_gb(spec: ModelSpec, megapixels: float, *, low_ram: bool) -> float:
    facts = decoding(spec)
    if not low_ram:
        return facts.whole_gb * megapixels
    return facts.low_ram_gb * (min(megapixels, TILE_MEGAPIXELS) if facts.in_tiles else megapixels)


def sizes(plan: Generate | Upscale, spec: ModelSpec) -> tuple[float, float]:
    """Megapixels of the largest image that the model draws, and of everything that one of its steps reads."""
    pixels = plan.width_px * plan.height_px
    if isinstance(plan, Upscale):
        return pixels / MEGAPIXEL, pixels / MEGAPIXEL
    if plan.second_pass is not None:
        pixels = max(pixels, plan.second_pass.width_px * plan.second_pass.height_px)
    if spec.native_px is not None:
        pixels = spec.native_px**2
    megapixels = pixels / MEGAPIXEL
    return megapixels, megapixels * (1 + len(plan.references))


class Peaks:
    """Memory peaks of jobs on this machine. `version` changes when something is learned."""

    def __init__(self) -> None:
        self._loads: dict[str, tuple[int, int]] = {}
        self._images: dict[str, dict[float, int]] = {}
        self.most = 0
        """The highest peak that went well."""
        self.version = 0

    def learn_load(self, plan: EngineJob, active: int, peak: int) -> None:
        """Learn the memory of a loaded model, and the peak of its load; with low_ram it is not all loaded yet."""
        if isinstance(plan, Generate) and plan.low_ram:
            return
        key = _model(plan)
        _, highest = self._loads.get(key, (0, 0))
        # A model loaded from its quantised copy has a lower peak than one that must be quantised again.
        self._learn(self._loads, key, (active, max(highest, peak)), peak)

    def learn_image(
        self, plan: Generate | Upscale, spec: ModelSpec, active: int, peak: int, *, beside: bool = False
    ) -> None:
        """Learn the memory of an image, on top of the model's."""
        key, (_, megapixels) = _mode(plan, beside=beside), sizes(plan, spec)
        by_size, size = dict(self._images.get(key, {})), round(megapixels, 6)
        by_size[size] = max(by_size.pop(size, 0), peak - active, 0)
        if len(by_size) > KEPT_SIZES:
            del by_size[next(iter(by_size))]
        self._learn(self._images, key, by_size, peak)

    def _learn(self, where: dict[str, Any], key: str, what: Any, peak: int) -> None:
        changed = where.pop(key, None) != what
        where[key] = what
        if len(where) > KEPT_KINDS:
            del where[next(iter(where))]
        self.most = max(self.most, peak)
        self.version += changed

    def correct(self, plan: EngineJob, spec: ModelSpec, guessed: Footprint, *, beside: bool = False) -> Footprint:
        """The guess, replaced by what was learned."""
        weights, load = guessed.weights, guessed.load
        if not (isinstance(plan, Generate) and plan.low_ram):
            weights, load = self._loads.get(_model(plan), (weights, load))
        image = guessed.image
        if isinstance(plan, Generate | Upscale):
            _, megapixels = sizes(plan, spec)
            by_size = self._images.get(_mode(plan, beside=beside), {})
            if beside and not by_size:  # one image needs at least the half of two
                by_size = {size: 2 * memory_bytes for size, memory_bytes in self._images.get(_mode(plan), {}).items()}
            # Larger images are an upper bound for this one; from smaller ones it is extrapolated by size.
            above = [memory_bytes for size, memory_bytes in by_size.items() if size >= round(megapixels, 6)]
            below = [
                memory_bytes * megapixels / size
                for size, memory_bytes in by_size.items()
                if size < round(megapixels, 6)
            ]
            image = int(min(above, default=max(below, default=float(image))))
        return Footprint(weights, load, image)

    def to_json(self) -> dict[str, Any]:
        images = {
            key: [[size, memory_bytes] for size, memory_bytes in by_size.items()]
            for key, by_size in self._images.items()
        }
        return {"version": 1, "most": self.most, "loads": self._loads, "pictures": images}

    def read_json(self, state: dict[str, Any]) -> None:
        """Restore the state. Raises: ValueError, KeyError, TypeError, AttributeError for other data."""
        if state["version"] != 1:
            raise ValueError("another version")
        self._loads = {key: (int(active), int(peak)) for key, (active, peak) in state["loads"].items()}
        self._images = {
            key: {float(size): int(memory_bytes) for size, memory_bytes in by_size}
            for key, by_size in state["pictures"].items()
        }
        self.most = int(state["most"])
        if not all(math.isfinite(size) and size > 0 for by_size in self._images.values() for size in by_size):
            raise ValueError("no size")
        self.version += 1


def _model(plan: EngineJob) -> str:
    return f"{plan.model} {plan.quantize or 'whole'}"


def _mode(plan: Generate | Upscale, *, beside: bool = False) -> str:
    """Mode of a plan: images of one mode need the same memory for the same size."""
    if isinstance(plan, Upscale):
        return f"{_model(plan)} upscale"
    parts = (
        ("img2img", plan.init_image is not None),
        ("edit", bool(plan.references)),
        ("lora", bool(plan.loras)),
        ("guidance", plan.guidance > 1),
        ("low_ram", plan.low_ram),
        ("refiner", plan.sampling is not None and plan.sampling.refiner is not None),
        ("beside", beside),
    )
    return " ".join((_model(plan), *(name for name, is_so in parts if is_so)))
