"""Whether there is memory for a job, before it is taken and again before it runs; and what to do where there is not."""

from __future__ import annotations

from collections.abc import Callable

from engine.catalog import EMBEDDED, ModelSpec
from engine.protocol import EngineJob, Generate, Load
from gateway.errors import InsufficientMemory
from gateway.library import Library
from gateway.machine import total_bytes
from gateway.residency.footprint import GB, Footprint, Peaks, guess
from gateway.weights import stored_bits, weights_bytes

MEMORY_SHARE = 0.9
"""Of the machine's memory, where the device names no limit of its own."""


class Admission:
    """`device` says what the engine computes on, None before it is ready, and its limit in bytes where there is one."""

    def __init__(
        self, library: Library, device: Callable[[], tuple[str | None, int | None]], peaks: Peaks, *, is_set: bool
    ) -> None:
        self._library = library
        self._device = device
        self._peaks = peaks
        self._is_set = is_set

    @property
    def limit_bytes(self) -> int:
        """The setting, else what the device says, else most of the machine's memory; what went well once counts."""
        _, said = self._device()
        limit = said if said is not None else int(MEMORY_SHARE * total_bytes())
        return limit if self._is_set else max(limit, self._peaks.most)

    def footprint(self, plan: EngineJob, spec: ModelSpec) -> Footprint:
        """Reads sizes from disk: milliseconds."""
        folder = self._library.find_folder(spec)
        # Of a model in several repositories the catalogue alone knows the whole.
        known = folder is not None and not spec.also and stored_bits(folder) is None and spec.stored_bits is None
        disk_bytes = weights_bytes(folder) if folder is not None and known else None
        guessed = guess(plan, spec, disk_bytes=disk_bytes, is_float32=self._device()[0] == "cpu")
        return self._peaks.correct(plan, spec, guessed)

    def fits(self, plan: EngineJob, spec: ModelSpec) -> bool:
        return self.footprint(plan, spec).peak <= self.limit_bytes

    def check(self, plan: EngineJob, spec: ModelSpec) -> None:
        """Raises: InsufficientMemory with a suggestion."""
        needed, limit = self.footprint(plan, spec).peak, self.limit_bytes
        if needed > limit:
            details = {
                "suggestion": self.advice(plan, spec),
                "needed_gb": round(needed / GB, 1),
                "available_gb": round(limit / GB, 1),
            }
            raise InsufficientMemory(param="model", details=details)

    def advice(self, plan: EngineJob, spec: ModelSpec) -> str:
        """What would fit: the best variant of the model, tiles, less of a picture."""
        ways = []
        if (variant := self._variant(plan, spec)) is not None:
            ways.append(f"Use {variant.name}")
        sparing = isinstance(plan, Generate) and not plan.low_ram
        if sparing and self.fits(plan.model_copy(update={"low_ram": True}), spec):
            ways.append("set low_ram=true")
        if not ways and not isinstance(plan, Load) and self.footprint(plan, spec).weights < self.limit_bytes:
            ways.append("Use a smaller size")
        text = " or ".join(ways) or f"Use {EMBEDDED}, or a machine with more memory"
        return text[0].upper() + text[1:]

    def _variant(self, plan: EngineJob, spec: ModelSpec) -> ModelSpec | None:
        """The most exact smaller one of the same weights that fits; one that is on disk before others."""
        now = self.footprint(plan, spec).peak
        found = []
        for row in self._library.specs:
            bits = row.stored_bits or row.quantize
            same = (row.family, row.geometry, row.task) == (spec.family, spec.geometry, spec.task)
            if not same or bits is None or row.unavailable is not None:
                continue
            taken = self.footprint(plan.model_copy(update={"model": row.name, "quantize": row.quantize}), row).peak
            if taken < now and taken <= self.limit_bytes:
                found.append((self._library.on_disk(row), bits, row))
        return max(found, key=lambda one: one[:2])[2] if found else None
