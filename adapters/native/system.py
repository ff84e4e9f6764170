"""Endpoints of the gateway itself: its health, its machine, its findings, its statistics."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from typing import cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapters.native.response_schemas import (
    DamagedRecords,
    DefaultShown,
    EngineShown,
    Findings,
    FindingShown,
    Health,
    MemoryShown,
    Stats,
    System,
)
from adapters.native.responses import STATUS
from adapters.shared.context import core_of, owner_of
from gateway import __version__
from gateway.context import Core
from gateway.findings import findings_of
from gateway.jobs.job import State
from gateway.machine import Memory, memory
from gateway.residency.default import DefaultModel

GIB = 2**30
GB = 10**9
IDS_MOST = 100


async def get_health(request: Request) -> Response:
    """GET health: 200 as long as the gateway answers; `status` tells of the engine."""
    core = core_of(request)
    stats = await core.service.stats()

    def count_models() -> int:
        return sum(core.library.on_disk(spec) for spec in core.library.specs)

    answer: Health = {
        "status": "unhealthy" if core.service.engine.state == "down" else "healthy",
        "version": __version__,
        "models_available": await asyncio.to_thread(count_models),
        "default_model": core.library.default,
        "embedded": core.draws_embedded,
        "active_jobs": stats.by_state.get(State.RUNNING, 0),
        "queue_length": stats.by_state.get(State.QUEUED, 0),
        "engine": to_engine(core),
    }
    return JSONResponse(answer)


async def get_system(request: Request) -> Response:
    """GET system: Tell what draws, and how much memory there is."""
    core = core_of(request)
    mlx_memory = core.service.engine.memory
    stats = await core.service.stats()
    fault = await core.service.health.storage_fault()
    answer: System = {
        "active_model": core.service.engine.loaded_model,
        "mlx_memory_gb": None if mlx_memory is None else in_gib(mlx_memory.active_bytes),
        "mlx_peak_memory_gb": None if mlx_memory is None else in_gib(mlx_memory.peak_bytes),
        "system_memory_gb": to_memory(await asyncio.to_thread(memory)),
        "device": core.service.engine.device,
        "default_model": to_default(await asyncio.to_thread(lambda: core.default_model)),
        "engine": to_engine(core),
        "queue_depth": stats.by_state.get(State.QUEUED, 0),
        "damaged_records": await to_damaged_records(request),
        "storage_fault": None if fault is None else fault.message,
    }
    return JSONResponse(answer)


async def list_findings(request: Request) -> Response:
    """GET findings: Tell what is wrong with the gateway, and what to do."""
    findings = await findings_of(core_of(request))
    answer: Findings = {"findings": [cast(FindingShown, asdict(finding)) for finding in findings]}
    return JSONResponse(answer)


async def get_stats(request: Request) -> Response:
    """GET stats: Count the jobs on record, whosever they are."""
    core = core_of(request)
    stats = await core.service.stats()
    record = core.service.events.forecast_record
    done = stats.by_state.get(State.SUCCEEDED, 0)
    answer: Stats = {
        "total_generations": done,
        "total_images": stats.images,
        "average_time_seconds": round(stats.drawing_seconds / done, 3) if done else None,
        "uptime_hours": round((time.monotonic() - core.started_at) / 3600, 4),
        "by_status": {status: stats.by_state.get(state, 0) for state, status in STATUS.items()},
        "forecast": {
            "count": record.count,
            "median_error": round_ratio(record.median_error),
            "median_wait_error": round_ratio(record.median_wait_error),
            "coverage": round_ratio(record.coverage),
        },
    }
    return JSONResponse(answer)


async def to_damaged_records(request: Request) -> DamagedRecords:
    count, names = await core_of(request).service.health.damaged(owner_of(request))
    return {"count": count, "ids": names[:IDS_MOST]}


def round_ratio(ratio: float | None) -> float | None:
    return None if ratio is None else round(ratio, 4)


def to_default(default: DefaultModel) -> DefaultShown:
    return {
        "name": default.name,
        "chosen_by": "operator" if default.is_set else "gateway",
        "needed_gb": round(default.needed_bytes / GB, 1),
        "limit_gb": round(default.limit_bytes / GB, 1),
        "limit_from": default.source,
        "fits": default.fits,
        "low_ram": default.low_ram,
        "suggestion": default.suggestion,
        "any_prompt": default.any_prompt,
        "sentence": default.sentence,
    }


def to_engine(core: Core) -> EngineShown:
    engine = core.service.engine
    return {"state": engine.state, "device": engine.device, "reason": engine.reason}


def to_memory(machine: Memory) -> MemoryShown:
    free = machine.free_bytes
    return {
        "total": in_gib(machine.total_bytes),
        "used": None if free is None else in_gib(machine.total_bytes - free),
        "free": None if free is None else in_gib(free),
    }


def in_gib(size_bytes: int) -> float:
    return round(size_bytes / GIB, 3)
