"""The planner: from a request to a job to store, with its complete plan and what must be downloaded first."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from dataclasses import dataclass, replace

from engine.catalog import ModelSpec
from engine.protocol import Load, MemoryCheck
from gateway.downloads.holds import MissingLoras
from gateway.downloads.tracker import Downloads
from gateway.jobs.job import Job, NewJob
from gateway.jobs.origin import Origin
from gateway.jobs.plans import lane_of
from gateway.jobs.resolve import NO_FILES, GenerationRequest, resolve
from gateway.jobs.resolve_sampling import is_sampled
from gateway.jobs.resolve_upscale import UpscaleRequest
from gateway.jobs.resolve_upscale import resolve as resolve_upscale
from gateway.models.library import Library
from gateway.ocr.lane import OcrLane
from gateway.ocr.request import OcrRequest
from gateway.service.options import ServiceOptions
from gateway.service.sampling_files import files_of


@dataclass(frozen=True, slots=True)
class Planned:
    """A planned job, which is not stored yet."""

    new: NewJob
    missing: ModelSpec | None = None
    """The model that must be downloaded for it; None where it is on disk."""
    loras: MissingLoras = MissingLoras("", ())
    """The LoRAs that must be downloaded for it."""
    waits: bool = True
    """Whether the client waits for the downloads."""


class Planner:
    """The planner of jobs. Reads the library and the settings; stores no job."""

    def __init__(self, library: Library, downloads: Downloads, reader: OcrLane, options: ServiceOptions) -> None:
        self._library = library
        self._downloads = downloads
        self._reader = reader
        self._options = options

    async def drawing(self, request: GenerationRequest, origin: Origin) -> Planned:
        """The job of a generation request.

        Raises: InvalidRequest, ModelNotFound, ModelNotServed, ModelNotOnDisk, Forbidden.
        """
        options = self._options
        spec = self._library.find(request.model)
        missing = await self._missing(spec, origin.owner)
        if request.steps is None and options.default_steps is not None:
            request = request.model_copy(update={"steps": options.default_steps})
        loras = self._library.loras
        known = await loras.off_loop(loras.known, request.loras, spec) if request.loras else {}
        files = await asyncio.to_thread(files_of, request, spec, self._library.files) if is_sampled(spec) else NO_FILES
        resolution = resolve(
            request,
            spec,
            options.limits,
            random_seed=_random_seed,
            default_quantize=options.quantize,
            steps_as_sent=options.steps_as_sent,
            low_ram=options.low_ram,
            leniency=origin.leniency,
            known_loras=known,
            files=files,
        )
        missing_loras = await self._downloads.need_loras(resolution.plan, origin.owner)
        new = origin.new_job(resolution.plan, request.fingerprint())
        return Planned(replace(new, adjustments=resolution.adjustments), missing, missing_loras, origin.waits)

    async def upscaling(self, request: UpscaleRequest, origin: Origin) -> Planned:
        """The job of an upscale request. Raises: as drawing."""
        options = self._options
        spec = self._library.find(request.model or self.upscaler)
        missing = await self._missing(spec, origin.owner)
        plan = resolve_upscale(
            request, spec, options.limits, random_seed=_random_seed, default_quantize=options.quantize
        )
        new = origin.new_job(plan, _sha256(request.model_dump_json()))
        return Planned(new, missing, waits=origin.waits)

    @property
    def upscaler(self) -> str:
        """The default upscaling model: the first one on disk, else the first one of the catalogue."""
        rows = [spec for spec in self._library.specs if spec.task == "upscale"]
        return next((spec for spec in rows if self._library.on_disk(spec)), rows[0]).name

    async def loading(self, model: str, origin: Origin, memory: MemoryCheck = "check") -> Planned:
        """The job that loads a model. Raises: ModelNotFound, ModelNotServed, ModelNotOnDisk, Forbidden."""
        spec = self._library.find(model)
        missing = await self._missing(spec, origin.owner)
        plan = Load(model=spec.name, quantize=spec.quantize or self._options.quantize, memory=memory)
        return Planned(origin.new_job(plan, spec.name), missing, waits=origin.waits)

    async def reading(self, request: OcrRequest, document: bytes, origin: Origin) -> Planned:
        """The OCR job of a document: a checked PNG, or a PDF as it was sent. Raises: NotInstalled, InvalidRequest."""
        plan = await self._reader.plan(request, document, hashlib.sha256(document).hexdigest(), origin.owner)
        return Planned(origin.new_job(plan, _sha256(plan.model_dump_json())))

    async def again(self, job: Job, idempotency_key: str | None) -> Planned:
        """A new job with the plan of an ended one, to draw the same pixels. Raises: as loading."""
        spec = self._library.find(job.plan.model) if lane_of(job.plan) == "engine" else None
        missing = None if spec is None else await self._missing(spec, job.owner)
        origin = Origin(
            owner=job.owner,
            protocol=job.protocol,
            attached=False,
            priority=job.priority,
            idempotency_key=idempotency_key,
            note=job.note,
        )
        loras = await self._downloads.need_loras(job.plan, job.owner)
        new = origin.new_job(job.plan, "")
        return Planned(replace(new, adjustments=job.adjustments, fingerprint=job.fingerprint), missing, loras)

    async def _missing(self, spec: ModelSpec, owner: str) -> ModelSpec | None:
        return spec if await self._downloads.need(spec, owner) else None


def _random_seed() -> int:
    return secrets.randbelow(2**32)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
