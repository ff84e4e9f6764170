"""The job service, which every job passes: submit, watch, cancel, forget. Knows no protocol and no HTTP."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from engine.catalog import ModelSpec
from engine.child_notes import ChildNotes
from engine.client import Engine, EngineStatus
from engine.clock import patience
from engine.protocol import CancelReason, Generate, MemoryCheck
from gateway.downloads.lane import NetworkLane
from gateway.downloads.tracker import Downloads
from gateway.errors import (
    InsufficientMemory,
    JobDamaged,
    JobNotEnded,
    JobNotFound,
    ModelNotFound,
    OwnerQueueFull,
    QueueFull,
    StorageFault,
    Unavailable,
)
from gateway.events.bus import Event, EventBus
from gateway.events.positions import KEPT_AS, QueuePositions
from gateway.events.previews import Previews
from gateway.events.streams import watch
from gateway.files.base import Files
from gateway.first_of import first_of
from gateway.fleet.node import Node, NodeState, SeenNode
from gateway.fleet.reports import Reports
from gateway.forecast import Forecaster
from gateway.images.decoder import CheckedImage, ImageDecoder
from gateway.images.input_files import KeptInputs
from gateway.images.output import OutputFolder
from gateway.jobs.job import Job, JobEvent, NewJob, Priority, State
from gateway.jobs.origin import Origin
from gateway.jobs.plans import LANES, Download, EngineJob, Lane, lane_of
from gateway.jobs.resolve import Adjustment, GenerationRequest
from gateway.jobs.resolve_upscale import UpscaleRequest
from gateway.lanes.base import LaneRunner
from gateway.lanes.engine import EngineLane
from gateway.lanes.pending_stops import Stops
from gateway.models.library import Library
from gateway.ocr.client import OcrOptions
from gateway.ocr.lane import OcrLane
from gateway.ocr.request import OcrRequest
from gateway.residency import ResidencyManager, ResidencyOptions, Shortage
from gateway.residency.footprint import usual_bytes
from gateway.round_robin import Share
from gateway.service.engines import Engines
from gateway.service.events import JobEvents
from gateway.service.fleet import Fleet, FleetOptions, NodeStatus
from gateway.service.hang_ups import wait_until_unneeded
from gateway.service.health import ServiceHealth
from gateway.service.inputs import InputControl
from gateway.service.models import ModelControl
from gateway.service.options import ServiceOptions
from gateway.service.own_node import DRAINING, NAME, OwnNode
from gateway.service.planner import Planned, Planner
from gateway.service.queue_control import QueueControl
from gateway.service.retention import Retention
from gateway.service.workers import WorkerControl
from gateway.store.base import DamagedRecord, JobFilter, JobStore, Stats, WorkerInfo
from gateway.store.folder_health import Probe, storage_of
from gateway.store.shared import SharedStore

__all__ = ["JobService", "ServiceOptions"]

log = logging.getLogger("gateway.service")

STORE_ANSWER_S = 10.0
"""Seconds until a stop that the store has not recorded is remembered in memory."""


SETTLE_S = 0.5
MISSED_S = 5.0
"""Seconds after which a gateway has a model brought for jobs that another one has accepted."""

SPARED = Adjustment(param="low_ram", asked=None, used="true", reason="the picture fits into memory only so")


class JobService:
    """The service through which every job is submitted (`submit`) and observed (`watch`)."""

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

    # ---- start and stop ------------------------------------------------------------------------------

    async def start(self) -> None:
        """Recover the jobs of an earlier process, then begin to run jobs. `begin_stop` cancels a start.

        Raises: StoreLocked, StoreCorrupt.
        """
        if self._stopping:
            return
        starting = self._starting = asyncio.create_task(self._start(), name="start")
        try:
            await asyncio.wait({starting})
        except asyncio.CancelledError:
            starting.cancel()
            raise
        if not starting.cancelled():
            starting.result()

    async def _start(self) -> None:
        for job in await self._store.open(self._bus.publish, self._lose):
            log.info("recovered as %s", job.state, extra={"job": job.id})
            with suppress(StorageFault):  # what is left is small, and counts for the quota
                await self._sweep(job)
        await asyncio.to_thread(self.storage.look)
        if self._options.notes is not None:  # the folder is locked, so no other process has children recorded there
            await asyncio.to_thread(ChildNotes(self._options.notes).kill_leftovers)
        await self._positions.start()
        await self.residency.start()
        if self.fleet is not None:
            await self.fleet.start()
            self._spawn(self.fleet.run(), name="fleet")
        await self.downloads.start()
        if self.fleet is None:
            await self._own_node.start()
            if self._own_node.is_draining:
                await self.workers.nodes()
        for lane in self._lanes.values():
            await lane.start()
        if self.fleet is None or self.fleet.options.kind == "gateway":
            self._spawn(self._retention.run())
        self._spawn(self._positions.run())
        self._has_started = True

    @property
    def is_stopping(self) -> bool:
        return self._stopping

    async def drain(self) -> None:
        """Take no more jobs from the queue, and wait until the jobs that run in this process have ended."""
        if self.fleet is not None:
            await self.fleet.drain()

    async def stop(self) -> None:
        """Accept no more jobs, put the running one back into the queue, stop the engine. No job is lost."""
        self.begin_stop()
        assert self._leaving is not None
        await self._leaving
        await self._stops.close()
        if self._has_started:
            await self._positions.keep()
        if self.fleet is not None:
            await self.fleet.close()
        await self._files.close()
        await self._store.close()

    def begin_stop(self) -> None:
        """End streams, lanes and their children. Called before the server waits for its connections."""
        if not self._stopping:
            self._stopping = True
            self._bus.close()
            self._leaving = asyncio.create_task(self._leave(), name="stop")

    async def _leave(self) -> None:
        """Stop all lanes concurrently: each child process takes its own time to end."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait({self._starting})
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        lanes = (lane.stop() for lane in self._lanes.values())
        await asyncio.gather(*lanes, self._reader.stop(), self.downloads.stop())

    # ---- submit --------------------------------------------------------------------------------------

    async def submit(self, request: GenerationRequest, origin: Origin) -> Job:
        """Store a job for a generation request; it is on disk when this returns.

        Raises: InvalidRequest, ModelNotFound, ModelNotOnDisk, ModelUnavailable, ModelIsDownloading, QueueFull,
        OwnerQueueFull, IdempotencyConflict, StorageFault, Unavailable; Forbidden for a download or a priority without
        the right.
        """
        self._check_priority(origin.owner, origin.priority)
        planned = await self._planner.drawing(request, origin)
        return await self._submit(planned, may_spare=request.low_ram is None)

    async def submit_upscale(self, request: UpscaleRequest, origin: Origin) -> Job:
        """Store a job that upscales an image. Raises: as submit."""
        self._check_priority(origin.owner, origin.priority)
        return await self._submit(await self._planner.upscaling(request, origin))

    async def submit_load(self, model: str, origin: Origin, memory: MemoryCheck = "check") -> Job:
        """Store a job that loads a model into memory. Raises: as submit."""
        return await self._submit(await self._planner.loading(model, origin, memory))

    async def submit_ocr(
        self, request: OcrRequest, document: CheckedImage | bytes, origin: Origin, share: Share | None = None
    ) -> Job:
        """Store an OCR job for a document: a checked image, or a PDF as it was sent.

        Raises: NotInstalled, and as submit.
        """
        whole = document.png if isinstance(document, CheckedImage) else document
        planned = await self._planner.reading(request, whole, origin)
        await self.inputs.keep(document, share or Share(origin.owner, origin.owner))
        return await self._submit(planned)

    async def retry(self, job_id: str, owner: str | None = None, *, idempotency_key: str | None = None) -> Job:
        """Store a new job with the plan of an ended one, which draws the same pixels.

        Raises: JobNotFound, JobNotEnded, and as submit.
        """
        job = await self.get(job_id, owner)
        if job.state is None or not job.state.terminal:
            raise JobNotEnded
        return await self._submit(await self._planner.again(job, idempotency_key))

    def _admitted(self, plan: EngineJob, may_spare: bool) -> tuple[EngineJob, Shortage | None]:
        """The admitted plan, with low_ram where only that fits, and its lack of memory. Blocks. Raises: as `admit`."""
        spec = self.library.find(plan.model)
        admission = self.residency.admission if self.fleet is None else self.fleet.admission
        if may_spare and isinstance(plan, Generate):
            plan = admission.spared(plan, spec)
        short = self.residency.admit(plan, spec) if self.fleet is None else admission.check(plan, spec)
        self._lane.place(plan, spec)
        return plan, short

    async def _with_admission(self, new: NewJob, may_spare: bool) -> NewJob:
        """The job, admitted to memory, with its adjustments. Raises: as `admit`."""
        if not isinstance(new.plan, EngineJob):
            return new
        try:
            plan, short = await asyncio.to_thread(self._admitted, new.plan, may_spare)
        except InsufficientMemory:
            if self.fleet is None:
                raise
            await self.fleet.refresh()  # a larger node may have come a moment ago
            plan, short = await asyncio.to_thread(self._admitted, new.plan, may_spare)
        if plan is not new.plan:
            new = replace(new, plan=plan, adjustments=(*new.adjustments, SPARED))
        if plan.memory == "try":  # an earlier attempt of the same job may have another text
            others = tuple(one for one in new.adjustments if one.param != "memory")
            new = replace(new, adjustments=others if short is None else (*others, _memory_tried(short)))
        return new

    async def _submit(self, planned: Planned, *, may_spare: bool = False) -> Job:
        self._check_running()
        new = planned.new
        self._check_priority(new.owner, new.priority)
        if isinstance(new.plan, Download):
            self._rights.check(new.owner, "pull")
        lane = self._lanes.get(lane_of(new.plan))
        places = () if lane is None else lane.places
        check = asyncio.ensure_future(self.storage.check(places, least_free_bytes=self._options.min_free_bytes))
        try:
            new = await self._with_admission(new, may_spare)
        finally:
            await check  # a folder at fault is the more urgent error
        if self.fleet is not None and planned.missing is None and isinstance(new.plan, EngineJob):
            spec = self.library.find(new.plan.model)
            if await self.fleet.lacks(new.plan) and self.downloads.must_come(spec, new.owner):
                planned = replace(planned, missing=spec)
        if not planned.waits:
            await self.downloads.refuse_until_here(planned.missing, planned.loras, new.owner)
        try:
            return await asyncio.shield(self._store_job(replace(planned, new=new)))
        except (QueueFull, OwnerQueueFull) as full:
            owner = new.owner if isinstance(full, OwnerQueueFull) else None
            full.retry_after_s = self._positions.retry_after_s(lane_of(new.plan), owner)
            raise

    async def _store_job(self, planned: Planned) -> Job:
        """Hold the job for its LoRAs, store it, start its downloads. Raises: as `JobStore.submit`.

        An idle lane claims the job in the same transaction, unless it waits for downloads.
        """
        new, lane = planned.new, self._lanes.get(lane_of(planned.new.plan))
        is_complete = planned.missing is None and not planned.loras.loras
        if self.fleet is not None and lane is not None and is_complete:
            is_complete = await self.fleet.is_own(new.id, new.plan)
        with self.downloads.hold(new.id, planned.loras) as hold, _reserved(lane) as worker:
            submitted = await self._store.submit(new, self._options.bounds, worker if is_complete else None)
            job = hold.keep_for(submitted.job)
            if submitted.lease is not None and lane is not None:
                lane.give(submitted.lease)
        return await self.downloads.start_for(job, planned.missing, planned.loras, new.owner)

    def _check_priority(self, owner: str, priority: Priority) -> None:
        """Check the right to a priority. Raises: Forbidden."""
        if priority > Priority.NORMAL:
            self._rights.check(owner, "raise_priority", param="priority")

    def _check_running(self) -> None:
        if self._stopping:
            raise Unavailable("The gateway is stopping.", retry_after_s=5)

    # ---- watch, list and cancel ----------------------------------------------------------------------

    async def get(self, job_id: str, owner: str | None = None) -> Job:
        """A job of this owner, or of any where that is None. Raises: JobNotFound, also for a job of another owner."""
        return self._stops.with_pending_end(await self._store.get(job_id, owner))

    async def see(self, job_id: str, owner: str) -> Job:
        """A job that this owner may see: its own, or any download, for which all may wait. Raises: JobNotFound."""
        try:
            job = await self._store.get(job_id)
        except JobDamaged as damaged:
            if damaged.owner in (None, owner):
                raise
            raise JobNotFound from None
        if job.owner != owner and not isinstance(job.plan, Download):
            raise JobNotFound
        return self._stops.with_pending_end(job)

    async def list_jobs(
        self, *, limit: int = 100, before: int | None = None, **filters: Unpack[JobFilter]
    ) -> list[Job]:
        """As `JobStore.list_jobs`; a stopped job whose end is not stored yet is not listed as live."""
        jobs = [
            self._stops.with_pending_end(job)
            for job in await self._store.list_jobs(limit=limit, before=before, **filters)
        ]
        states = filters.get("states")
        return jobs if states is None else [job for job in jobs if job.state in states]

    async def hide(self, job_ids: Sequence[str]) -> None:
        """Remove jobs from the lists of their protocol; history and images stay."""
        await asyncio.shield(self._store.hide(job_ids))

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

    async def stats(self) -> Stats:
        return await self._store.stats()

    def running(self, owner: str | None = None, protocol: str | None = None) -> Job | None:
        """As `Engines.running`."""
        return self.engines.running(owner, protocol)

    @property
    def engine(self) -> EngineStatus:
        """As `Engines.status`."""
        return self.engines.status

    async def shared_state(self, name: str, make: Callable[[], str]) -> str:
        """A text that all processes of a store have, made by the first that asks."""
        text = await self._store.read_state(name)
        if text is None:
            await self._store.save_state(name, make())
            await asyncio.sleep(SETTLE_S)  # of several that ask at the same time, the last one has made it
            text = await self._store.read_state(name)
            assert text is not None, "it was saved"
        return text

    def steady(self) -> float:
        """As `JobStore.steady`."""
        return self._store.steady()

    def watch(self, job_id: str, after: int = 0) -> AsyncGenerator[Event, None]:
        """As `gateway.events.streams.watch`."""
        return watch(self._store, self._bus, self._positions, job_id, after)

    async def ended(self, job_id: str) -> Job:
        """Wait for the end of a job; the end of a stopped job need not be stored yet.

        Raises: JobNotFound; Unavailable where the gateway stops first.
        """
        with self._bus.end_of(job_id) as end:
            if not self._bus.is_live(job_id):
                job = await self.get(job_id)
                if job.state is not None and job.state.terminal:
                    return job
            await first_of(_settled(end), self._stops.over(job_id))
            if end.done() and (ended := end.result()) is not None:
                return ended
        job = await self.get(job_id)
        if job.state is None or not job.state.terminal:
            raise Unavailable("The gateway is stopping; the job is kept.", retry_after_s=5)
        return job

    async def cancel(self, job_id: str, owner: str, reason: CancelReason = "user") -> Job:
        """Stop a job and return the ended job, which may have succeeded first; `is_stored`: whether its end is on disk.

        Needs no write: an end that cannot be stored now is remembered and stored later.
        Raises: JobNotFound, also for a job of another owner; Forbidden for a download of another owner.
        """
        if (await self.see(job_id, owner)).owner != owner:
            self._rights.check(owner, "stop_pull")
        await asyncio.shield(self._cancel(job_id, reason))
        return await self.ended(job_id)

    async def _cancel(self, job_id: str, reason: CancelReason) -> None:
        lane: LaneRunner | None
        for lane in self._lanes.values():
            if lane.runs(job_id):
                await lane.cancel(job_id, reason)  # before the write: the disk may be slow or full
        try:
            async with patience(STORE_ANSWER_S):
                job = await self._store.cancel(job_id, reason)
        except (StorageFault, TimeoutError):
            job = await self._store.get(job_id)
            if job.state is not None and not job.state.terminal:
                self._stops.remember(job_id, reason)
        if job.state is State.RUNNING and self.fleet is None:  # else its lane has the event, wherever it is
            await self._lanes[lane_of(job.plan)].cancel(job_id, reason)

    def is_stored(self, job: Job) -> bool:
        """Whether a job's end is on disk; one that is not may run again after a restart."""
        return self._stops.end(job.id) is None

    def skip(self, job_id: str) -> None:
        """Finish the current image of a running job as it is, and continue with the next one."""
        self.engines.skip(job_id)

    def abandon(self, job: Job) -> None:
        """The client that waited for this job has disconnected (R-09): stop the job, as soon as no client watches it.

        A client that sent an Idempotency-Key comes back for its job: that job continues.
        """
        if job.idempotency_key is None and not self._stopping:
            self._spawn(self._abandon(job))

    async def _abandon(self, job: Job) -> None:
        grace_s = self._options.abandon_grace_s
        lane = lane_of(job.plan)
        await wait_until_unneeded(self._bus, job.id, grace_s=grace_s, others_wait=lambda: self.queue.depth(lane) > 0)
        with suppress(JobDamaged, JobNotFound):
            await self._cancel(job.id, "client_gone")

    def age_s(self, date: float) -> float:
        """As `JobStore.age_s`."""
        return self._store.age_s(date)

    # ---- other nodes ---------------------------------------------------------------------------------

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

    # ---- internal ------------------------------------------------------------------------------------

    async def _sweep(self, job: Job) -> None:
        """Remove the files that a crash left of a job. Raises: StorageFault."""
        await self.output.run(self.output.sweep, job.id, {image.file for image in job.images}, job.attempt)

    def _lose(self, record: DamagedRecord) -> None:
        """Forget a job whose record was damaged and set aside: end its streams, and begin the next job."""
        self._bus.drop(record.job_id)
        self._positions.forget(record.job_id)
        self.downloads.forget(record.job_id)
        if self.fleet is not None:
            self.fleet.forget(record.job_id)
        for lane in self._lanes.values():
            lane.wake()

    async def retain_once(self) -> None:
        """Run the retention once."""
        await self._retention.once()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str | None = None) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@contextmanager
def _reserved(lane: LaneRunner | None) -> Iterator[WorkerInfo | None]:
    """As `LaneRunner.reserved`; None where this process does not run the lane."""
    if lane is None:
        yield None
        return
    with lane.reserved() as worker:
        yield worker


async def _settled(end: asyncio.Future[Job | None]) -> None:
    await asyncio.wait({end})


def _log_event(job: Job, event: JobEvent) -> None:
    log.info(event.fact.kind, extra={"job": job.id, "seq": event.seq, "protocol": job.protocol})


def _memory_tried(short: Shortage) -> Adjustment:
    """The adjustment of a job that is tried although it seems not to fit into memory."""
    reason = f"{short.known}, so that it may fail. {short.fitting.removesuffix('.')}"
    return Adjustment(param="memory", asked="try", used="try", reason=reason)
