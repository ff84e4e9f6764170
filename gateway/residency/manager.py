"""The one the service and the engine's lane ask about memory, copies and models set aside; keeps what it learned."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

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

PEAKS, SET_ASIDE = "peaks", "quarantine"
"""Under which the store keeps what was learned."""


@dataclass(frozen=True, slots=True)
class ResidencyOptions:
    """What of the settings it goes by."""

    models_dir: Path = Path("models")
    keep_quantized: bool = True
    memory_is_set: bool = False
    """The engine's memory limit is the operator's word."""
    idle_unload_s: float | None = None
    expected_bytes: int | None = None
    """What the device is expected to give, until the engine says it."""


class ResidencyManager:
    """Belongs to one event loop."""

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

    async def start(self) -> None:
        """Remember what was learned, and remove what an earlier process left half-written."""
        await asyncio.to_thread(self.copies.sweep)
        for name, read in ((PEAKS, self._peaks.read_json), (SET_ASIDE, self._quarantine.read_json)):
            kept = await self._store.kept(name)
            try:
                if kept is not None:
                    read(json.loads(kept))
            except (ValueError, KeyError, TypeError, AttributeError):
                log.exception("what was kept as %s cannot be read; it begins anew", name)
        self._kept_version = self._peaks.version

    async def keep(self) -> None:
        """Store what was learned; a disk that is full costs no more than that."""
        if self._peaks.version != self._kept_version:
            self._kept_version = self._peaks.version
            await self._keep(PEAKS, json.dumps(self._peaks.to_json()))

    async def _keep(self, name: str, text: str) -> None:
        try:
            await self._store.keep(name, text)
        except Exception:
            log.exception("%s could not be kept", name)

    # ---- before a job ----------------------------------------------------------------------------

    def admit(self, plan: EngineJob, spec: ModelSpec) -> Shortage | None:
        """What is known of a job that is to be tried though it seems not to fit. Blocks.

        Raises: ModelUnavailable, InsufficientMemory. A model that is not here yet is only measured.
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
        """Where the model lies quantised already. Blocks."""
        return None if plan.quantize is None else self.copies.find(spec, folder, plan.quantize)

    def _wants_copy(self, run: Run) -> bool:
        """Blocks."""
        if run.plan.quantize is None or isinstance(run.plan, Save):
            return False
        if isinstance(run.plan, Generate) and run.plan.low_ram:
            return False  # it is never whole in memory
        size = self.admission.footprint(run.plan, run.spec).weights
        return self.copies.wants(run.spec, Path(run.model_path), run.plan.quantize, size)

    def is_set_aside(self, folder: Path) -> bool:
        return self._quarantine.holds(folder)

    async def clear(self, folder: Path) -> bool:
        """Trust a model again that was set aside; whether it was."""
        cleared = self._quarantine.clear(folder)
        await self._keep(SET_ASIDE, json.dumps(self._quarantine.to_json()))
        return cleared

    # ---- what happened ---------------------------------------------------------------------------

    def on_memory(self, run: Run, memory: Memory) -> None:
        """What a run held."""
        match run.plan, memory.after:
            case (Generate() | Upscale() | Load()) as plan, "load":
                self._peaks.learn_load(plan, memory.active_bytes, memory.peak_bytes)
            case (Generate() | Upscale()) as plan, "picture":
                self._peaks.learn_picture(plan, run.spec, memory.active_bytes, memory.peak_bytes)
            case _:
                pass

    async def note_death_at_load(self, run: Run) -> None:
        """The engine crashed while it loaded this. A copy is simply made anew; a model is not tried for ever."""
        if run.copy_path is not None:
            await asyncio.to_thread(self.copies.discard, Path(run.copy_path))
        elif self._quarantine.note(Path(run.model_path)):
            log.error("%s is set aside: it stopped the engine twice while it was loaded", run.spec.name)
        await self._keep(SET_ASIDE, json.dumps(self._quarantine.to_json()))

    async def note_loaded(self, run: Run, *, from_copy: bool) -> bool:
        """It can be loaded: what was against it is forgotten. Whether a copy of it should be saved now."""
        if run.copy_path is not None and not from_copy:
            await asyncio.to_thread(self.copies.discard, Path(run.copy_path))
        if self._quarantine.clear(Path(run.model_path)):
            await self._keep(SET_ASIDE, json.dumps(self._quarantine.to_json()))
        return not from_copy and await asyncio.to_thread(self._wants_copy, run)
