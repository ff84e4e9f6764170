"""Several processes on one job store, as several services on one event loop: `Broker` stands in for PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.client import Engine, EngineOptions
from gateway.errors import StorageFault
from gateway.fleet.node import Node, SeenNode
from gateway.images.output import OutputFolder
from gateway.jobs.job import Job, JobEvent, NewJob, State
from gateway.jobs.plans import LANES, Lane
from gateway.models.library import Library
from gateway.models.user_models import LocalModel
from gateway.service.fleet import FleetOptions
from gateway.service.service import JobService, ServiceOptions
from gateway.store.base import Bounds, Lease, Lost, OnEvent, Submitted, WorkerInfo
from gateway.store.shared import MESSAGE_BYTES, OnMessage
from gateway.store.sqlite import SqliteStore

LEASE_S = 1.0


class Broker:
    """One SQLite store for several `View`s, each of which gets every event; what PostgreSQL does between processes."""

    def __init__(self, folder: Path, lookahead: int = 0) -> None:
        self.store = SqliteStore(folder, lookahead=lookahead)
        self.views: list[View] = []
        self.reports: dict[str, tuple[float, Node]] = {}
        self.draining: set[str] = set()
        self.gateways: dict[str, str] = {}
        """Which gateway holds an attached job."""
        self.messages: list[str] = []

    async def open(self) -> None:
        await self.store.open(self._on_event)

    def _on_event(self, job: Job, event: JobEvent) -> None:
        for view in self.views:
            view.on_event(job, event)


class View:
    """What one process has of the broker. `is_away`: it cannot reach the others."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._hear: OnEvent | None = None
        self._on_message: OnMessage | None = None
        self.node_id = ""
        self.is_away = False
        self.renewals = 0

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._broker.store, name)
        if self.is_away and asyncio.iscoroutinefunction(value):
            raise StorageFault("The job database does not answer.")
        return value

    def _check(self) -> SqliteStore:
        if self.is_away:
            raise StorageFault("The job database does not answer.")
        return self._broker.store

    async def open(self, on_event: OnEvent | None = None, lose: Lost | None = None) -> list[Job]:
        self._hear = on_event
        self._broker.views.append(self)
        return []

    async def close(self) -> None:
        if self in self._broker.views:
            self._broker.views.remove(self)

    def on_event(self, job: Job, event: JobEvent) -> None:
        if self._hear is not None:
            self._hear(job, event)

    async def submit(self, new: NewJob, bounds: Bounds, worker: WorkerInfo | None = None) -> Submitted:
        submitted = await self._check().submit(new, bounds, worker)
        if new.attached and submitted.created:
            self._broker.gateways[new.id] = self.node_id
        return submitted

    async def announce(self, node: Node) -> bool:
        self._check()
        self._broker.reports[node.id] = asyncio.get_running_loop().time(), node
        return node.name in self._broker.draining

    async def withdraw(self, node_id: str) -> None:
        self._check()
        self._broker.reports.pop(node_id, None)

    async def nodes(self, within_s: float = 60.0) -> list[SeenNode]:
        self._check()
        now = asyncio.get_running_loop().time()
        seen = [
            SeenNode(node, now - at, node.name in self._broker.draining) for at, node in self._broker.reports.values()
        ]
        return sorted((one for one in seen if one.seen_s <= within_s), key=lambda one: one.node.name)

    async def drain(self, name: str, is_draining: bool) -> None:
        (self._broker.draining.add if is_draining else self._broker.draining.discard)(name)

    async def renew(self, leases: Sequence[Lease]) -> list[Lease]:
        store, lost = self._check(), []
        for lease in leases:
            self.renewals += 1
            if await store.heartbeat(lease, LEASE_S) == "lost":
                lost.append(lease)
        return lost

    async def end_abandoned(self, gateways_gone_s: float) -> list[Job]:
        store, ended = self._check(), []
        alive = {one.node.id for one in await self.nodes(gateways_gone_s)}
        for job_id, gateway in list(self._broker.gateways.items()):
            job = await store.get(job_id)
            if job.state is not None and job.state.terminal:
                del self._broker.gateways[job_id]
            elif gateway not in alive and job.idempotency_key is None and job.cancel_requested is None:
                ended.append(await store.cancel(job_id, "client_gone"))
        return ended

    async def post(self, message: str) -> None:
        self._check()
        assert len(message.encode()) <= MESSAGE_BYTES
        self._broker.messages.append(message)
        for view in self._broker.views:
            if view is not self and view._on_message is not None and not view.is_away:
                asyncio.get_running_loop().call_soon(view._on_message, message)

    def listen(self, on_message: OnMessage) -> None:
        self._on_message = on_message


class Processes:
    """The processes of one fleet, each as a service with its own folder; all write to one output folder."""

    def __init__(self, folder: Path, broker: Broker, stack: AsyncExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self.broker = broker
        self.views: dict[str, View] = {}

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
        view = self.views[name] = View(self.broker)
        fake = EngineOptions(
            backend="fake", fake_script=json.dumps(script or {}), backoff_s=(0.0,), memory_limit_bytes=memory_bytes
        )
        local = {model: LocalModel(own / model, "flux2-klein-base-4b") for model in ("toy", "other")}
        kind = "worker" if lanes and "gateway" not in name else "gateway"
        fleet = FleetOptions(name=name, kind=kind, lanes=lanes, lease_s=LEASE_S, report_s=0.1, gateway_grace_s=1.0)
        service = JobService(
            store=view,  # type: ignore[arg-type]
            shared=view,  # type: ignore[arg-type]
            node=replace(fleet, **node),
            engine=Engine(fake),
            library=Library(own, default="toy", local=local),
            output=output,
            spool=own / "spool",
            options=options or ServiceOptions(abandon_grace_s=0.05),
        )
        await service.start()
        self._stack.push_async_callback(service.stop)
        return service


@asynccontextmanager
async def fleet_in(folder: Path, lookahead: int = 0) -> AsyncIterator[Processes]:
    broker = Broker(folder / "data", lookahead)
    await broker.open()
    try:
        async with AsyncExitStack() as stack:
            yield Processes(folder, broker, stack)
    finally:
        await broker.store.close()


def is_running(job: Job) -> bool:
    return job.state is State.RUNNING
