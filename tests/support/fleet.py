"""Several processes on one job store, as several services on one event loop, each with a store of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from engine.client import Engine, EngineOptions
from gateway.errors import StorageFault
from gateway.images.output import OutputFolder
from gateway.jobs.plans import LANES, Lane
from gateway.models.library import Library
from gateway.models.user_models import LocalModel
from gateway.service.fleet import FleetOptions
from gateway.service.service import JobService, ServiceOptions
from gateway.store.base import Lease
from gateway.store.blobs import blob_folder
from gateway.store.postgres.store import PostgresStore
from tests.support.postgres import server

T = TypeVar("T")

LEASE_S = 1.0


class ProcessStore(PostgresStore):
    """The store of one process. `is_away`: it cannot reach the database, nor any message reach it."""

    def __init__(self, url: str, folder: Path, **options: Any) -> None:
        super().__init__(url, folder, **options)
        self.is_away = False
        self.renewals = 0
        self.messages: list[str] = []
        """Messages that it has sent."""
        run_in = self._database._on

        async def reach(pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
            if self.is_away:
                raise StorageFault("The job database does not answer.")
            return await run_in(pool, work)

        self._database._on = reach  # type: ignore[method-assign]

    async def close(self) -> None:
        self.is_away = False
        await super().close()

    async def renew(self, leases: Sequence[Lease]) -> list[Lease]:
        self.renewals += len(leases)
        return await super().renew(leases)

    async def post(self, message: str) -> None:
        self.messages.append(message)
        await super().post(message)

    def _receive(self, message: str) -> None:
        if not self.is_away:
            super()._receive(message)


class Processes:
    """The processes of one fleet, each as a service with its own folder; all write to one output folder."""

    def __init__(self, folder: Path, lookahead: int) -> None:
        self._folder = folder
        self._services: dict[str, JobService] = {}
        self._lookahead = lookahead
        self._url = server().new_url()
        self.stores: dict[str, ProcessStore] = {}

    async def start(
        self,
        name: str,
        *,
        lanes: tuple[Lane, ...] = LANES,
        script: dict[str, Any] | None = None,
        models: Sequence[str] = ("toy",),
        options: ServiceOptions | None = None,
        memory_bytes: int | None = None,
        **node: Any,
    ) -> JobService:
        """Start a process: a worker, or a gateway where it has no lanes."""
        own = self._folder / name
        for model in models:
            weights = own / model / "transformer"
            weights.mkdir(parents=True, exist_ok=True)
            (weights / "x.safetensors").touch()
        output = OutputFolder(self._folder / "output")
        output.prepare()
        previews = blob_folder(self._folder / "previews", is_shared=True)
        previews.prepare()
        store = self.stores[name] = ProcessStore(self._url, own / "data", name=name, lookahead=self._lookahead)
        fake = EngineOptions(
            backend="fake", fake_script=json.dumps(script or {}), backoff_s=(0.0,), memory_limit_bytes=memory_bytes
        )
        local = {model: LocalModel(own / model, "flux2-klein-base-4b") for model in ("toy", "other")}
        kind = "worker" if lanes and "gateway" not in name else "gateway"
        fleet = FleetOptions(name=name, kind=kind, lanes=lanes, lease_s=LEASE_S, report_s=0.1, gateway_grace_s=1.0)
        service = JobService(
            store=store,
            shared=store,
            previews=previews,
            node=replace(fleet, **node),
            engine=Engine(fake),
            library=Library(own, default="toy", local=local),
            output=output,
            spool=own / "spool",
            options=options or ServiceOptions(abandon_grace_s=0.05),
        )
        await service.start()
        self._services[name] = service
        return service

    async def stop(self, *names: str) -> None:
        """Stop these processes, or all."""
        stopping = [self._services.pop(name) for name in names or list(self._services)]
        await asyncio.gather(*(service.stop() for service in stopping))


@asynccontextmanager
async def fleet_in(folder: Path, lookahead: int = 0) -> AsyncIterator[Processes]:
    processes = Processes(folder, lookahead)
    try:
        yield processes
    finally:
        for store in processes.stores.values():
            store.is_away = False
        await processes.stop()
