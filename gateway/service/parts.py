"""The parts of the job service, wired to each other. Knows no protocol and no HTTP."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from engine.catalog import ModelSpec
from engine.client import Engine, EngineStatus
from gateway.downloads.lane import NetworkLane
from gateway.downloads.tracker import Downloads
from gateway.errors import (
    ModelNotFound,
    Unavailable,
)
from gateway.events.bus import EventBus
from gateway.events.positions import KEPT_AS, QueuePositions
from gateway.events.previews import Previews
from gateway.files.base import Files
from gateway.fleet.node import Node, NodeState, SeenNode
from gateway.fleet.reports import Reports
from gateway.forecast import Forecaster
from gateway.images.decoder import ImageDecoder
from gateway.images.input_files import KeptInputs
from gateway.images.output import OutputFolder
from gateway.jobs.job import Job, JobEvent
from gateway.jobs.plans import LANES, Lane
from gateway.lanes.base import LaneRunner
from gateway.lanes.engine import EngineLane
from gateway.lanes.pending_stops import Stops
from gateway.models.library import Library
from gateway.ocr.client import OcrOptions
from gateway.ocr.lane import OcrLane
from gateway.residency import ResidencyManager, ResidencyOptions
from gateway.residency.footprint import usual_bytes
from gateway.service.engines import Engines
from gateway.service.events import JobEvents
from gateway.service.fleet import Fleet, FleetOptions, NodeStatus
from gateway.service.health import ServiceHealth
from gateway.service.inputs import InputControl
from gateway.service.models import ModelControl
from gateway.service.options import ServiceOptions
from gateway.service.own_node import DRAINING, NAME, OwnNode
from gateway.service.planner import Planner
from gateway.service.queue_control import QueueControl
from gateway.service.retention import Retention
from gateway.service.workers import WorkerControl
from gateway.store.base import JobStore
from gateway.store.folder_health import Probe, storage_of
from gateway.store.shared import SharedStore

log = logging.getLogger("gateway.service")

SHARED_PLACES = ("output", "inputs")
MISSED_S = 5.0
"""Seconds after which a gateway has a model brought for jobs that another one has accepted."""


class ServiceParts(ABC):
    """The parts of one service; `JobService` has what is done with them."""

    def __init__(
        self,
        *,
        store: JobStore,
        engine: Engine,
        library: Library,
        output: OutputFolder,
        spool: Path,
        options: ServiceOptions,
        ocr: OcrOptions | None = None,
        residency: ResidencyOptions | None = None,
        decoder: ImageDecoder | None = None,
        input_place: Probe | None = None,
        shared: SharedStore | None = None,
        node: FleetOptions | None = None,
        previews: Files | None = None,
    ) -> None:
        """`input_place`: where the store has its inputs, if not beside `spool`. `shared` is the store, where several
        processes use it; `node` is this one among them, `previews` where they store previews for each other.
        """
        self.library = library
        self.output = output
        self._store = store
        self._engine = engine
        self._options = options
        self._rights = options.rights
        self._bus = EventBus()
        self._bus.listen(_log_event)
        self._stops = Stops(store)
        self._lanes: dict[Lane, LaneRunner] = {}
        self._files = KeptInputs(store, decoder or ImageDecoder())
        self.storage = storage_of(output.place, spool, library.models_dir, input_place)
        self.residency = ResidencyManager(
            store=store,
            library=library,
            device=lambda: (engine.status.device, engine.status.memory_limit_bytes),
            options=residency or ResidencyOptions(models_dir=library.models_dir),
        )
        self._own_node = OwnNode(
            store, library, lambda: self._lanes, lambda: engine.status, lambda: self.health.blocked_here("engine")
        )
        self._reports = Reports(self._own_node.read if shared is None else shared.nodes)
        self._forecaster = Forecaster(
            self._spec_of,
            lambda: engine.status.loaded_model,
            weights_of=library.weights,
            is_down=lambda: engine.status.state == "down",
            due_in=lambda: self.downloads.progress.due(),
            own_id=lambda: NAME if shared is None else shared.node_id,
            nodes=self._reports.nodes,
            runs=lambda job_id: self.fleet is None or job_id in self.fleet.leases.job_ids,
            needed_bytes=None if shared is None else usual_bytes,
        )
        shared_previews = None if previews is None else Previews(previews)
        self.fleet = None
        if shared is not None and node is not None:
            self.fleet = Fleet(
                shared,
                node,
                bus=self._bus,
                library=library,
                residency=self.residency,
                forecaster=self._forecaster,
                lanes=lambda: self._lanes,
                previews=shared_previews,
                status=self._node_status,
                brings=lambda model, loras: self.downloads.brings(model, loras),
                on_download=lambda job_id, fact: self.downloads.publish_of(job_id, fact),
                bring_missing=self._bring_missing,
                sweep=self._sweep,
                on_roster=self._on_roster,
                on_queue=lambda: self._positions.invalidate_order(),
                on_skip=lambda job_id: self.engines.skip_here(job_id),
                on_unload=lambda model: self._spawn(self.engines.unload_here(model)),
            )
        runs, leases = (LANES, None) if self.fleet is None else (self.fleet.options.lanes, self.fleet.leases)
        self._positions = QueuePositions(
            store,
            self._bus,
            self._forecaster,
            options.places_every_s,
            blocked=lambda lane: self.health.blocked(lane),
            downloading=lambda job: self.downloads.progress.newest(job),
            kept_as=KEPT_AS if node is None else f"{KEPT_AS} {node.name}",
        )
        self.downloads = Downloads(
            store=store,
            bus=self._bus,
            library=library,
            forecaster=self._forecaster,
            positions=self._positions,
            auto=options.auto_download,
            fall_back=options.fall_back_to_main,
            rights=options.rights,
            wake=lambda: self._lane.wake(),
            elsewhere=None if self.fleet is None else self.fleet.has,
            has_lora=(lambda *_: False) if self.fleet is None else self.fleet.roster.has_lora,
            is_on_disk=None if "engine" in runs else lambda _: False,
            is_worker=self.fleet is not None and self.fleet.options.kind == "worker",
        )
        self._lane = EngineLane(
            store=store,
            engine=engine,
            bus=self._bus,
            library=library,
            output=output,
            inputs=self._files.whole,
            spool=spool,
            forecaster=self._forecaster,
            residency=self.residency,
            claimable=self.downloads.claimable if self.fleet is None else lambda: None,
            held_jobs=lambda: self.downloads.held_jobs() | self._held("engine"),
            storage=self.storage,
            stops=self._stops,
            leases=leases,
            accepts=None if self.fleet is None else self.fleet.accepts,
        )
        network = NetworkLane(
            store=store,
            bus=self._bus,
            library=library,
            forecaster=self._forecaster,
            publish=self.downloads.publish,
            storage=self.storage,
            stops=self._stops,
            notes=options.notes,
            fall_back=options.fall_back_to_main,
            held_jobs=lambda: self._held("network"),
            leases=leases,
            accepts=None if self.fleet is None else self.fleet.accepts,
        )
        reader = OcrLane(
            store=store,
            bus=self._bus,
            options=ocr or OcrOptions(),
            inputs=self._files.whole,
            storage=self.storage,
            stops=self._stops,
            leases=leases,
        )
        self._reader = reader
        self._lanes |= {lane.lane: lane for lane in (self._lane, reader, network) if lane.lane in runs}
        self._places = {
            lane.lane: tuple(place for place in lane.places if lane.lane in runs or place in SHARED_PLACES)
            for lane in (self._lane, reader, network)
        }
        """Places that must work where a job of each lane is accepted; of a lane elsewhere the shared ones."""
        self.engines = Engines(engine, self._lane, reader, self.fleet, is_own="engine" in runs)
        self._planner = Planner(library, self.downloads, reader, options)
        self.health = ServiceHealth(
            store,
            self.storage,
            self._lanes,
            lambda: self.engine,
            self._stops,
            options.rights,
            self._works_elsewhere,
            draining=lambda: DRAINING if (self.fleet or self._own_node).is_draining else None,
        )
        self.workers = WorkerControl(
            self._reports,
            drain=self._own_node.drain if shared is None else shared.drain,
            see=self.see,
            image_s=self._image_s,
            rights=options.rights,
            on_change=self._positions.invalidate_order,
        )
        self.events = JobEvents(store, self._bus, self._positions, self._forecaster, self.health.blocked)
        self.inputs = InputControl(
            store, self._files, self.storage, bounds=options.inputs, min_free_bytes=options.min_free_bytes
        )
        self.queue = QueueControl(
            store, self._positions, self._lane.wake, options.rights, lambda: self._stops.ids, self._publish_queue_change
        )
        self.models = ModelControl(
            library=library,
            downloads=self.downloads,
            residency=self.residency,
            loaded=lambda: engine.status.loaded_model,
            loaded_anywhere=lambda: self.engines.loaded_models,
            unload=self.engines.unload,
            unload_reader=self.engines.unload_reader,
            running=lambda: self._lane.running,
            check_running=self._check_running,
            rights=options.rights,
        )
        self._retention = Retention(store, output, options, shared, shared_previews)
        self._starting: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._has_started = False
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()

    @abstractmethod
    async def see(self, job_id: str, owner: str) -> Job:
        """A job that this owner may see."""

    @property
    def is_stopping(self) -> bool:
        return self._stopping

    @property
    def engine(self) -> EngineStatus:
        """As `Engines.status`."""
        return self.engines.status

    def _check_running(self) -> None:
        if self._stopping:
            raise Unavailable("The gateway is stopping.", retry_after_s=5)

    def _spec_of(self, model: str) -> ModelSpec | None:
        try:
            return self.library.find(model)
        except ModelNotFound:
            return None

    def _image_s(self, node: Node) -> float | None:
        if node.loaded_model is None:
            return None
        return self._forecaster.image_s(node.loaded_model, None if self._is_own_node(node) else node)

    def _is_own_node(self, node: Node) -> bool:
        return self.fleet is None or node.id == self.fleet.roster.own.id

    def _works_elsewhere(self, lane: Lane) -> bool:
        return self.fleet is not None and self.fleet.roster.works(lane)

    def _held(self, lane: Lane) -> frozenset[str]:
        return frozenset() if self.fleet is None else self.fleet.held_jobs(lane)

    def _node_status(self) -> NodeStatus:
        engine = self._engine.status
        if "engine" not in self._lanes:
            return NodeStatus("ready" if self._has_started else "starting")
        fault = self.health.blocked_here("engine") or next(iter(self.health.faults.values()), None)
        down: NodeState = "down" if engine.state == "down" or engine.works else "starting"
        return NodeStatus(
            state="ready" if fault is None else down,
            reason=fault,
            device=engine.device,
            memory_limit_bytes=self.residency.admission.limit_bytes,
            loaded_model=engine.loaded_model,
            costs=self._forecaster.costs_text,
        )

    def _on_roster(self) -> None:
        """The nodes have reported."""
        assert self.fleet is not None
        own, others = self.fleet.roster.own, self.fleet.roster.others
        self._reports.update([SeenNode(own, 0.0, self.fleet.is_draining), *others])
        self._positions.invalidate()

    async def _bring_missing(self) -> None:
        if self._has_started:
            await self.downloads.bring_missing(MISSED_S)

    def _publish_queue_change(self) -> None:
        if self.fleet is not None:
            self.fleet.publish_queue_change()

    async def _sweep(self, job: Job) -> None:
        """Remove the files that a crash left of a job. Raises: StorageFault."""
        await self.output.run(self.output.sweep, job.id, {image.file for image in job.images}, job.attempt)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str | None = None) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _log_event(job: Job, event: JobEvent) -> None:
    log.info(event.fact.kind, extra={"job": job.id, "seq": event.seq, "protocol": job.protocol})
