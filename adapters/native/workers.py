"""Endpoints of workers: the processes that run jobs, and their drain and resume."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapters.native.worker_schemas import Workers, WorkerShown
from adapters.shared.context import core_of, owner_of
from gateway.jobs.plans import NAME_OF_LANE
from gateway.service.workers import WorkerView


async def list_workers(request: Request) -> Response:
    """GET workers: Show the processes that run jobs, with their machine, models and jobs."""
    views = await core_of(request).service.workers.views(owner_of(request))
    return JSONResponse(Workers(workers=[to_worker(view) for view in views]))


async def drain(request: Request) -> Response:
    """POST workers/{name}/drain: Begin no more jobs there until it is resumed, over restarts, too."""
    view = await core_of(request).service.workers.drain(request.path_params["name"], owner_of(request))
    return JSONResponse(to_worker(view))


async def resume(request: Request) -> Response:
    """POST workers/{name}/resume: Have it run jobs again."""
    view = await core_of(request).service.workers.resume(request.path_params["name"], owner_of(request))
    return JSONResponse(to_worker(view))


def to_worker(view: WorkerView) -> WorkerShown:
    node = view.node
    return {
        "name": node.name,
        "kind": node.kind,
        "version": node.version,
        "state": node.state,
        "reason": node.reason,
        "draining": view.is_draining,
        "device": node.device,
        "memory_limit_bytes": node.memory_limit_bytes,
        "labels": dict(node.labels),
        "lanes": [NAME_OF_LANE[lane] for lane in node.lanes],
        "models": list(node.models),
        "loaded_model": node.loaded_model,
        "job_ids": list(view.jobs),
        "running_count": len(node.jobs),
        "seconds_per_image": None if view.image_s is None else round(view.image_s, 3),
        "seen_seconds_ago": round(view.seen.seen_s, 1),
    }
