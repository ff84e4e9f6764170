"""Admission: whether a job fits into memory, at its submit and before it runs; and what would fit if it does not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Literal

from engine.catalog import EMBEDDED, ModelSpec
from engine.catalog.spec import STABLE_DIFFUSION
from engine.protocol import Generate, Load, Upscale
from gateway.errors import InsufficientMemory, ModelNotFound, ModelNotServed
from gateway.jobs.plans import EngineJob
from gateway.machine import total_bytes
from gateway.models.library import Library
from gateway.models.weights import stored_bits, weights_bytes
from gateway.residency.device import MEMORY_SHARE
from gateway.residency.footprint import GB, Footprint, Peaks, guess
from gateway.residency.shortage import Shortage

LADDER = ("flux2-klein-4b", "flux2-klein-4b-mlx-8bit", "flux2-klein-4b-mlx-4bit", EMBEDDED)
"""Default models, the best first. Each is on the hub at the size that it has in memory."""
SMALLEST_PX = 256
"""No smaller image is suggested."""

LimitSource = Literal["setting", "device", "estimate"]


class Admission:
    """`device` returns what the engine computes on (None before it is ready) and its limit in bytes if there is one;
    `expected_bytes` is the limit until then.
    """

    def __init__(
        self,
        library: Library,
        device: Callable[[], tuple[str | None, int | None]],
        peaks: Peaks,
        *,
        is_set: bool,
        expected_bytes: int | None = None,
    ) -> None:
        self._library = library
        self._device = device
        self._peaks = peaks
        self._is_set = is_set
        self._expected_bytes = expected_bytes

    @property
    def device_bytes(self) -> int:
        """The memory limit: the setting, otherwise the device's, otherwise the expected one."""
        kind, limit_bytes = self._device()
        if limit_bytes is not None:
            return limit_bytes
        if kind is None and self._expected_bytes is not None:
            return self._expected_bytes
        return int(MEMORY_SHARE * total_bytes())

    @property
    def limit_bytes(self) -> int:
        """Like `device_bytes`, raised to a peak that went well once, unless the operator set the limit."""
        return self.device_bytes if self._is_set else max(self.device_bytes, self._peaks.most)

    @property
    def limit_source(self) -> LimitSource:
        """Where the limit comes from."""
        if self._is_set:
            return "setting"
        return "estimate" if self._device()[1] is None else "device"

    def footprint(self, plan: EngineJob, spec: ModelSpec, *, beside: bool = False) -> Footprint:
        """Memory that a plan needs, where an image is decoded beside the next one or not. Reads sizes from disk:
        milliseconds.
        """
        folder = self._library.find_folder(spec)
        # For a model in several repositories only the catalogue has the total.
        known = folder is not None and not spec.also and stored_bits(folder) is None and spec.stored_bits is None
        # Files of Stable Diffusion have other variants and parts beside what is loaded; its rows are of the latter.
        known = known and spec.family not in STABLE_DIFFUSION
        disk_bytes = weights_bytes(folder) if folder is not None and known else None
        is_cpu = self._device()[0] == "cpu"
        guessed = guess(
            plan, spec, disk_bytes=disk_bytes, is_float32=is_cpu, beside=beside, further=self._further_gb(plan)
        )
        return self._peaks.correct(plan, spec, guessed, beside=beside)

    def _further_gb(self, plan: EngineJob) -> float:
        """GB of the further models that a plan has in memory beside its own: a refiner, a VAE file."""
        if not isinstance(plan, Generate) or plan.sampling is None:
            return 0.0
        further = 0.0
        if plan.sampling.refiner is not None:
            with suppress(ModelNotFound, ModelNotServed):
                refiner = self._library.find(plan.sampling.refiner.model)
                further += refiner.loaded_gb(plan.quantize)
        vae = None if plan.sampling.vae is None else self._library.vaes.find(plan.sampling.vae)
        if vae is not None and vae.part is not None:
            further += 4 * vae.part.parameters / GB
        return further

    def fits(self, plan: EngineJob, spec: ModelSpec, *, beside: bool = False) -> bool:
        return self.footprint(plan, spec, beside=beside).peak <= self.limit_bytes

    def spared(self, plan: Generate, spec: ModelSpec) -> Generate:
        """The plan, with low_ram if it fits only with that. Reads sizes from disk: milliseconds."""
        sparing = plan.model_copy(update={"low_ram": True})
        return sparing if not plan.low_ram and not self.fits(plan, spec) and self.fits(sparing, spec) else plan

    def check(self, plan: EngineJob, spec: ModelSpec) -> Shortage | None:
        """The shortage of a job that seems not to fit but is to be tried. Raises: InsufficientMemory for others."""
        shortage = self.shortage(plan, spec)
        if shortage is not None and plan.memory != "try":
            raise InsufficientMemory(param="model", details=shortage.details)
        return shortage

    def shortage(self, plan: EngineJob, spec: ModelSpec) -> Shortage | None:
        """Why the job would be refused, and what would fit; None if it fits."""
        needed, limit = self.footprint(plan, spec).peak, self.limit_bytes
        if needed <= limit:
            return None
        return Shortage(needed, limit, self.advice(plan, spec), self._model(plan, spec), self._size(plan, spec))

    def advice(self, plan: EngineJob, spec: ModelSpec) -> str:
        """What would fit: the best variant of the model, tiles, a smaller image, another model."""
        ways = []
        if (variant := self._variant(plan, spec)) is not None:
            ways.append(f"Use {variant.name}")
        sparing = isinstance(plan, Generate) and not plan.low_ram
        if sparing and self.fits(plan.model_copy(update={"low_ram": True}), spec):
            ways.append("set low_ram=true")
        if not ways and not isinstance(plan, Load) and self.footprint(plan, spec).weights < self.limit_bytes:
            ways.append("Use a smaller size")
        if not ways:
            other = self._model(plan, spec) or (None if isinstance(plan, Upscale) else EMBEDDED)
            ways.append(f"Use {other}, or a machine with more memory" if other else "Use a machine with more memory")
        text = " or ".join(ways)
        return text[0].upper() + text[1:]

    def _model(self, plan: EngineJob, spec: ModelSpec) -> str | None:
        """A model that fits instead: a variant of the same weights, or the best other model with the same abilities."""
        if (variant := self._variant(plan, spec)) is not None:
            return variant.name
        rows = self._library.specs
        if spec.task == "upscale":
            others = [row for row in rows if row.task == "upscale" and row.unavailable is None]
        else:
            others = sorted((row for row in rows if row.name in LADDER), key=lambda row: LADDER.index(row.name))
        able = [row for row in others if row.name != spec.name and _can(row, plan)]
        fitting = [(ease, row) for row in able if (ease := self._ease_as(row, plan))]
        # A model that knows only a list of things is the last resort.
        best = max(fitting, key=lambda one: (not one[1].draws, one[0]), default=None)
        return None if best is None else best[1].name

    def _ease(self, plan: EngineJob, spec: ModelSpec) -> int:
        """2 if it fits, 1 if it fits with low_ram, 0 if not."""
        if self.fits(plan, spec):
            return 2
        return int(isinstance(plan, Generate) and self.spared(plan, spec) is not plan)

    def _ease_as(self, row: ModelSpec, plan: EngineJob) -> int:
        quantize = row.quantize or (None if row.stored_bits else plan.quantize)
        return self._ease(plan.model_copy(update={"model": row.name, "quantize": quantize}), row)

    def _size(self, plan: EngineJob, spec: ModelSpec) -> tuple[int, int] | None:
        """The largest image of the same proportions that fits; None if no size would."""
        if isinstance(plan, Load) or spec.native_px is not None:
            return None
        if isinstance(plan, Generate) and plan.second_pass is not None:
            return None
        step = spec.step_px if isinstance(plan, Generate) else 2
        least, most = -(-SMALLEST_PX // step), min(plan.width_px, plan.height_px) // step
        fitting = None
        while least <= most:
            middle = (least + most) // 2
            size = _scaled(plan, middle * step, step)
            update: dict[str, int] = {"width_px": size[0], "height_px": size[1]}
            if self._ease(plan.model_copy(update=update), spec):
                fitting, least = size, middle + 1
            else:
                most = middle - 1
        return fitting

    def _variant(self, plan: EngineJob, spec: ModelSpec) -> ModelSpec | None:
        """The variant of the same weights with the most bits that fits; one on disk before others."""
        now = self.footprint(plan, spec).peak
        fitting = []
        for row in self._library.specs:
            bits = row.stored_bits or row.quantize
            same = (row.family, row.geometry, row.task) == (spec.family, spec.geometry, spec.task)
            if spec.family in STABLE_DIFFUSION:  # one architecture has many checkpoints
                same = self._library.weights(row.name) == self._library.weights(spec.name)
            if not same or bits is None or row.unavailable is not None:
                continue
            as_row = plan.model_copy(update={"model": row.name, "quantize": row.quantize})
            ease = self._ease(as_row, row)
            if ease and self.footprint(as_row, row).peak < now:
                fitting.append((ease, self._library.on_disk(row), bits, row))
        return max(fitting, key=lambda one: one[:3])[3] if fitting else None


def _can(row: ModelSpec, plan: EngineJob) -> bool:
    """Whether the model accepts the plan's inputs."""
    if not isinstance(plan, Generate):
        return True
    if plan.control is not None or row.control is not None or len(plan.references) > row.max_references:
        return False
    masked = plan.mask is not None and not row.masks
    return not masked and (row.init_image or (plan.init_image is None and plan.second_pass is None))


def _scaled(plan: Generate | Upscale, short_px: int, step: int) -> tuple[int, int]:
    """The plan's proportions with the shorter side as given, the other one rounded down to the step."""
    width, height = plan.width_px, plan.height_px
    if width <= height:
        return short_px, max(short_px, height * short_px // width // step * step)
    return max(short_px, width * short_px // height // step * step), short_px
