"""Residency manager: memory, copies and quarantine for the service and the engine's lane; stores what it learns."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from engine.catalog import ModelSpec
from engine.protocol import Generate, Load, Memory, Run, Save, Upscale
from gateway.errors import ModelUnavailable
from gateway.jobs.plans import EngineJob
from gateway.models.library import Library
from gateway.residency.admission import Admission
from gateway.residency.footprint import Peaks
from gateway.residency.quantized_copies import Copies
from gateway.residency.quarantine import Quarantine
from gateway.residency.shortage import Shortage
from gateway.store.base import JobStore

log = logging.getLogger("gateway.residency")

UNLIMITED = 2**62
PEAKS, SET_ASIDE = "peaks", "quarantine"
"""Names under which the store has what was learned."""


@dataclass(frozen=True, slots=True)
class ResidencyOptions:
    """Settings of the residency manager."""

    models_dir: Path = Path("models")
    keep_quantized: bool = True
    memory_is_set: bool = False
    """The engine's memory limit is set by the operator."""
    idle_unload_s: float | None = None
    expected_bytes: int | None = None
    """The device's expected limit, until the engine reports it."""
    decode_beside: bool | None = None
    """Whether an image may be decoded beside the next one; None: on a CPU."""
    node: str = ""
    """The node's name, where several share a store: each learns of its own device and folders."""


@dataclass(frozen=True, slots=True)
class Beside:
    """What is done while an image is decoded, where there is memory for both."""

    images: bool
    """The steps of the job's next image."""
    end: bool
    """The next job, while the job's last image is decoded."""
    begin: bool
    """The job itself, while the last image of the job before is decoded."""


class ResidencyManager:
    """Residency manager. Belongs to one event loop."""

    def __init__(
        self,
        *,
        store: JobStore,
        library: Library,
        device: Callable[[], tuple[str | None, int | None]],
        options: ResidencyOptions,
    ) -> None:
        self._store = store
        self._library = library
        self._peaks = Peaks()
        self._kept_version = 0
        self._quarantine = Quarantine()
        self.admission = Admission(
            library, device, self._peaks, is_set=options.memory_is_set, expected_bytes=options.expected_bytes
        )
        self.copies = Copies(options.models_dir.resolve(), keep=options.keep_quantized)
        self.idle_unload_s = options.idle_unload_s
        self._device = device
        self._decode_beside = options.decode_beside
        self._suffix = f" {options.node}" if options.node else ""

    async def start(self) -> None:
        """Read what was learned, and remove half-written copies of an earlier process."""
        await asyncio.to_thread(self.copies.sweep)
        for name, read in ((PEAKS, self._peaks.read_json), (SET_ASIDE, self._quarantine.read_json)):
            text = await self._store.read_state(name + self._suffix)
            try:
                if text is not None:
                    read(json.loads(text))
            except (ValueError, KeyError, TypeError, AttributeError):
                log.exception("the stored %s cannot be read; learning starts again", name)
        self._kept_version = self._peaks.version

    async def keep(self) -> None:
        """Store what was learned; a full disk loses nothing else."""
        if self._peaks.version != self._kept_version:
            self._kept_version = self._peaks.version
            await self._keep(PEAKS, json.dumps(self._peaks.to_json()))

    async def _keep(self, name: str, text: str) -> None:
        try:
            await self._store.save_state(name + self._suffix, text)
        except Exception:
            log.exception("%s could not be kept", name)

    def admission_within(self, limit_bytes: Callable[[], int | None]) -> Admission:
        """The admission of jobs to a memory of that many bytes; None: unknown, so that every job is admitted."""

        def device() -> tuple[str | None, int]:
            return self._device()[0], UNLIMITED if (limit := limit_bytes()) is None else limit

        return Admission(self._library, device, self._peaks, is_set=True)

    # ---- before a job ----------------------------------------------------------------------------

    def admit(self, plan: EngineJob, spec: ModelSpec) -> Shortage | None:
        """The shortage of a job that seems not to fit but is to be tried. Blocks.

        Raises: ModelUnavailable, InsufficientMemory. For a model that is not downloaded yet only memory is checked.
        """
        folder = self._library.find_folder(spec)
        if folder is not None and self._quarantine.holds(folder):
            raise ModelUnavailable(
                f"'{spec.name}' stopped the engine twice while it was loaded. It is set aside until its files change "
                "or an operator clears it.",
                param="model",
            )
        return self.admission.check(plan, spec)

    def copy_of(self, plan: EngineJob, spec: ModelSpec, folder: Path) -> Path | None:
        """The folder with the model's quantised copy, if there is one. Blocks."""
        return None if plan.quantize is None else self.copies.find(spec, folder, plan.quantize)

    def _may_decode_beside(self, plan: EngineJob) -> TypeGuard[Generate]:
        may = self._decode_beside if self._decode_beside is not None else self._device()[0] == "cpu"
        return may and isinstance(plan, Generate) and not plan.low_ram

    def decodes_beside(self, plan: EngineJob, spec: ModelSpec) -> bool:
        """Whether the images of a plan are decoded beside the next one: there is memory for both. Blocks."""
        return self._may_decode_beside(plan) and len(plan.seeds) > 1 and self.admission.fits(plan, spec, beside=True)

    def beside(self, plan: EngineJob, spec: ModelSpec, former: Generate | None = None) -> Beside:
        """What is done beside decoding; `former` is a plan whose last image is still decoded. Blocks."""
        if not self._may_decode_beside(plan):
            return Beside(images=False, end=False, begin=False)
        images = self.decodes_beside(plan, spec)
        begin = former is not None and self._fits_beside(plan, spec, former, images=images)
        return Beside(images=images, end=self.admission.fits(plan, spec), begin=begin)

    def _fits_beside(self, plan: Generate, spec: ModelSpec, former: Generate, *, images: bool) -> bool:
        """Whether there is memory for the images of two plans with the same weights. Blocks."""
        former_spec = self._library.find(former.model)
        weights = self._library.weights
        if (weights(former.model), former.quantize) != (weights(plan.model), plan.quantize):
            return False  # the decoding ends before a load
        needed = self.admission.footprint(plan, spec, beside=images)
        decoded = self.admission.footprint(former, former_spec)
        return max(needed.load, needed.weights + needed.image + decoded.image) <= self.admission.limit_bytes

    def _wants_copy(self, run: Run) -> bool:
        """Whether a quantised copy should be saved. Blocks."""
        if run.plan.quantize is None or isinstance(run.plan, Save):
            return False
        if isinstance(run.plan, Generate) and run.plan.low_ram:
            return False  # the whole model is never in memory
        size = self.admission.footprint(run.plan, run.spec).weights
        return self.copies.wants(run.spec, Path(run.model_path), run.plan.quantize, size)

    def is_set_aside(self, folder: Path) -> bool:
        return self._quarantine.holds(folder)

    async def clear(self, folder: Path) -> bool:
        """Take a model out of quarantine; returns whether it was in it."""
        cleared = self._quarantine.clear(folder)
        await self._keep(SET_ASIDE, json.dumps(self._quarantine.to_json()))
        return cleared

    # ---- events ----------------------------------------------------------------------------------

    def on_memory(self, run: Run, memory: Memory) -> None:
        """Learn from the memory of a run."""
        match run.plan, memory.after:
            case (Generate() | Upscale() | Load()) as plan, "load":
                self._peaks.learn_load(plan, memory.active_bytes, memory.peak_bytes)
            case (Generate() | Upscale()) as plan, "picture":
                bytes_used = memory.active_bytes, memory.peak_bytes
                self._peaks.learn_image(plan, run.spec, *bytes_used, beside=run.decode_beside)
            case _:
                pass

    async def note_death_at_load(self, run: Run) -> None:
        """Note that the engine crashed while loading. A copy is made again; a model gets only a few tries."""
        if run.copy_path is not None:
            await asyncio.to_thread(self.copies.discard, Path(run.copy_path))
        elif self._quarantine.note(Path(run.model_path)):
            log.error("%s is set aside: it stopped the engine twice while it was loaded", run.spec.name)
        await self._keep(SET_ASIDE, json.dumps(self._quarantine.to_json()))

    async def note_loaded(self, run: Run, *, from_copy: bool) -> bool:
        """Note a successful load, which clears the deaths of this model. Whether a copy should be saved now."""
        if run.copy_path is not None and not from_copy:
            await asyncio.to_thread(self.copies.discard, Path(run.copy_path))
        if self._quarantine.clear(Path(run.model_path)):
            await self._keep(SET_ASIDE, json.dumps(self._quarantine.to_json()))
        return not from_copy and await asyncio.to_thread(self._wants_copy, run)
