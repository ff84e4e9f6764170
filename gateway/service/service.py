"""The job service, which every job passes: submit, watch, cancel, forget. Knows no protocol and no HTTP."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Unpack

from engine.child_notes import ChildNotes
from engine.clock import patience
from engine.protocol import CancelReason, Generate, MemoryCheck
from gateway.errors import (
    InsufficientMemory,
    JobDamaged,
    JobNotEnded,
    JobNotFound,
    OwnerQueueFull,
    QueueFull,
    StorageFault,
    Unavailable,
)
from gateway.events.bus import Event
from gateway.events.streams import watch
from gateway.first_of import first_of
from gateway.images.decoder import CheckedImage
from gateway.jobs.job import Job, NewJob, Priority, State
from gateway.jobs.origin import Origin
from gateway.jobs.plans import Download, EngineJob, lane_of
from gateway.jobs.resolve import Adjustment, GenerationRequest
from gateway.jobs.resolve_upscale import UpscaleRequest
from gateway.lanes.base import LaneRunner
from gateway.ocr.request import OcrRequest
from gateway.residency import Shortage
from gateway.round_robin import Share
from gateway.service.hang_ups import wait_until_unneeded
from gateway.service.options import ServiceOptions
from gateway.service.parts import ServiceParts
from gateway.service.planner import Planned
from gateway.store.base import DamagedRecord, JobFilter, Stats, WorkerInfo

__all__ = ["JobService", "ServiceOptions"]

log = logging.getLogger("gateway.service")

STORE_ANSWER_S = 10.0
"""Seconds until a stop that the store has not recorded is remembered in memory."""


SETTLE_S = 0.5
SPARED = Adjustment(param="low_ram", asked=None, used="true", reason="the picture fits into memory only so")


class JobService(ServiceParts):
    """The service through which every job is submitted (`submit`) and observed (`watch`)."""

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
        await asyncio.to_thread(self.library.refresh)
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
        places = self._places[lane_of(new.plan)]
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

    async def stats(self) -> Stats:
        return await self._store.stats()

    def running(self, owner: str | None = None, protocol: str | None = None) -> Job | None:
        """As `Engines.running`."""
        return self.engines.running(owner, protocol)

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

    # ---- internal ------------------------------------------------------------------------------------

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


def _memory_tried(short: Shortage) -> Adjustment:
    """The adjustment of a job that is tried although it seems not to fit into memory."""
    reason = f"{short.known}, so that it may fail. {short.fitting.removesuffix('.')}"
    return Adjustment(param="memory", asked="try", used="try", reason=reason)
