"""The engine's lane: claims one job after the other, has it drawn, files its pictures, and records how it ended.

Knows the store, the engine and the hub; no client and no protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar, assert_never

from engine.client import Engine, EngineDied, EngineStopped
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
from gateway.errors import ModelNotOnDisk, StorageFull
from gateway.hub import Hub
from gateway.job import CRASHES_ALLOWED, Job, JobEvent, Outcome, Plans
from gateway.library import Library
from gateway.pictures import Pictures
from gateway.store.base import JobStore, Lease, WorkerInfo

log = logging.getLogger("gateway.lane")

T = TypeVar("T")

FAILURE_TEXT = {
    "engine_crash": "The engine stopped twice while drawing this picture. A smaller size may help.",
    "engine_timeout": "The engine made no progress twice while drawing this picture.",
    "engine_oom": "Insufficient memory. Try a smaller size or a quantised model.",
}
RETRY_S = (0.1, 0.5, 2.0, 5.0, 15.0)
"""Between tries to write what must be written; the last one repeats."""


class EngineLane:
    """One runner, one job at the engine at a time; a job's last pictures are filed while the next one runs."""

    def __init__(
        self, *, store: JobStore, engine: Engine, hub: Hub, library: Library, pictures: Pictures, spool: Path
    ) -> None:
        self._store = store
        self._engine = engine
        self._hub = hub
        self._library = library
        self._pictures = pictures
        self._spool = spool
        self._worker = WorkerInfo(id=secrets.token_hex(8))
        self._wake = asyncio.Event()
        self._cancels: dict[str, CancelReason] = {}
        self._loop: asyncio.Task[None] | None = None
        self._finishing: set[asyncio.Task[None]] = set()
        self.running: Job | None = None
        """The job the engine draws now."""
        self._stopping = False

    async def start(self) -> None:
        await asyncio.to_thread(_empty_folder, self._spool)
        await self._engine.start()
        self._loop = asyncio.create_task(self._run(), name="engine lane")

    async def stop(self) -> None:
        """Give the running job back to the queue and stop the engine; what was drawn is filed before this returns."""
        self._stopping = True
        if self._loop is not None:
            self._loop.cancel()
        await self._engine.stop()
        if self._loop is not None:
            await asyncio.gather(self._loop, *self._finishing, return_exceptions=True)

    def wake(self) -> None:
        """There is a job to claim."""
        self._wake.set()

    async def cancel(self, job_id: str, reason: CancelReason) -> None:
        """Stop a job that was claimed; the store already knows that it was asked to."""
        self._cancels[job_id] = reason
        await self._engine.cancel(job_id)

    # ---- one job after the other -----------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            await self._engine.wait_ready()
            self._wake.clear()
            lease = await self._surely(lambda: self._store.claim(self._worker), "claim")
            if lease is None:
                await self._wake.wait()
                continue
            try:
                await self._do(lease)
            except (asyncio.CancelledError, EngineStopped):
                await asyncio.shield(self._store.release(lease, "gateway_restart"))
                raise
            except Exception:
                log.exception("the lane stumbled", extra={"job": lease.job.id})
                await self._end(lease, Failed(code="internal_error", message="The gateway made a mistake."))
            finally:
                self.running = None

    async def _do(self, lease: Lease) -> None:
        job = self.running = lease.job
        self._hub.begin(job.id, _count(job.plan), job.first_undrawn)
        self._publish(job.events[-1])
        command = await self._command(job)
        if isinstance(command, Failed):
            return await self._end(lease, command)
        filing: asyncio.Task[Failed | None] | None = None
        outcome: Outcome | None = Cancelled() if job.id in self._cancels else None
        try:
            if outcome is None:
                async for fact in self._engine.run(command):
                    if isinstance(fact, Drawn):
                        filing = asyncio.create_task(self._file(filing, lease, fact))
                    else:
                        outcome = self._tell(job, fact)
        except EngineDied as death:
            failure = await filing if filing else None
            return await self._after_death(lease, death, failure)
        except (asyncio.CancelledError, EngineStopped):
            if filing is not None:
                await asyncio.shield(filing)
            raise
        finishing = asyncio.create_task(self._finish(lease, filing, outcome))
        self._finishing.add(finishing)
        finishing.add_done_callback(self._finishing.discard)

    async def _command(self, job: Job) -> Run | Failed:
        """What the engine is told, or why the job cannot be done any more."""
        try:
            spec = self._library.find(job.plan.model)
            folder = self._library.folder(spec)
            inputs = await self._lay_out_inputs(job)
        except ModelNotOnDisk as error:
            return Failed(code="model_missing", message=error.message)
        except KeyError:
            return Failed(code="bad_input", message="The input picture is gone.")
        except OSError:
            log.exception("the input picture could not be laid out", extra={"job": job.id})
            return Failed(code="disk_full", message=StorageFull.message)
        return Run(
            job=job.id,
            attempt=job.attempt,
            plan=job.plan,
            spec=spec,
            model_path=str(folder),
            inputs=inputs,
            spool_dir=str(self._spool),
            first_image=job.first_undrawn,
        )

    async def _lay_out_inputs(self, job: Job) -> dict[str, str]:
        """The blobs of a plan as files that go with the job. Raises: KeyError, OSError."""
        if not isinstance(job.plan, Generate):
            return {}
        files = {}
        for name in sorted(job.plan.inputs):
            file = self._spool / f"{job.id}.{job.attempt}.{name}.png"
            await asyncio.to_thread(file.write_bytes, await self._store.blob(name))
            files[name] = str(file)
        return files

    def _tell(self, job: Job, fact: EngineFact) -> Outcome | None:
        """Broadcast progress; hand back an outcome."""
        if isinstance(fact, Succeeded | Failed | Cancelled):
            return fact
        if not isinstance(fact, Drawn):
            self._hub.publish_progress(job.id, fact)
        return None

    # ---- pictures and ends -----------------------------------------------------------------------

    async def _file(self, earlier: asyncio.Task[Failed | None] | None, lease: Lease, drawn: Drawn) -> Failed | None:
        """Encode one picture, put it on disk, then into the row; in order of the pictures."""
        job = lease.job
        name = f"{job.id}.{job.attempt}.{drawn.image}.png"
        done = ImageDone(
            image=drawn.image,
            seed=drawn.seed,
            file=name,
            width_px=drawn.width_px,
            height_px=drawn.height_px,
            drawn_px=drawn.drawn_px,
            seconds=drawn.seconds,
        )
        try:
            await asyncio.to_thread(self._pictures.keep, self._spool / drawn.spool, name)
            if earlier is not None and (failure := await earlier) is not None:
                return failure
            event = await self._store.record(lease, done)
        except StorageFull as error:
            return Failed(code="disk_full", message=error.message)
        except Exception:
            log.exception("a picture could not be filed", extra={"job": job.id})
            return Failed(code="internal_error", message="The picture could not be filed.")
        if event is None:
            await asyncio.to_thread(self._pictures.remove, name)
        else:
            self._publish(event)
        return None

    async def _finish(self, lease: Lease, filing: asyncio.Task[Failed | None] | None, outcome: Outcome | None) -> None:
        failure = await filing if filing is not None else None
        await self._end(lease, failure or outcome or Failed(code="internal_error", message="The engine fell silent."))

    async def _after_death(self, lease: Lease, death: EngineDied, failure: Failed | None) -> None:
        """The engine took the job with it: once it waits again, twice it fails."""
        if failure is not None:
            return await self._end(lease, failure)
        job = await self._surely(lambda: self._store.get(lease.job.id), "get")
        if job.cancel_requested is not None:
            return await self._end(lease, Cancelled(reason=job.cancel_requested))
        if job.crashes >= CRASHES_ALLOWED:
            return await self._end(lease, Failed(code=death.reason, message=FAILURE_TEXT[death.reason]))
        why = death.reason if death.reason == "engine_timeout" else "engine_crash"
        released = await self._surely(lambda: self._store.release(lease, why), "release")
        self._hub.end(job.id)
        if released is not None:
            self._publish(released.events[-1])

    async def _end(self, lease: Lease, outcome: Outcome) -> None:
        """Commit, tell, tidy up."""
        job_id = lease.job.id
        if isinstance(outcome, Cancelled):
            outcome = Cancelled(reason=self._cancels.get(job_id, outcome.reason))
        verdict, job = await self._surely(lambda: self._store.commit(lease, outcome), "commit")
        self._cancels.pop(job_id, None)
        self._hub.end(job_id)
        if verdict != "fenced":
            self._publish(job.events[-1])
        await asyncio.to_thread(self._tidy, job_id)

    async def _surely(self, write: Callable[[], Awaitable[T]], what: str) -> T:
        """Try until it is on disk: a full disk or a passing fault must not cost the lane, nor the job its end."""
        for tries in range(2**31):
            try:
                return await write()
            except Exception:
                if self._stopping:
                    raise
                log.exception("%s failed; trying again", what)
                await asyncio.sleep(RETRY_S[min(tries, len(RETRY_S) - 1)])
        raise AssertionError("unreachable")

    def _tidy(self, job_id: str) -> None:
        for leftover in self._spool.glob(f"{job_id}.*"):
            leftover.unlink(missing_ok=True)

    def _publish(self, event: JobEvent) -> None:
        log.info(event.fact.kind, extra={"job": event.job_id, "seq": event.seq})
        self._hub.publish(event)


def _count(plan: Plans) -> int:
    """Pictures to make; loading a model counts as one."""
    match plan:
        case Generate(seeds=seeds):
            return len(seeds)
        case Load():
            return 1
        case _:
            assert_never(plan)


def _empty_folder(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, mode=0o700)
