"""The engine's lane: runs its jobs in the engine and files their images.

Knows the store, the engine and the event bus; no client and no protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from engine.catalog import ModelSpec
from engine.client import DeathReason, Engine, EngineDied, EngineStopped
from engine.client.turn import Phase
from engine.clock import patience
from engine.protocol import (
    Cancelled,
    CancelReason,
    Denoised,
    Drawn,
    Failed,
    Generate,
    ModelLoaded,
    PromptRead,
    Run,
    Sampling,
    Save,
    Succeeded,
    Upscale,
    input_name,
)
from gateway.disk import telling
from gateway.errors import (
    GatewayError,
    InsufficientMemory,
    ModelNotFound,
    ModelNotOnDisk,
    ModelNotServed,
    ModelUnavailable,
    StorageFault,
    StorageFull,
)
from gateway.events.bus import EventBus
from gateway.forecast import Forecaster
from gateway.images.output import OutputFolder
from gateway.jobs.job import Job, JobEvent, Outcome, Plans, StateFacts
from gateway.jobs.plans import Download, EngineJob, Ocr, part_count
from gateway.lanes.base import LaneRunner
from gateway.lanes.filing import Filed, Filing
from gateway.lanes.leases import Leases
from gateway.lanes.pending_stops import Stops
from gateway.models.library import Library
from gateway.private_files import write_private
from gateway.residency import Beside, ResidencyManager, Shortage
from gateway.store.base import JobStore, Lease, WorkerInfo
from gateway.store.folder_health import SPOOL, Place, StorageHealth

log = logging.getLogger("gateway.lane")

FAILURE_TEXT: dict[DeathReason, str] = {
    "engine_crash": "The engine stopped twice while drawing this picture. A smaller size may help.",
    "engine_timeout": "The engine made no progress twice while drawing this picture.",
}


PLACED_S = 1.0
"""Seconds for which the places of a submitted job stay valid."""
OF_ANY_PLACE = frozenset({"internal_error", "bad_input", "model_missing", "model_load_failed"})
"""Codes of failures that a missing folder can cause."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the weights of a plan are, and what is done beside decoding."""

    plan: Plans
    at: float
    """Seconds of a monotonic clock."""
    folder: Path
    also: tuple[Path, ...]
    """Folders of further repositories."""
    copy: Path | None
    """Folder of the quantised copy."""
    beside: Beside


class EngineLane(LaneRunner):
    """The lane of the engine: denoises one job at a time. The last image of a job is decoded and filed while the next
    job runs.
    """

    lane = "engine"
    stops = (asyncio.CancelledError, EngineStopped)
    places = ("spool", "output", "inputs")

    def __init__(
        self,
        *,
        store: JobStore,
        engine: Engine,
        bus: EventBus,
        library: Library,
        output: OutputFolder,
        inputs: Callable[[str], Awaitable[bytes]],
        spool: Path,
        forecaster: Forecaster,
        residency: ResidencyManager,
        claimable: Callable[[], frozenset[str] | None] = lambda: None,
        held_jobs: Callable[[], frozenset[str]] = frozenset,
        storage: StorageHealth | None = None,
        stops: Stops | None = None,
        leases: Leases | None = None,
        accepts: Callable[[Job], Awaitable[bool]] | None = None,
    ) -> None:
        super().__init__(
            store=store,
            bus=bus,
            storage=storage or StorageHealth({"spool": Place(SPOOL, spool), "output": output.place}),
            stops=stops,
            leases=leases,
            accepts=accepts,
        )
        self._residency = residency
        self._unsaved: Run | None = None
        """The run that loaded the model in memory, where a quantised copy of it should be saved."""
        self._forecaster = forecaster
        self._claimable = claimable
        self._held_jobs = held_jobs
        self._engine = engine
        self._library = library
        self._inputs = inputs
        self._output = output
        self._spool = spool
        self._works: set[asyncio.Task[None]] = set()
        """One for each job, until its end is on disk."""
        self._frees: dict[str, asyncio.Event] = {}
        """Of each job: whether the engine could take the next one."""
        self._placed: Placed | None = None
        """Of the newest job that was submitted while the lane was idle."""
        self._decoding: Job | None = None
        """The job whose last image is decoded while the next one may run."""

    async def start(self) -> None:
        await asyncio.to_thread(_empty_folder, self._spool)
        self._engine.on_memory, self._engine.keeps = self._residency.on_memory, self._keeps
        await self._engine.start()
        await self._engine.wait_begun()
        self._loop = asyncio.create_task(self._run(), name="engine lane")

    async def stop(self) -> None:
        """Put the running job back into the queue and stop the engine; drawn images are filed before this returns."""
        self._stopping = True
        if self._loop is not None:
            self._loop.cancel()
        await self._engine.stop()
        if self._loop is not None:
            await asyncio.gather(self._loop, *self._works, return_exceptions=True)

    async def cancel(self, job_id: str, reason: CancelReason) -> None:
        """Stop a claimed job; the store has recorded the request."""
        self._cancels[job_id] = reason
        await self._engine.cancel(job_id)

    async def _halt(self, job_id: str) -> None:
        await self._engine.cancel(job_id)

    def skip(self, job_id: str) -> None:
        """Finish the current image as it is."""
        self._engine.skip(job_id)

    # ---- one job after the other -----------------------------------------------------------------

    def _claimant(self) -> WorkerInfo:
        """The worker that claims; jobs whose model or LoRAs are not downloaded yet are skipped."""
        return replace(
            self._worker,
            models=self._claimable(),
            held_jobs=self._held_jobs() | self._stops.ids,
            loaded_model=None if self._leases is None else self._engine.status.loaded_model,
        )

    @property
    def _is_ready(self) -> bool:
        return self._engine.is_free

    async def _wait_ready(self) -> None:
        if self._is_ready:
            return
        if self._engine.status.state == "starting":
            self._forecaster.engine_starts()
        await self._engine.wait_ready()
        self._forecaster.engine_started()

    async def _attend(self, lease: Lease) -> None:
        """Run a job until the engine may take the next one; its end comes by itself."""
        free = self._frees[lease.job.id] = asyncio.Event()
        work = asyncio.create_task(super()._attend(lease))
        self._works.add(work)
        work.add_done_callback(self._forget)
        work.add_done_callback(lambda _: free.set())
        try:
            await free.wait()
        except asyncio.CancelledError:
            if not free.is_set():
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
            raise
        if work.done():
            work.result()

    def _forget(self, work: asyncio.Task[None]) -> None:
        self._works.discard(work)
        error = None if work.cancelled() else work.exception()
        if error is not None and not isinstance(error, self.stops):
            log.error("the end of a job could not be recorded", exc_info=error)

    def _leave(self, lease: Lease) -> None:
        super()._leave(lease)
        if self._decoding is lease.job:
            self._decoding = None
        self._set_free(lease)

    def _set_free(self, lease: Lease) -> None:
        """Let the lane claim the next job."""
        if (free := self._frees.pop(lease.job.id, None)) is not None:
            free.set()

    async def _do(self, lease: Lease) -> None:
        job = lease.job
        self._bus.begin(job.id, part_count(job.plan), job.first_undrawn)
        command = await self._command(job)
        if isinstance(command, Failed):
            if (fault := await self._fault_behind(job.plan, command)) is not None:
                raise fault
            return await self._end(lease, command)
        if self._unsaved is not None and _weights(self._unsaved) != _weights(command):
            await self._save_copy()
        count, hashes_of = part_count(job.plan), self._library.files.hashes
        filing = Filing(self._record, self._output, self._spool, lease, count, hashes_of)
        try:
            is_stopped = job.id in self._cancels or self._is_lost(lease)
            outcome = Cancelled() if is_stopped else await self._draw(lease, command, filing)
        except EngineDied as death:
            failure = await filing.recorded()
            is_crash_at_load = (death.phase, death.reason) == ("loading", "engine_crash")
            if is_crash_at_load and await self._tried(job.plan) is None:  # otherwise the model may not be the cause
                await self._residency.note_death_at_load(command)
            return await self._after_death(lease, death.reason, failure, is_shared=death.is_shared)
        except (asyncio.CancelledError, EngineStopped):
            await filing.recorded()
            raise
        if isinstance(outcome, Failed) and outcome.code == "engine_oom":
            is_shared = len(self._at_work) > 1
            return await self._after_death(lease, "engine_oom", await filing.recorded(), is_shared=is_shared)
        self._leave(lease)
        await self._finish(lease, filing, outcome)

    async def _draw(self, lease: Lease, command: Run, filing: Filing) -> Outcome | None:
        """Run a job in the engine and publish its facts; None where the engine reported no outcome.

        Raises: EngineDied, EngineStopped.
        """
        job = lease.job
        outcome: Outcome | None = None
        async with aclosing(self._engine.run(command)) as facts:
            async for fact in facts:
                match fact:
                    case Drawn():
                        self._forecaster.learn(job.id, fact)
                        filing.add(fact)
                    case PromptRead():
                        if fact not in job.readings:  # recorded in an earlier attempt
                            filing.add(fact)
                    case Denoised():
                        self._forecaster.learn(job.id, fact)
                        self._decoding = job
                        self._set_free(lease)
                    case Succeeded() | Failed() | Cancelled():
                        outcome = fact
                    case _:
                        self._forecaster.learn(job.id, fact)
                        self._bus.publish_progress(job.id, fact, partial(self._forecaster.left_s, job.id))
                if isinstance(fact, ModelLoaded):
                    wants_copy = await self._residency.note_loaded(command, from_copy=fact.from_copy)
                    self._unsaved = command if wants_copy else None
                if filing.has_fault:
                    break
        return outcome

    def place(self, plan: EngineJob, spec: ModelSpec) -> None:
        """Find what the command for a plan needs that was just admitted, if the lane could claim it now. Blocks."""
        if self._is_idle and self._decoding is None:
            with contextlib.suppress(GatewayError):  # the command says so
                self._placed = self._paths(plan, spec, None, is_admitted=True)

    def _keeps(self, run: Run, phase: Phase) -> bool:
        """Whether finishing the current phase of a cancelled job is faster than replacing the engine.

        Finishing a load is faster only where the next job needs the same weights.
        """
        waiting, weights = self._store.order(self.lane), self._library.weights
        is_next = bool(waiting) and weights(waiting[0].model) == weights(run.plan.model)
        if phase in ("waiting", "loading"):
            return is_next
        return self._forecaster.is_worth_keeping(run.job, needs_load=is_next or not waiting)

    async def _command(self, job: Job) -> Run | Failed:
        """The command to the engine, or the failure of a job that can no longer run."""
        plan = job.plan
        assert not isinstance(plan, Ocr | Download), "the store gives this lane its own jobs only"
        try:
            spec = self._library.find(plan.model)
            # A job that was lost with its engine runs alone, so that it shows whether it was the cause.
            before = self._decoding if job.attempt == 1 else None
            placed, self._placed = self._placed, None
            is_new = placed is not None and placed.plan is plan and time.monotonic() - placed.at < PLACED_S
            if placed is None or not is_new or before is not None:
                placed = await asyncio.to_thread(self._paths, plan, spec, before)
            inputs = await self._lay_out_inputs(job)
        except (ModelNotFound, ModelNotOnDisk, ModelNotServed) as error:
            return Failed(code="model_missing", message=error.message)
        except ModelUnavailable as error:
            return Failed(code="model_unavailable", message=error.message)
        except InsufficientMemory as error:
            return Failed(code="engine_oom", message=f"Insufficient memory. {error.details['explanation']}")
        except KeyError:
            return Failed(code="bad_input", message="An input picture, a LoRA, a VAE or a textual inversion is gone.")
        return Run(
            job=job.id,
            attempt=job.attempt,
            plan=plan,
            spec=spec,
            model_path=str(placed.folder),
            copy_path=None if placed.copy is None else str(placed.copy),
            also_paths=tuple(str(path) for path in placed.also),
            inputs=inputs,
            spool_dir=str(self._spool),
            first_image=job.first_undrawn,
            decode_beside=placed.beside.images,
            ends_beside=placed.beside.end and job.attempt == 1,
            begins_beside=placed.beside.begin,
        )

    def _paths(self, plan: EngineJob, spec: ModelSpec, before: Job | None, *, is_admitted: bool = False) -> Placed:
        """Where a plan's weights are, and what is done beside decoding, after a job `before` whose last image is
        decoded. Blocks.

        Raises: ModelNotOnDisk, ModelUnavailable, InsufficientMemory.
        """
        folder, also = self._library.folder(spec), self._library.further_folders(spec)
        if not is_admitted:
            self._residency.admit(plan, spec)
        place = folder.parent if folder.is_file() else folder
        self._storage.see(f"model {plan.model}", Place(f"the folder of {plan.model}", place, is_written=False))
        former = before.plan if before is not None and isinstance(before.plan, Generate) else None
        copy, beside = self._residency.copy_of(plan, spec, folder), self._residency.beside(plan, spec, former)
        return Placed(plan, time.monotonic(), folder, also, copy, beside)

    async def _lay_out_inputs(self, job: Job) -> dict[str, str]:
        """The paths of a plan's inputs by name: blobs, written to files of the job, and files of the library.

        Raises: KeyError, StorageFault, ModelNotFound, ModelNotServed, ModelNotOnDisk.
        """
        files = {}
        for name in sorted(job.plan.inputs):
            file = self._spool / f"{job.id}.{job.attempt}.{name}.png"
            data = await self._inputs(name)
            with telling(SPOOL):
                await asyncio.to_thread(write_private, file, data)
            files[name] = str(file)
        if isinstance(job.plan, Generate):
            for lora in job.plan.loras:
                files[lora.name] = str(await self._library.loras.off_loop(self._library.loras.file, lora.name))
            if job.plan.sampling is not None:
                files |= await asyncio.to_thread(self._sampling_files, job.plan.sampling)
        return files

    def _sampling_files(self, sampling: Sampling) -> dict[str, str]:
        """The paths of the VAE, the textual inversions and the refiner of Stable Diffusion. Blocks.

        Raises: KeyError, ModelNotFound, ModelNotServed, ModelNotOnDisk.
        """
        library = self._library
        files = {input_name("embedding", name): library.embeddings.file(name) for name in sampling.embeddings}
        if sampling.vae is not None:
            files[input_name("vae", sampling.vae)] = library.vaes.file(sampling.vae)
        if sampling.refiner is not None:
            name = sampling.refiner.model
            files[input_name("model", name)] = library.folder(library.find(name))
        return {name: str(file) for name, file in files.items()}

    # ---- the model in memory ---------------------------------------------------------------------

    async def _idle(self) -> None:
        """Save the quantised copy, then wait for a job; unload a model that is unused for too long."""
        if self._unsaved is not None:
            return await self._save_copy()
        idle_s = self._residency.idle_unload_s if self._engine.status.loaded_model is not None else None
        try:
            async with patience(idle_s):
                await self._wait_to_wake()
        except TimeoutError:
            if (model := self._engine.status.loaded_model) is not None:
                log.info("unloading %s: nobody has asked for %g s", model, idle_s)
                await self._engine.unload()

    async def _save_copy(self) -> None:
        """Save a quantised copy before the model is unloaded: quantising again would take longer."""
        run, self._unsaved = self._unsaved, None
        if run is None or run.plan.quantize is None or self._engine.status.loaded_model != run.spec.name:
            return
        source, copies = Path(run.model_path), self._residency.copies
        try:
            folder = await asyncio.to_thread(copies.begin, run.spec, source, run.plan.quantize)
            plan = Save(model=run.spec.name, quantize=run.plan.quantize, folder=str(folder))
            saving = run.model_copy(update={"job": f"copy of {run.spec.name}", "plan": plan, "inputs": {}})
            facts = [fact async for fact in self._engine.run(saving)]
            if facts and isinstance(facts[-1], Succeeded):
                await asyncio.to_thread(copies.finish, folder, source)
                log.info("saved a quantised copy of %s", run.spec.name)
            else:
                await asyncio.to_thread(copies.discard, folder)
        except (OSError, EngineDied):
            log.exception("no quantised copy of %s could be saved", run.spec.name)
            await asyncio.to_thread(copies.sweep)  # a partial copy is of no use

    # ---- images and outcomes -----------------------------------------------------------------------

    async def _record(self, lease: Lease, fact: StateFacts) -> JobEvent | None:
        """Record a fact of a running job. Where others use the store, too, wait while it is away: drawing goes on."""
        if self._leases is None:
            return await self._store.record(lease, fact)

        async def write() -> JobEvent | None:
            return None if self._is_lost(lease) else await self._store.record(lease, fact)

        return await self._surely(write, "record")

    async def _finish(self, lease: Lease, filing: Filing, outcome: Outcome | None) -> None:
        failure: Filed = await filing.written()
        if failure is None and isinstance(outcome, Failed):
            failure = await self._fault_behind(lease.job.plan, outcome)
        if isinstance(failure, StorageFault):
            await filing.recorded()
            return await self._put_back(lease, failure)
        outcome = failure or outcome or Failed(code="internal_error", message="The engine fell silent.")
        last = () if filing.unrecorded is None else (filing.unrecorded,)
        if not await self._commit(lease, outcome, *last):
            await filing.remove_unrecorded()
        await self._residency.keep()

    async def _after_death(
        self, lease: Lease, reason: DeathReason, failure: Failed | StorageFault | None, *, is_shared: bool
    ) -> None:
        """End or put back a job whose engine died or had not enough memory; the images before that are filed.

        Where the engine had another job, too (`is_shared`), that one may be the cause: both go back uncounted, and run
        alone.
        """
        if failure is None:
            failure = await self._lost_model(lease.job.plan)
        if isinstance(failure, StorageFault):
            return await self._put_back(lease, failure)
        if failure is not None:
            return await self._end(lease, failure)
        if is_shared:
            return await self._give_back(lease, "released")
        plan = lease.job.plan
        if (tried := await self._tried(plan)) is not None and reason != "engine_timeout":
            what = "Insufficient memory." if reason == "engine_oom" else "The engine stopped."
            text = f"{what} This was tried although {tried.known}. {tried.fitting}"
            return await self._end(lease, Failed(code=reason, message=text))
        if reason != "engine_oom" or not isinstance(plan, EngineJob):
            return await self._died(lease, reason, FAILURE_TEXT.get(reason, FAILURE_TEXT["engine_crash"]))
        spec, admission = self._library.find(plan.model), self._residency.admission
        text = f"Insufficient memory. {admission.advice(plan, spec)}."
        if admission.fits(plan, spec):
            return await self._died(lease, reason, text)
        await self._end(lease, Failed(code=reason, message=text))

    async def _tried(self, plan: Plans) -> Shortage | None:
        """The known shortage of memory of a job that was accepted although it seemed not to fit."""
        if not isinstance(plan, EngineJob) or plan.memory != "try":
            return None
        spec = self._library.find(plan.model)
        return await asyncio.to_thread(self._residency.admission.shortage, plan, spec)

    # ---- places at fault -------------------------------------------------------------------------

    async def _put_back(self, lease: Lease, fault: StorageFault) -> None:
        """As in every lane; the next check requires the space that was missing."""
        if isinstance(fault, StorageFull):
            self._storage.needs("output", fault.needed_bytes)
        await super()._put_back(lease, fault)

    async def _fault_behind(self, plan: Plans, failed: Failed) -> StorageFault | None:
        """The fault of a place that made the engine fail, if any."""
        if failed.code == "disk_full":
            if isinstance(plan, Generate | Upscale):
                self._storage.needs("spool", 3 * plan.width_px * plan.height_px)
            return StorageFull(f"There is no room left on the disk of {SPOOL}.")
        if failed.code == "storage_fault":
            return StorageFault(failed.message)
        if failed.code not in OF_ANY_PLACE:
            return None
        return await self._lost_model(plan) or await self._storage.fault(self.places)

    async def _lost_model(self, plan: Plans) -> StorageFault | None:
        """The fault of the weights' disk, where it is missing with them."""
        for key in (f"model {plan.model}", "weights"):
            if (fault := await self._storage.fault([key])) is not None:
                self._blamed.add(key)
                return fault
        return None

    def _tidy(self, job_id: str) -> None:
        # No glob: the pattern of each job would be compiled anew.
        with contextlib.suppress(OSError):
            for leftover in self._spool.iterdir():
                if leftover.name.startswith(f"{job_id}."):
                    leftover.unlink(missing_ok=True)


def _weights(run: Run) -> tuple[str, str, int | None]:
    """The identity of the weights in memory after a run."""
    return run.spec.geometry, run.model_path, run.plan.quantize


def _empty_folder(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, mode=0o700)
