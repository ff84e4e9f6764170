"""The parts of a gateway, and its HTTP application: every adapter's routes behind one guard. Knows no protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route, Router

from engine.client import Engine, EngineOptions
from gateway import __version__
from gateway.access.guard import Guard
from gateway.access.keys import Keys
from gateway.access.memory import BodyMemory
from gateway.access.rights import Rights
from gateway.asgi import App, Receive, Scope, Send
from gateway.context import Core
from gateway.errors import GatewayError, MethodNotAllowed, Misplaced, NotFound
from gateway.files.base import Files, FilesRefused
from gateway.files.folder import Folder
from gateway.files.shared import IMAGES, SharedFiles, shared_files_at
from gateway.fleet.node import NodeKind
from gateway.http.adapter import Adapter
from gateway.http.heap import HeapTrim
from gateway.http.openapi import Group, Operation
from gateway.http.paths import canonical_path, nearest
from gateway.images.codec import ImageDecoder
from gateway.images.output import OutputFolder, image_folder
from gateway.jobs.plans import NAME_OF_LANE, Lane
from gateway.models.a1111 import A1111Folders, folders_in
from gateway.models.checkpoints import CheckpointLibrary
from gateway.models.embedding_files import EmbeddingLibrary
from gateway.models.library import Library
from gateway.models.lora_repositories import HubCollection, HubLora
from gateway.models.loras import LoraLibrary
from gateway.models.user_models import HubModel, LocalModel
from gateway.models.vae_files import VaeLibrary
from gateway.ocr.client import OcrOptions
from gateway.ocr.packages import installed_at
from gateway.residency import ResidencyOptions
from gateway.residency.default import best_that_fits
from gateway.residency.device import default_cache_bytes, expected
from gateway.service.fleet import FleetOptions
from gateway.service.readiness import checks_of
from gateway.service.service import JobService, ServiceOptions
from gateway.settings import Settings, SettingsError
from gateway.startup_app import live, plain_error
from gateway.store.base import Bounds, InputBounds
from gateway.store.blobs import blob_folder
from gateway.store.folder_health import place_of
from gateway.store.shared import SharedStore
from gateway.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from pydantic import SecretStr

    from gateway.files.s3 import S3Options

LANES_BY_NAME: dict[str, Lane] = {name: lane for lane, name in NAME_OF_LANE.items()}


def build_core(settings: Settings, kind: NodeKind = "gateway") -> Core:
    """Build the parts of one gateway or worker; starts and opens nothing.

    Raises: ModelNotFound for an unknown default model; SettingsError for a place of files that cannot be used.
    """
    if kind == "worker":
        settings = _in_own_folder(settings)
    device = expected()
    if (memory_bytes := _bytes(settings.engine.memory_gb)) is not None:
        device = replace(device, limit_bytes=memory_bytes)
    chosen = best_that_fits(device, quantize=settings.models.quantize, low_ram=settings.engine.low_ram)
    library = Library(
        settings.models.cache_dir,
        default=settings.models.default or chosen,
        aliases=settings.models.aliases,
        local={name: LocalModel(model.path, model.like) for name, model in settings.models.local.items()},
        loras=_loras(settings),
        hub={name: HubModel(model.repo, model.like, model.revision) for name, model in settings.models.hub.items()},
        checkpoints=_checkpoints(settings),
        vaes=VaeLibrary(
            _vae_folders(settings),
            _checkpoint_folders(settings),
            notes=settings.store.data_dir.resolve(),
            hashes_all=settings.models.hash_checkpoints,
        ),
        embeddings=EmbeddingLibrary(_embedding_folders(settings)),
    )
    files = _shared_files(settings)
    inputs = None if files is None else files.inputs
    output = OutputFolder(
        settings.generation.output_dir.resolve() if files is None else files.images,
        signs=settings.generation.sign_pictures,
        infotexts=settings.generation.write_infotexts,
        shares=settings.generation.share_pictures,
    )
    data = settings.store.data_dir.resolve()
    engine = settings.engine
    cache = _bytes(engine.cache_limit_gb)
    decoder = ImageDecoder()
    shared = _shared_store(settings, inputs)
    store = shared or SqliteStore(data, lookahead=engine.lookahead, inputs=inputs)
    service = JobService(
        decoder=decoder,
        store=store,
        shared=shared,
        node=None if shared is None else _node(settings, kind),
        previews=None if files is None else files.previews,
        engine=Engine(
            EngineOptions(
                backend=engine.backend,
                fake_script=engine.fake_script,
                start_s=engine.start_s,
                load_s=engine.load_s,
                step_floor_s=engine.step_floor_s,
                decode_s=engine.decode_s,
                cancel_grace_s=engine.cancel_grace_s,
                memory_limit_bytes=memory_bytes,
                cache_limit_bytes=default_cache_bytes(device) if cache is None else cache,
                notes=_notes(settings),
                kernels=data / "kernels",
            )
        ),
        library=library,
        output=output,
        spool=data / "spool",
        options=_service_options(settings),
        residency=ResidencyOptions(
            models_dir=settings.models.cache_dir,
            keep_quantized=settings.models.keep_quantized,
            memory_is_set=engine.memory_gb is not None,
            expected_bytes=None if device.kind == "cpu" else device.limit_bytes,
            decode_beside=engine.decode_beside,
            idle_unload_s=engine.idle_unload_s,
            node="" if shared is None else settings.node_name,
        ),
        ocr=OcrOptions(
            max_pages=settings.ocr.max_pages,
            page_s=settings.ocr.page_s,
            render_s=settings.ocr.render_s,
            document_s=settings.ocr.document_s,
            idle_s=settings.ocr.idle_s,
            threads=settings.ocr.threads,
            default=settings.ocr.default,
            vision=settings.ocr.models,
            notes=_notes(settings),
        ),
        input_place=None if inputs is None else place_of(inputs),
    )
    core = Core(
        settings=settings,
        service=service,
        library=library,
        output=output,
        decoder=decoder,
        device=device,
        shared_files=files,
    )
    service.events.listen(core.metrics.on_event)
    for subject, check in checks_of(service):
        core.readiness.add(subject, check)

    async def file_pool() -> str | None:
        return core.files.trouble

    core.readiness.add("The reading of files", file_pool)
    return core


def _in_own_folder(settings: Settings) -> Settings:
    """The settings of a worker, whose temporary files are not those of a gateway or worker beside it."""
    folder = settings.store.data_dir / "workers" / settings.node_name
    return settings.model_copy(update={"store": settings.store.model_copy(update={"data_dir": folder})})


def _shared_store(settings: Settings, inputs: Files | None) -> SharedStore | None:
    """The database that several processes share; None where this one has an SQLite file. Raises: SettingsError."""
    if settings.store.url is None:
        return None
    try:  # imported only where it is used: the start of a gateway on SQLite does not pay
        from gateway.store.postgres.store import PostgresStore
    except ImportError:
        raise SettingsError("store.url needs psycopg: install it with `uv sync --group fleet`") from None
    data, lookahead = settings.store.data_dir.resolve(), settings.engine.lookahead
    return PostgresStore(settings.store.url, data, name=settings.node_name, lookahead=lookahead, inputs=inputs)


def _node(settings: Settings, kind: NodeKind) -> FleetOptions:
    """This process among those of the store, which leaves OCR to others where it is not installed here.

    Raises: SettingsError for a worker that could do nothing.
    """
    worker = settings.worker
    lanes = tuple(LANES_BY_NAME[name] for name in worker.lanes)
    if installed_at() is None:
        lanes = tuple(lane for lane in lanes if lane != "cpu")
        if kind == "worker" and not lanes:
            raise SettingsError("worker.lanes: OCR is not installed here; `uv sync --group ocr` installs it")
    return FleetOptions(
        name=settings.node_name, kind=kind, lanes=lanes, labels=dict(worker.labels), lease_s=worker.lease_s
    )


def _shared_files(settings: Settings) -> SharedFiles | None:
    """The shared places of files; None where this gateway has folders of its own. Raises: SettingsError."""
    files = settings.files
    if files.url is None:
        return None

    def folder_of(part: str, folder: Path) -> Folder:
        if part == IMAGES:
            return image_folder(folder, opens=settings.generation.share_pictures, is_shared=True)
        return blob_folder(folder, is_shared=True)

    def options() -> S3Options:
        from gateway.files.s3 import S3Options

        return S3Options(
            endpoint=files.endpoint,
            region=files.region,
            access_key_id=_revealed(files.access_key_id),
            secret_access_key=_revealed(files.secret_access_key),
            allow_http=files.allow_http,
            ca_file=files.ca_file,
            timeout_s=files.timeout_s,
        )

    try:
        return shared_files_at(files.url, folder_of, options)
    except FilesRefused as error:
        raise SettingsError(f"files.url: {error}") from None


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _a1111(settings: Settings) -> A1111Folders | None:
    root = settings.models.a1111_dir
    return None if root is None else folders_in(root)


def _checkpoint_folders(settings: Settings) -> tuple[Path, ...]:
    """Raises: SettingsError where the folder of A1111 has none."""
    if (a1111 := _a1111(settings)) is None:
        return settings.models.checkpoint_dirs
    if not a1111.checkpoints.is_dir():
        raise SettingsError(
            f"models.a1111_dir: there is no folder models/Stable-diffusion in {settings.models.a1111_dir}"
        )
    return (*settings.models.checkpoint_dirs, a1111.checkpoints)


def _vae_folders(settings: Settings) -> tuple[Path, ...]:
    a1111 = _a1111(settings)
    return settings.models.vae_dirs if a1111 is None else (*settings.models.vae_dirs, a1111.vaes)


def _embedding_folders(settings: Settings) -> tuple[Path, ...]:
    a1111 = _a1111(settings)
    return settings.models.embedding_dirs if a1111 is None else (*settings.models.embedding_dirs, a1111.embeddings)


def _checkpoints(settings: Settings) -> CheckpointLibrary:
    return CheckpointLibrary(
        _checkpoint_folders(settings),
        notes=settings.store.data_dir.resolve(),
        hashes_all=settings.models.hash_checkpoints,
    )


def _loras(settings: Settings) -> LoraLibrary:
    a1111 = _a1111(settings)
    return LoraLibrary(
        (settings.models.cache_dir / "loras", *settings.loras.folders, *(() if a1111 is None else a1111.loras)),
        aliases=settings.loras.aliases,
        hub={
            name: HubLora(lora.repo, lora.file, lora.like, lora.revision)
            if lora.file is not None
            else HubCollection(lora.repo, lora.like, lora.revision)
            for name, lora in settings.loras.hub.items()
        },
        hashes=settings.store.data_dir.resolve() / "lora_hashes.json",
        models_dir=settings.models.cache_dir.resolve(),
        may_come=settings.models.auto_download,
    )


def _service_options(settings: Settings) -> ServiceOptions:
    access, generation, retention = settings.access, settings.generation, settings.retention
    return ServiceOptions(
        limits=generation.limits,
        bounds=Bounds(
            waiting=settings.queue.waiting,
            waiting_per_owner=settings.queue.waiting_per_owner if access.keys_file else None,
        ),
        rights=Rights() if access.keys_file is None else Rights.of_keys(access.operators),
        quantize=settings.models.quantize,
        default_steps=generation.default_steps,
        steps_as_sent=settings.models.steps_as_sent,
        low_ram=settings.engine.low_ram,
        auto_download=settings.models.auto_download,
        fall_back_to_main=settings.models.fall_back_to_main,
        retention_s=retention.days * 86400.0,
        retained_jobs=retention.jobs,
        images_quota_bytes=int(retention.quota_gb * 2**30),
        backup_every_s=None if settings.store.backup_hours is None else settings.store.backup_hours * 3600.0,
        min_free_bytes=int(settings.store.min_free_gb * 1e9),
        inputs=InputBounds.of(int(settings.store.inputs_gb * 1e9)),
        notes=_notes(settings),
    )


def _notes(settings: Settings) -> Path:
    return settings.store.data_dir.resolve() / "children"


def _bytes(gigabytes: float | None) -> int | None:
    return None if gigabytes is None else int(gigabytes * 1e9)


def build_app(core: Core, adapters: Sequence[Adapter], keys: Keys) -> App:
    """The ASGI application of a gateway that has started: guard, errors, routes."""

    owners = _owners(adapters)

    def render(path: str, error: GatewayError) -> Response:
        adapter = _owner(owners, path)
        return adapter.render_error(error) if adapter else plain_error(error)

    core.sections = (*adapters, Group("health", HEALTH, HEALTH_DESCRIBED, dict[str, Any]))
    routes = [*HEALTH, *(route for adapter in adapters for route in adapter.routes)]
    image_paths = {path for adapter in adapters for path in adapter.image_paths}
    open_paths = {"/health/live", *(path for adapter in adapters for path in adapter.open_paths)}
    page_paths = {"/", *(path for adapter in adapters for path in adapter.page_paths)}
    changing_paths = {path for adapter in adapters for path in adapter.changing_paths}
    described = {name: operation for adapter in adapters for name, operation in adapter.described.items()}

    def takes_form(method: str, path: str) -> bool:
        """Whether a path takes forms; true where it has no route, so that the answer is 404."""
        templates = [route.path for route in routes if method in (route.methods or ()) and route.path_regex.match(path)]
        operations = [described.get(f"{method} {template}") for template in templates]
        return not templates or any(operation is not None and operation.form is not None for operation in operations)

    image_prefixes = tuple(adapter.image_prefix for adapter in adapters if adapter.image_prefix)
    http = core.settings.http
    known = sorted({route.path for route in routes if "{" not in route.path})
    handlers = {HTTPException: partial(_to_gateway_error, routes, known)}
    guarded = Guard(
        ExceptionMiddleware(Router(routes, redirect_slashes=False), handlers=handlers),
        core.settings,
        render=render,
        body_limit=lambda path: http.image_body_bytes if path in image_paths else http.default_body_bytes,
        is_image_path=lambda path: path.startswith(image_prefixes),
        is_open_path=lambda path: path in open_paths or path.startswith(image_prefixes),
        is_page_path=lambda path: path in page_paths,
        is_changing_path=lambda path: path in changing_paths,
        takes_form=takes_form,
        tickets=core.tickets,
        keys=keys,
        body_memory=BodyMemory(
            http.body_memory_bytes, max(http.image_body_bytes, http.default_body_bytes), freed=HeapTrim()
        ),
    )

    around = {adapter.name: adapter.around(guarded) for adapter in adapters}
    prefixes = sorted({adapter.prefix for adapter in adapters if adapter.prefix}, key=len, reverse=True)
    unprefixed = {path: adapter.prefix for adapter in adapters for path in adapter.unprefixed}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = guarded  # makes starlette raise its 404 and 405 instead of answering in plain text
        scope.setdefault("state", {})["core"] = core
        scope["path"] = canonical_path(scope["path"], prefixes, unprefixed)
        adapter = _owner(owners, scope["path"])
        name, inner = (adapter.name, around[adapter.name]) if adapter else ("other", guarded)
        await core.metrics.counted(inner, name, scope, receive, send)

    return app


def _owners(adapters: Sequence[Adapter]) -> list[tuple[str, Adapter]]:
    """Each prefix with a final slash, and its adapter, the longest first: it renders errors below the prefix."""
    owners = [(prefix + "/", adapter) for adapter in adapters for prefix in adapter.prefixes]
    return sorted(owners, key=lambda owner: len(owner[0]), reverse=True)


def _owner(owners: Sequence[tuple[str, Adapter]], path: str) -> Adapter | None:
    below = path + "/"
    for prefix, adapter in owners:
        if below.startswith(prefix):
            return adapter
    return None


def _to_gateway_error(routes: Sequence[Route], known: Sequence[str], request: Request, error: Exception) -> Response:
    """Starlette's own errors as errors of the gateway: an unknown route, with the nearest of the `known` paths, and an
    unknown method.

    Clients try an address with OPTIONS or HEAD: the answer has the route's methods (RFC 9110, 9.3.7).
    """
    if getattr(error, "status_code", 404) != 405:
        meant = nearest(request.url.path, known)
        if meant is None:
            raise NotFound("There is nothing here: /docs lists all there is.")
        is_misplaced = request.url.path.rpartition("/")[2] == meant.rpartition("/")[2]
        message = f"There is nothing here: did you mean {meant}?"
        raise (Misplaced if is_misplaced else NotFound)(message, details={"meant": meant})
    refused = MethodNotAllowed()
    method_sets = [route.methods or () for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    refused.allowed = tuple(sorted({method for methods in method_sets for method in methods} | {"HEAD", "OPTIONS"}))
    if request.method in ("HEAD", "OPTIONS"):
        return Response(status_code=204, headers={"Allow": ", ".join(refused.allowed)})
    raise refused


async def ready(request: Request) -> Response:
    """A picture could be drawn: the store and the folders take writes, the engine is there; else 503 and why (R-21).

    `lanes` says of each lane that takes no jobs now why it does not.
    """
    core: Core = request.state.core
    reasons = await core.readiness.reasons()
    body = {
        "status": "not_ready" if reasons else "ready",
        "engine": core.service.engine.state,
        "reason": " ".join(reasons) or None,
        "lanes": core.service.health.faults,
        "model": core.library.default,
        "embedded": core.draws_embedded,
        "version": __version__,
    }
    return JSONResponse(body, status_code=503 if reasons else 200)


async def metrics(request: Request) -> Response:
    """Count what happened and show what is so, for Prometheus (docs/operations.md); names nobody."""
    core: Core = request.state.core
    content, media_type = await core.metrics.text(
        core.service,
        streams=core.streaming.total(),
        waits=core.waiting,
        accept=request.headers.get("accept", "")[:1024],
    )
    return Response(content, headers={"content-type": media_type, "cache-control": "no-store"})


HEALTH = (Route("/health/live", live), Route("/health/ready", ready), Route("/metrics", metrics))
HEALTH_DESCRIBED = {
    "GET /health/live": Operation(answer=dict[str, str]),
    "GET /health/ready": Operation(answer=dict[str, Any]),
    "GET /metrics": Operation(media=("text/plain", "application/openmetrics-text")),
}
