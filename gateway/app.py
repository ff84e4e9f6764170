"""The HTTP application: every adapter's routes behind one guard. No protocol is spoken here but the health checks."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from engine.client import Engine, EngineOptions
from gateway import __version__
from gateway.access import Guard
from gateway.core import Core
from gateway.errors import GatewayError, InternalError, MethodNotAllowed, NotFound
from gateway.images import PictureDecoder
from gateway.library import Library, LocalModel
from gateway.pictures import Pictures
from gateway.request import Limits
from gateway.service import JobService, ServiceOptions
from gateway.settings import Settings
from gateway.store.base import Bounds
from gateway.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from adapters.base import Adapter

log = logging.getLogger("gateway.app")


def build_core(settings: Settings) -> Core:
    """Wire one gateway together; nothing starts and nothing is opened. Raises: ModelNotFound for a bad default."""
    library = Library(
        Path(settings.models.cache_dir),
        default=settings.models.default,
        aliases=settings.models.aliases,
        local={name: LocalModel(Path(model.path), model.like) for name, model in settings.models.local.items()},
    )
    pictures = Pictures(Path(settings.generation.output_dir).resolve())
    data = Path(settings.store.data_dir).resolve()
    engine = settings.engine
    service = JobService(
        store=SqliteStore(data),
        engine=Engine(
            EngineOptions(
                backend=engine.backend,
                fake_script=engine.fake_script,
                start_s=engine.start_s,
                load_s=engine.load_s,
                step_floor_s=engine.step_floor_s,
                decode_s=engine.decode_s,
                cancel_grace_s=engine.cancel_grace_s,
            )
        ),
        library=library,
        pictures=pictures,
        spool=data / "spool",
        options=_service_options(settings),
    )
    return Core(settings=settings, service=service, library=library, pictures=pictures, decoder=PictureDecoder())


def _service_options(settings: Settings) -> ServiceOptions:
    generation, retention = settings.generation, settings.retention
    return ServiceOptions(
        limits=Limits(max_count=generation.max_batch_size),
        bounds=Bounds(
            waiting=settings.queue.waiting,
            waiting_per_owner=settings.queue.waiting_per_owner if settings.access.keys_file else None,
        ),
        quantize=settings.models.quantize,
        default_steps=generation.default_steps,
        steps_as_sent=settings.models.steps_as_sent,
        retention_s=retention.days * 86400.0,
        retained_jobs=retention.jobs,
        pictures_quota_bytes=int(retention.quota_gb * 2**30),
    )


def build_app(core: Core, adapters: Sequence[Adapter]) -> ASGIApp:
    """The ASGI application of a gateway: guard, errors, routes."""

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        core.pictures.prepare()
        await core.service.start()
        try:
            yield
        finally:
            await core.service.stop()
            await core.decoder.close()

    def adapter_of(path: str) -> Adapter | None:
        owners = [a for a in adapters if path == a.prefix or path.startswith(a.prefix + "/")]
        return max(owners, key=lambda a: len(a.prefix), default=None)

    def render(path: str, error: GatewayError) -> Response:
        adapter = adapter_of(path)
        response = adapter.render_error(error) if adapter else _plain_error(error)
        if error.retry_after_s is not None:
            response.headers["Retry-After"] = str(error.retry_after_s)
        return response

    async def on_error(request: Request, error: Exception) -> Response:
        match error:
            case GatewayError():
                known = error
            case HTTPException(status_code=405):
                known = MethodNotAllowed()
            case HTTPException(status_code=404):
                known = NotFound()
            case _:
                log.error("unexpected error", exc_info=error)
                known = InternalError()
        return render(request.url.path, known)

    routes = [Route("/health/live", live), Route("/health/ready", ready)]
    for adapter in adapters:
        routes.extend(adapter.routes)
    router = Router(routes, lifespan=lifespan, redirect_slashes=False)
    image_paths = {path for adapter in adapters for path in adapter.image_paths}
    open_paths = {"/health/live"} | {path for adapter in adapters for path in adapter.open_paths}
    picture_prefixes = tuple(a.picture_prefix for a in adapters if a.picture_prefix)
    http = core.settings.http
    guarded = Guard(
        ExceptionMiddleware(router, handlers={HTTPException: on_error, Exception: on_error}),
        core.settings,
        render=render,
        body_limit=lambda path: http.image_body_bytes if path in image_paths else http.default_body_bytes,
        is_picture_path=lambda path: path.startswith(picture_prefixes) if picture_prefixes else False,
        is_open_path=lambda path: path in open_paths,
    )

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope.setdefault("state", {})["core"] = core
        await guarded(scope, receive, send)

    return app


async def live(request: Request) -> Response:
    """The loop answers."""
    return JSONResponse({"status": "alive"})


async def ready(request: Request) -> Response:
    """The store can be read and the engine is there (R-21); 503 with the reason where not."""
    core: Core = request.state.core
    await core.service.stats()
    engine = core.service.engine
    is_ready = engine.state in ("ready", "busy")
    body = {"status": "ready" if is_ready else "not_ready", "engine": engine.state, "reason": engine.reason}
    return JSONResponse({**body, "version": __version__}, status_code=200 if is_ready else 503)


def _plain_error(error: GatewayError) -> Response:
    return JSONResponse({"error": {"code": error.code, "message": error.message}}, status_code=error.status)
