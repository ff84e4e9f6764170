"""The life of a job from submit to its end: order, running, watching, cancelling. Knows no protocol and no HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import shutil
import time
from collections.abc import AsyncGenerator, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, assert_never

from engine.client import Engine, EngineDied, EngineStatus, EngineStopped
from engine.protocol import (
    Cancelled,
    CancelReason,
    Drawn,
    EngineFact,
    Failed,
    Generate,
    ImageDone,
    Load,
    Run,
    Succeeded,
)
from gateway.errors import JobNotFound, ModelNotOnDisk, StorageFull, Unavailable
from gateway.hub import Event, Hub
from gateway.job import CRASHES_ALLOWED, Job, JobEvent, NewJob, Outcome, Plans, Priority, Progress, State
from gateway.library import Library
from gateway.pictures import Pictures
from gateway.request import GenerationRequest, Leniency, Limits, resolve
from gateway.store.base import Bounds, JobStore, Lease, Stats, WorkerInfo

log = logging.getLogger("gateway.service")

FAILURE_TEXT = {
    "engine_crash": "The engine stopped twice while drawing this picture. A smaller size may help.",
    "engine_timeout": "The engine made no progress twice while drawing this picture.",
    "engine_oom": "Insufficient memory. Try a smaller size or a quantised model.",
}


@dataclass(frozen=True, slots=True)
class Origin:
    """Who submits, and how the job is tied to them."""

    owner: str
    protocol: str
    attached: bool
    priority: Priority = Priority.NORMAL
    idempotency_key: str | None = None
    leniency: Leniency = "refuse"


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """What of the settings the service goes by."""

    limits: Limits = Limits()
    bounds: Bounds = Bounds()
    quantize: int | None = None
    default_steps: int | None = None
    steps_as_sent: bool = False
    retention_s: float = 7 * 86400.0
    retained_jobs: int = 5000
    pictures_quota_bytes: int = 20 * 2**30
    retention_every_s: float = 600.0
    abandon_grace_s: float = 2.0


class JobService:
    """The one way in (submit) and the one way out (watch) of every job."""

    def __init__(
        self,
        *,
        store: JobStore,
        engine: Engine,
        library: Library,
        pictures: Pictures,
        spool: Path,
        options: ServiceOptions,
    ) -> None:
        self.library = library
        self.pictures = pictures
        self._store = store
        self._engine = engine
        self._spool = spool
        self._options = options
        self._hub = Hub()
        self._worker = WorkerInfo(id=secrets.token_hex(8))
        self._wake = asyncio.Event()
        self._stopping = False
        self._running: Job | None = None
        self._cancels: dict[str, CancelReason] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._lane: asyncio.Task[None] | None = None

    # ---- life ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Recover what an earlier process left, then begin to run jobs. Raises: StoreLocked, StoreCorrupt."""
        for job in await self._store.open():
            log.info("recovered as %s", job.state, extra={"job": job.id})
            await asyncio.to_thread(self.pictures.sweep, job.id, {image.file for image in job.images})
        await asyncio.to_thread(_empty_folder, self._spool)
        await self._engine.start()
        self._lane = asyncio.create_task(self._run_lane(), name="engine-lane")
        self._spawn(self._retain())

    async def stop(self) -> None:
        """Take no more jobs, give the running one back to the queue, stop the engine. Nothing is lost."""
        self._stopping = True
        self._hub.close()
        for task in (self._lane, *self._tasks):
            if task is not None and task.get_name() != "finish":
                task.cancel()
        await self._engine.stop()
        tasks = [task for task in (self._lane, *self._tasks) if task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._store.close()

    def begin_stop(self) -> None:
        """End the streams: called before the server waits for its connections."""
        self._stopping = True
        self._hub.close()

    # ---- in --------------------------------------------------------------------------------------

    async def submit(self, request: GenerationRequest, origin: Origin) -> Job:
        """Store a job for this request; it is on disk when this returns.

        Raises: InvalidRequest, ModelNotFound, ModelNotOnDisk, QueueFull, OwnerQueueFull, IdempotencyConflict,
        StorageFull, Unavailable.
        """
        spec = self.library.find(request.model)
        self.library.folder(spec)
        if request.steps is None and self._options.default_steps is not None:
            request = request.model_copy(update={"steps": self._options.default_steps})
        resolution = resolve(
            request,
            spec,
            self._options.limits,
            random_seed=lambda: secrets.randbelow(2**32),
            default_quantize=self._options.quantize,
            steps_as_sent=self._options.steps_as_sent,
            leniency=origin.leniency,
        )
        new = _new_job(resolution.plan, origin, request.fingerprint())
        return await self._submit(replace(new, adjustments=resolution.adjustments))

    async def submit_load(self, model: str, origin: Origin) -> Job:
        """Store a job that brings a model into memory. Raises: as submit."""
        spec = self.library.find(model)
        self.library.folder(spec)
        plan = Load(model=spec.name, quantize=spec.quantize or self._options.quantize)
        return await self._submit(_new_job(plan, origin, spec.name))

    async def _submit(self, new: NewJob) -> Job:
        if self._stopping:
            raise Unavailable("The gateway is stopping.", retry_after_s=5)
        submitted = await asyncio.shield(self._store.submit(new, self._options.bounds))
        job = submitted.job
        if submitted.created:
            log.info("queued", extra={"job": job.id, "protocol": job.protocol, "model": job.plan.model})
            self._hub.publish(job.events[-1])
            self._wake.set()
        return job

    async def keep_input(self, picture: bytes) -> str:
        """Store a checked input picture; returns the name by which a request refers to it."""
        return await self._store.put_blob(picture)

    # ---- out -------------------------------------------------------------------------------------

    async def get(self, job_id: str, owner: str | None = None) -> Job:
        """Raises: JobNotFound, also where the job is somebody else's."""
        job = await self._store.get(job_id)
        if owner is not None and job.owner != owner:
            raise JobNotFound
        return job

    async def list_jobs(
        self, *, owner: str | None, limit: int = 100, before: int | None = None, protocol: str | None = None
    ) -> list[Job]:
        return await self._store.list_jobs(owner=owner, limit=limit, before=before, protocol=protocol)

    async def waiting(self, *, limit: int = 100) -> list[Job]:
        """Queued jobs in the order in which they will run."""
        return await self._store.waiting(limit=limit)

    async def position(self, job_id: str) -> int | None:
        """How many jobs run or wait before this one; None once it has ended."""
        return await self._store.position(job_id)

    async def check_store(self) -> None:
        """Raises: whatever keeps the store from being written."""
        await self._store.check()

    async def stats(self) -> Stats:
        return await self._store.stats()

    def running(self) -> Job | None:
        """The job the engine draws now."""
        return self._running

    def progress(self, job_id: str) -> Progress | None:
        """How far a running job is; None where it does not run."""
        return self._hub.progress(job_id)

    def watchers(self, job_id: str) -> int:
        """How many streams follow this very job."""
        return self._hub.watchers(job_id)

    @property
    def engine(self) -> EngineStatus:
        return self._engine.status

    async def watch(self, job_id: str, after: int = 0) -> AsyncGenerator[Event, None]:
        """Every state event with seq > `after`, and the newest progress, until the job has ended or the gateway stops.

        Replay and live are one loop: no gap, no duplicate. Raises: JobNotFound.
        """
        with self._hub.subscribe(job_id) as live:
            job = await self._store.get(job_id)
            for event in job.events[after:]:
                yield event
            if job.state is not None and job.state.terminal:
                return
            seq = max(after, job.seq)
            if (newest := self._hub.newest(job_id)) is not None:
                yield newest
            async for news in live:
                if isinstance(news, JobEvent):
                    if news.seq <= seq:
                        continue
                    seq = news.seq
                yield news
                if isinstance(news, JobEvent) and _ends(news):
                    return

    async def ended(self, job_id: str) -> Job:
        """The job once it has ended. Raises: Unavailable where the gateway stops first."""
        job = await self._store.get(job_id)
        if job.state is not None and job.state.terminal:
            return job
        async for _ in self.watch(job_id, after=job.seq):
            pass
        job = await self._store.get(job_id)
        if job.state is None or not job.state.terminal:
            raise Unavailable("The gateway is stopping; the job is kept.", retry_after_s=5)
        return job

    async def cancel(self, job_id: str, reason: CancelReason = "user") -> Job:
        """Stop a job and return it as it ended, which may be a success that came first. Raises: JobNotFound."""
        await asyncio.shield(self._cancel(job_id, reason))
        return await self.ended(job_id)

    async def _cancel(self, job_id: str, reason: CancelReason) -> None:
        before = await self._store.get(job_id)
        job = await self._store.cancel(job_id, reason)
        for event in job.events[before.seq :]:
            self._publish(job, event)
        if job.state is State.RUNNING:
            self._cancels[job_id] = reason
            await self._engine.cancel(job_id)

    def abandon(self, job: Job) -> None:
        """The client that waited for this job hung up (R-09): stop it, unless somebody else still wants it."""
        if job.idempotency_key is None and not self._stopping:
            self._spawn(self._abandon(job.id))

    async def _abandon(self, job_id: str) -> None:
        job = await self._store.get(job_id)
        if job.state is State.RUNNING:
            await asyncio.sleep(self._options.abandon_grace_s)
        if self.watchers(job_id) == 0:
            await self._cancel(job_id, "client_gone")

    # ---- the engine's lane -----------------------------------------------------------------------

    async def _run_lane(self) -> None:
        while True:
            await self._engine.wait_ready()
            self._wake.clear()
            try:
                lease = await self._store.claim(self._worker)
            except Exception:
                log.exception("claim failed")
                await asyncio.sleep(1.0)
                continue
            if lease is None:
                await self._wake.wait()
                continue
            try:
                await self._run(lease)
            except (asyncio.CancelledError, EngineStopped):
                await asyncio.shield(self._store.release(lease, "gateway_restart"))
                raise
            except Exception:
                log.exception("run failed", extra={"job": lease.job.id})
                await self._end(lease, Failed(code="internal_error", message="The gateway made a mistake."))
            finally:
                self._running = None

    async def _run(self, lease: Lease) -> None:
        """Have the engine do one claimed job; filing its last pictures goes on while the next job runs."""
        job = self._running = lease.job
        self._hub.begin(job.id, _pictures(job.plan), job.first_undrawn)
        self._publish(job, job.events[-1])
        try:
            command = await self._command(job)
        except ModelNotOnDisk as error:
            return await self._end(lease, Failed(code="model_missing", message=error.message))
        except KeyError:
            return await self._end(lease, Failed(code="bad_input", message="The input picture is gone."))
        except StorageFull as error:
            return await self._end(lease, Failed(code="disk_full", message=error.message))

        filing: asyncio.Task[Failed | None] | None = None
        outcome: Outcome | None = None
        try:
            if job.id in self._cancels:
                outcome = Cancelled()
            else:
                async for fact in self._engine.run(command):
                    if isinstance(fact, Drawn):
                        filing = asyncio.create_task(self._file(filing, lease, fact))
                    else:
                        outcome = self._tell(job, fact) or outcome
        except EngineDied as death:
            failure = await filing if filing else None
            return await self._after_death(lease, death, failure)
        except (asyncio.CancelledError, EngineStopped):
            if filing is not None:
                await asyncio.shield(filing)
            raise
        self._spawn(self._finish(lease, filing, outcome), name="finish")

    async def _command(self, job: Job) -> Run:
        spec = self.library.find(job.plan.model)
        folder = self.library.folder(spec)
        init_image = None
        if isinstance(job.plan, Generate) and job.plan.init_image is not None:
            data = await self._store.blob(job.plan.init_image)
            init_image = self._spool / f"{job.id}.{job.attempt}.input.png"
            await asyncio.to_thread(init_image.write_bytes, data)
        return Run(
            job=job.id,
            attempt=job.attempt,
            plan=job.plan,
            spec=spec,
            model_path=str(folder),
            init_image_path=str(init_image) if init_image else None,
            spool_dir=str(self._spool),
            first_image=job.first_undrawn,
        )

    def _tell(self, job: Job, fact: EngineFact) -> Outcome | None:
        """Broadcast progress; hand back an outcome."""
        if isinstance(fact, Succeeded | Failed | Cancelled):
            return fact
        if not isinstance(fact, Drawn):
            self._hub.publish_progress(job.id, fact)
        return None

    async def _file(self, earlier: asyncio.Task[Failed | None] | None, lease: Lease, drawn: Drawn) -> Failed | None:
        """Encode one picture, put it on disk, then into the row; in order of the pictures."""
        job = lease.job
        name = f"{job.id}.{job.attempt}.{drawn.image}.png"
        try:
            await asyncio.to_thread(self.pictures.keep, self._spool / drawn.spool, name)
        except StorageFull as error:
            return Failed(code="disk_full", message=error.message)
        if earlier is not None and (failure := await earlier) is not None:
            return failure
        done = ImageDone(
            image=drawn.image,
            seed=drawn.seed,
            file=name,
            width_px=drawn.width_px,
            height_px=drawn.height_px,
            drawn_px=drawn.drawn_px,
            seconds=drawn.seconds,
        )
        event = await self._store.record(lease, done)
        if event is None:
            await asyncio.to_thread(self.pictures.remove, name)
        else:
            self._publish(job, event)
        return None

    async def _finish(self, lease: Lease, filing: asyncio.Task[Failed | None] | None, outcome: Outcome | None) -> None:
        failure = await filing if filing is not None else None
        await self._end(lease, failure or outcome or Failed(code="internal_error", message="The engine fell silent."))

    async def _after_death(self, lease: Lease, death: EngineDied, failure: Failed | None) -> None:
        if failure is not None:
            return await self._end(lease, failure)
        job = await self._store.get(lease.job.id)
        if job.cancel_requested is not None:
            return await self._end(lease, Cancelled(reason=job.cancel_requested))
        if job.crashes >= CRASHES_ALLOWED:
            return await self._end(lease, Failed(code=death.reason, message=FAILURE_TEXT[death.reason]))
        timed_out = death.reason == "engine_timeout"
        released = await self._store.release(lease, "engine_timeout" if timed_out else "engine_crash")
        if released is not None:
            self._publish(released, released.events[-1])
            self._hub.end(job.id)

    async def _end(self, lease: Lease, outcome: Outcome) -> None:
        if isinstance(outcome, Cancelled):
            outcome = Cancelled(reason=self._cancels.get(lease.job.id, outcome.reason))
        verdict, job = await self._store.commit(lease, outcome)
        self._cancels.pop(lease.job.id, None)
        if verdict == "committed":
            self._publish(job, job.events[-1])
        self._hub.end(lease.job.id)
        for leftover in self._spool.glob(f"{lease.job.id}.*"):
            leftover.unlink(missing_ok=True)

    def _publish(self, job: Job, event: JobEvent) -> None:
        log.info(event.fact.kind, extra={"job": job.id, "seq": event.seq})
        self._hub.publish(event)

    # ---- retention -------------------------------------------------------------------------------

    async def _retain(self) -> None:
        while True:
            try:
                await self.retain_once()
            except Exception:
                log.exception("retention failed")
            await asyncio.sleep(self._options.retention_every_s)

    async def retain_once(self) -> None:
        """Forget ended jobs past their time with their inputs; remove the oldest pictures over the quota."""
        old = time.time() - self._options.retention_s
        while ended := await self._store.ended_before(old, keep_newest=self._options.retained_jobs):
            await self._store.delete([job.id for job in ended])
        await self._store.drop_unused_blobs(grace_s=3600.0)
        await asyncio.to_thread(self.pictures.shrink, self._options.pictures_quota_bytes)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str | None = None) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _new_job(plan: Plans, origin: Origin, fingerprint: str) -> NewJob:
    return NewJob(
        id=secrets.token_hex(16),
        owner=origin.owner,
        protocol=origin.protocol,
        plan=plan,
        attached=origin.attached,
        priority=origin.priority,
        idempotency_key=origin.idempotency_key,
        fingerprint=fingerprint,
    )


def _pictures(plan: Plans) -> int:
    match plan:
        case Generate(seeds=seeds):
            return len(seeds)
        case Load():
            return 1
        case _:
            assert_never(plan)


def _ends(event: JobEvent) -> bool:
    return isinstance(event.fact, Succeeded | Failed | Cancelled)


def _empty_folder(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, mode=0o700)
