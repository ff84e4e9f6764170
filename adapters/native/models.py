"""Endpoints of models: list, status, download, load, unload, remove, clear a quarantine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapters.native.jobs import show_job
from adapters.native.model_schemas import (
    Capabilities,
    Cleared,
    DownloadShown,
    EmbeddingShown,
    Models,
    ModelShown,
    ModelStatus,
    Removed,
    Unloaded,
)
from adapters.native.request_schemas import LoadQuery
from adapters.native.requests import PROTOCOL, to_origin
from adapters.native.responses import to_bytes
from adapters.shared.body import query
from adapters.shared.context import core_of, is_attached, owner_of
from engine.catalog import ModelSpec
from engine.protocol import Sampling
from gateway.context import Core
from gateway.jobs.origin import Origin
from gateway.jobs.resolve_sampling import default_schedule, is_sampled
from gateway.jobs.samplers import SAMPLERS, SCHEDULES
from gateway.models.embedding_files import EmbeddingFile
from gateway.models.folders import record_of
from gateway.models.weights import sha256_of


async def list_models(request: Request) -> Response:
    """GET models: List the models, those that are not on this machine included, VAE files and textual inversions."""
    core = core_of(request)
    await asyncio.to_thread(core.library.refresh)
    downloads = {spec.name: to_download(core, spec) for spec in core.library.specs}

    def rows() -> list[ModelShown]:
        specs = [(spec.name, spec) for spec in core.library.specs]
        specs += [(alias, core.library.find(alias)) for alias in core.library.aliases]
        return [to_model(core, name, spec, downloads.get(spec.name)) for name, spec in specs]

    answer: Models = {
        "models": await asyncio.to_thread(rows),
        "vaes": [one.name for one in core.library.vaes.all()],
        "embeddings": [_to_embedding(one) for one in core.library.embeddings.all()],
    }
    return JSONResponse(answer)


def _to_embedding(one: EmbeddingFile) -> EmbeddingShown:
    assert one.header is not None
    return {"name": one.name, "vectors": one.header.vectors, "widths": list(one.header.widths)}


def to_model(core: Core, name: str, spec: ModelSpec, download: DownloadShown | None) -> ModelShown:
    """Reads folders: call it in a thread."""
    folder = _find_folder(core, spec)
    checkpoint = core.library.checkpoints.get(spec.name)
    sha256 = core.library.checkpoints.sha256(checkpoint) if checkpoint is not None else None
    if folder is not None and checkpoint is None:
        sha256 = sha256_of(folder)
    return {
        "title": name,
        "model_name": spec.repo or spec.name,
        "hash": None if sha256 is None else sha256[:10],
        "sha256": sha256,
        "config": {
            "base_arch": spec.family.removesuffix("_tiny"),
            "supports_guidance": spec.guidance_range[0] < spec.guidance_range[1],
            "max_sequence_length": spec.max_sequence,
        },
        "downloaded": folder is not None,
        "removable": folder is not None and record_of(folder) is not None,
        "download": None if folder is not None else download,
        "size_gb": spec.size_gb,
        "description": spec.description,
        "licence": spec.licence,
        "gated": spec.gated,
        "revision": spec.revision,
        "stored_bits": spec.stored_bits,
        "default": spec.name == core.library.default,
        "quantize": spec.quantize or core.settings.models.quantize,
        "default_steps": core.settings.generation.default_steps or spec.default_steps,
        "max_references": spec.max_references,
        "unavailable": spec.unavailable,
        "capabilities": to_capabilities(core, spec),
        "alias_of": spec.name if name != spec.name else None,
    }


def _find_folder(core: Core, spec: ModelSpec) -> Path | None:
    """Blocks."""
    return core.library.find_folder(spec) if core.library.on_disk(spec) else None


def to_capabilities(core: Core, spec: ModelSpec) -> Capabilities:
    limits = core.settings.generation.limits.of(spec)
    as_sent = not spec.distilled or (core.settings.models.steps_as_sent and not spec.fixed_steps)
    low, high = spec.guidance_range
    sampled = is_sampled(spec)
    return {
        "task": spec.task,
        "default_px": spec.default_px,
        "native_px": spec.native_px,
        "step_px": spec.step_px,
        "min_px": limits.min_px,
        "max_px": limits.max_px,
        "max_pixels": limits.max_pixels,
        "default_steps": core.settings.generation.default_steps or spec.default_steps,
        "min_steps": spec.min_steps,
        "max_steps": limits.max_steps if as_sent else min(limits.max_steps, spec.useful_max_steps),
        "default_guidance": spec.default_guidance,
        "guidance_range": [low, min(high, limits.max_guidance)],
        "guidance": low < high,
        "negative_prompt": spec.negative_prompt,
        "init_image": spec.init_image,
        "mask": spec.masks,
        "needs_mask": spec.needs_mask,
        "max_references": spec.max_references,
        "needs_reference": spec.needs_reference,
        "lora": spec.lora,
        "control": spec.control,
        "draws": list(spec.draws),
        "samplers": [sampler.name for sampler in SAMPLERS] if sampled else [],
        "schedules": [schedule.label for schedule in SCHEDULES] if sampled else [],
        "unscheduled_samplers": [one.name for one in SAMPLERS if not one.has_schedule] if sampled else [],
        "default_sampler": Sampling().sampler if sampled else None,
        "default_schedule": default_schedule(spec) if sampled else None,
        "clip_skip": spec.family == "sd1",
        "text_widths": list(core.library.files.text_widths(spec)),
    }


def to_download(core: Core, spec: ModelSpec) -> DownloadShown | None:
    download = core.service.downloads.progress.of(spec)
    if download is None:
        return None
    fact = download.fact
    size = None if fact is None else to_bytes(fact)
    return {
        "job_id": download.job_id,
        "status": "downloading" if download.is_running else "queued",
        "done_bytes": None if fact is None else fact.done_bytes,
        "total_bytes": None if fact is None else fact.total_bytes,
        "bytes_per_second": None if size is None else size["bytes_per_second"],
        "percent": None if size is None else size["percent"],
        "eta_seconds": None if download.seconds_left is None else round(download.seconds_left, 2),
    }


async def get_status(request: Request) -> Response:
    """GET models/{id}/status: Tell whether a model is here or on its way, and whether it is in memory."""
    core = core_of(request)
    name = request.path_params["model_id"]
    spec = core.library.find(name)

    folder = await asyncio.to_thread(_find_folder, core, spec)
    download = None if folder is not None else to_download(core, spec)
    answer: ModelStatus = {
        "model": name,
        "status": _status(core, spec, folder, download),
        "downloaded": folder is not None,
        "download": download,
        "loaded": spec.name in core.service.engines.loaded_models,
        "size_gb": spec.size_gb,
        "path": None if folder is None else folder.name,
    }
    return JSONResponse(answer)


def _status(
    core: Core, spec: ModelSpec, folder: Path | None, download: DownloadShown | None
) -> Literal["ready", "loading", "unavailable", "downloading", "missing"]:
    if folder is None:
        served = spec.unavailable is None
        return "downloading" if download is not None else "missing" if served else "unavailable"
    if core.service.residency.is_set_aside(folder):
        return "unavailable"
    return "loading" if is_loading(core, spec) else "ready"


async def pull(request: Request) -> Response:
    """POST models/{id}/pull: Bring a model from the hub to this machine; one download for all who ask.

    The job ends at once where the model is here; DELETE of the job stops it, and what has come is kept for the next.
    """
    core = core_of(request)
    origin = Origin(owner=owner_of(request), protocol=PROTOCOL, attached=is_attached(request))
    job = await core.service.models.pull(request.path_params["model_id"], origin)
    return JSONResponse(await show_job(request, job))


async def remove(request: Request) -> Response:
    """DELETE models/{id}: Remove the weights that this gateway downloaded; 409 while the model is in use."""
    name = request.path_params["model_id"]
    await core_of(request).service.models.remove(name, owner_of(request))
    answer: Removed = {"model": name, "removed": True}
    return JSONResponse(answer)


async def load(request: Request) -> Response:
    """POST models/{id}/load: Make a job that brings a model into memory; it waits its turn like any other."""
    core = core_of(request)
    origin = to_origin(request)
    job = await core.service.submit_load(request.path_params["model_id"], origin, query(LoadQuery, request).memory)
    return JSONResponse(await show_job(request, job))


async def unload(request: Request) -> Response:
    """POST models/{id}/unload: Give a model's memory back once no job uses it; the next one loads it again."""
    name = request.path_params["model_id"]
    was_loaded = await core_of(request).service.models.unload(owner_of(request), name)
    answer: Unloaded = {"model": name, "unloaded": was_loaded}
    return JSONResponse(answer)


async def clear_quarantine(request: Request) -> Response:
    """DELETE models/{id}/quarantine: Trust a model again that was set aside for stopping the engine while it loaded."""
    name = request.path_params["model_id"]
    cleared = await core_of(request).service.models.clear_quarantine(name, owner_of(request))
    answer: Cleared = {"model": name, "cleared": cleared}
    return JSONResponse(answer)


def is_loading(core: Core, spec: ModelSpec) -> bool:
    jobs = [job for job in core.service.engines.running_jobs() if job.plan.model == spec.name]
    progress = [core.service.events.progress(job.id) for job in jobs]
    return any(one is not None and one.phase == "loading" for one in progress)
