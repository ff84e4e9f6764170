"""The base of every lane: claims one job after the other, runs it, and records its outcome.

Knows the store and the event bus; the subclass knows how to run a job. Knows no client and no protocol.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, TypeVar

from engine.protocol import Cancelled, CancelReason, Failed, FailureCode
from gateway.disk import fault_of
from gateway.errors import JobDamaged, JobNotFound, StorageFault, StorageFull, TooManyOpenFiles
from gateway.events.bus import EventBus
from gateway.jobs.facts import CancelRequested, RequeueReason
from gateway.jobs.job import CRASHES_ALLOWED, Job, JobEvent, Outcome, State, StateFacts
from gateway.jobs.plans import Lane, lane_of
from gateway.lanes.leases import Leases
from gateway.lanes.pending_stops import Stops
from gateway.store.base import JobStore, Lease, WorkerInfo
from gateway.store.folder_health import SOUND_S, StorageHealth

log = logging.getLogger("gateway.lane")

T = TypeVar("T")

RETRY_S = (0.1, 0.5, 1.0, 2.0)
"""Seconds between tries of a necessary write, and between checks of a place at fault; the last one repeats."""
REST_S = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds after a job was put back, before a job is claimed; the last one repeats."""
PUT_BACK_MOST = 20
"""Times in a row that a job may blame a place without a fault (some minutes) before it fails."""


class LaneRunner(ABC):
    """The runner of a lane: one job at a time. The subclass has `start` and `stop`."""

    lane: Lane
    stops: tuple[type[BaseException], ...] = (asyncio.CancelledError,)
    """Exceptions of a running job when the gateway stops: the job goes back to the queue."""
    places: tuple[str, ...] = ()
    """Keys of the folders that its jobs write to: no job is claimed while one of them is at fault."""

    def __init__(
        self,
        *,
        store: JobStore,
        bus: EventBus,
        storage: StorageHealth | None = None,
        stops: Stops | None = None,
        leases: Leases | None = None,
        accepts: Callable[[Job], Awaitable[bool]] | None = None,
    ) -> None:
        """`leases` are renewed while jobs run; None: no other process claims jobs of this store. `accepts` is whether a
        claimed job may run here, since it may have come a moment before its claim; None: each may.
        """
        self._accepts = accepts
        self._store = store
        self._bus = bus
        self._storage = storage or StorageHealth({})
        self._stops = stops or Stops(store)
        self._blamed: set[str] = set()
        """Further places for which jobs were put back."""
        self._put_backs: Counter[str] = Counter()
        self._rests_until = 0.0
        self.fault: StorageFault | None = None
        """Why no job is claimed now; None where jobs are claimed."""
        self._leases = leases
        lease_s = None if leases is None else leases.lease_s
        self._worker = WorkerInfo(id=secrets.token_hex(8), lane=self.lane, lease_s=lease_s)
        self._remote_cancels: dict[str, CancelReason] = {}
        """Running jobs of this lane, here or elsewhere, whose cancel is requested."""
        self._is_draining = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._cancels: dict[str, CancelReason] = {}
        self._loop: asyncio.Task[None] | None = None
        self._stopping = False
        self._is_idle = False
        """Whether the lane waits to be woken."""
        self._is_free = asyncio.Event()
        """Set unless a job is being submitted that the lane claims with its submit."""
        self._is_free.set()
        self._given: Lease | None = None
        self._at_work: dict[str, Job] = {}
        """The jobs that run now, in the order of their starts."""
        bus.listen(self.on_event)

    def on_event(self, job: Job, event: JobEvent) -> None:
        """Wake the lane for a job that waits for it; stop the running job if another process has requested that."""
        if lane_of(job.plan) != self.lane:
            return
        if job.state is State.QUEUED:
            self.wake()
        if self._leases is None:
            return
        if isinstance(event.fact, CancelRequested):
            self._remote_cancels[job.id] = event.fact.reason
            if self._runs(job) and job.id not in self._cancels:
                self._spawn(self.cancel(job.id, event.fact.reason))
        elif job.state is not State.RUNNING:
            self._remote_cancels.pop(job.id, None)

    def _runs(self, job: Job) -> bool:
        running = self._at_work.get(job.id)
        return running is not None and running.attempt == job.attempt

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def is_draining(self) -> bool:
        return self._is_draining

    def drain(self, is_draining: bool = True) -> None:
        """Claim no more jobs, or claim jobs again; the running job goes on."""
        self._is_draining = is_draining
        self.wake()

    @property
    def running(self) -> Job | None:
        """The job that runs now; of two the later one."""
        return next(reversed(self._at_work.values()), None)

    def runs(self, job_id: str) -> bool:
        """Whether the job runs now."""
        return job_id in self._at_work

    @abstractmethod
    async def start(self) -> None: ...

    @abstractmethod
    async def stop(self) -> None:
        """Put the running job back into the queue."""

    @abstractmethod
    async def cancel(self, job_id: str, reason: CancelReason) -> None:
        """Stop a claimed job; the store has recorded the request."""

    @abstractmethod
    async def _halt(self, job_id: str) -> None:
        """Stop the work on a running job whose lease is lost; records nothing."""

    @abstractmethod
    async def _wait_ready(self) -> None:
        """Wait until a job could run."""

    @property
    def _is_ready(self) -> bool:
        """Whether `_wait_ready` would return at once."""
        return True

    async def _idle(self) -> None:
        """Wait until there may be a job to claim."""
        await self._wait_to_wake()

    async def _wait_to_wake(self) -> None:
        self._is_idle = True
        try:
            await self._wake.wait()
        finally:
            self._is_idle = False

    @contextmanager
    def reserved(self) -> Iterator[WorkerInfo | None]:
        """The worker, for a job that it claims with its submit; None where the lane is not idle, or could not run it.

        The lane claims nothing else meanwhile; `give` hands it the lease.
        """
        is_taken = not self._is_free.is_set() or self._given is not None or self._is_draining
        if not self._is_idle or not self._is_ready or is_taken:
            yield None
            return
        self._is_free.clear()
        try:
            yield self._claimant()
        finally:
            self._is_free.set()
            self.wake()

    def give(self, lease: Lease) -> None:
        """Run a job that was claimed with its submit."""
        self._given = lease

    async def _next_lease(self) -> Lease | None:
        await self._is_free.wait()
        if (given := self._given) is not None:
            self._given = None
            return given
        if self._is_draining:
            return None
        return await self._surely(lambda: self._store.claim(self._claimant()), "claim")

    def _claimant(self) -> WorkerInfo:
        """The worker that claims, with its models; stopped jobs are held."""
        return replace(self._worker, held_jobs=self._stops.ids)

    @abstractmethod
    async def _do(self, lease: Lease) -> None:
        """Run a job and end it. Raises: one of `stops`."""

    @abstractmethod
    def _tidy(self, job_id: str) -> None:
        """Remove the temporary files of a job. Blocks."""

    def wake(self) -> None:
        """Wake the lane: there may be a job to claim."""
        self._wake.set()

    async def _run(self) -> None:
        try:
            await self._run_jobs()
        finally:
            if self._given is not None:
                await asyncio.shield(self._store.release(self._given, "gateway_restart"))

    async def _run_jobs(self) -> None:
        while True:
            await self._wait_ready()
            await self._wait_for_places()
            self._wake.clear()
            lease = await self._next_lease()
            self._blame(None)
            if lease is None:
                await self._idle()
                continue
            self._begin_work(lease)
            await self._attend(lease)

    async def _attend(self, lease: Lease) -> None:
        """Run a job until the lane may claim the next one. Raises: one of `stops`; the job is put back then."""
        self._at_work[lease.job.id] = lease.job
        try:
            if self._accepts is None or await self._accepts(lease.job):
                await self._do(lease)
            else:
                await self._give_back(lease, "released")
        except self.stops:
            await asyncio.shield(self._store.release(lease, "gateway_restart"))
            raise
        except Exception as error:
            if (fault := fault_of(error)) is not None:
                return await self._put_back(lease, fault)
            log.exception("the lane failed on a job", extra={"job": lease.job.id})
            await self._end(lease, Failed(code="internal_error", message="The gateway made a mistake."))
        finally:
            self._leave(lease)

    def _leave(self, lease: Lease) -> None:
        """The job no longer runs, whether its end is on disk or not."""
        if self._at_work.get(lease.job.id) is lease.job:
            del self._at_work[lease.job.id]

    def _begin_work(self, lease: Lease) -> None:
        job = lease.job
        self._stops.begin_work(job.id)
        reason = self._stops.reason(job.id)
        if self._leases is not None:
            self._leases.add(lease, self._lose)
            reason = reason or self._remote_cancels.get(job.id) or job.cancel_requested
        if reason is not None:
            self._cancels.setdefault(job.id, reason)

    def _end_work(self, lease: Lease) -> None:
        """The lane no longer runs the job; the store has its end, or that it waits again."""
        if self._leases is not None:
            self._leases.drop(lease)

    def _lose(self, lease: Lease) -> None:
        """Stop the work on a job that another process has."""
        if self._runs(lease.job):
            self._spawn(self._halt(lease.job.id))

    def _is_lost(self, lease: Lease) -> bool:
        return self._leases is not None and self._leases.is_lost(lease)

    async def _died(self, lease: Lease, code: FailureCode, message: str) -> None:
        """The process of a job died: the first time the job waits again, the second time it fails with `message`."""
        job = await self._surely(lambda: self._store.get(lease.job.id), "get")
        if job.crashes >= CRASHES_ALLOWED and job.cancel_requested is None:
            return await self._end(lease, Failed(code=code, message=message))
        await self._give_back(lease, code if code == "engine_timeout" else "engine_crash")

    async def _give_back(self, lease: Lease, why: RequeueReason) -> None:
        """Put a job back to its place in the queue; end it where it was stopped meanwhile."""
        job_id = lease.job.id
        self._stops.end_work(job_id)
        if self._is_lost(lease):
            return await self._leave_to_others(lease)

        async def write() -> None:
            job = await self._store.get(job_id)
            if (reason := self._cancels.get(job_id) or job.cancel_requested) is not None:
                await self._store.commit(lease, Cancelled(reason=reason))
                return
            await self._store.release(lease, why)
            if (reason := self._cancels.get(job_id)) is not None:  # the stop came during the release
                await self._store.cancel(job_id, reason)

        with suppress(JobDamaged, JobNotFound):  # there is no job to put back
            await self._surely(write, "release")
        self._end_work(lease)
        self._cancels.pop(job_id, None)
        self._bus.end(job_id)

    async def _leave_to_others(self, lease: Lease) -> None:
        """Forget a job whose lease is lost; a later attempt of it may run here already."""
        self._end_work(lease)
        if self.running is None or self.running.id != lease.job.id or self._runs(lease.job):
            self._cancels.pop(lease.job.id, None)
            await asyncio.to_thread(self._tidy, lease.job.id)

    async def _end(self, lease: Lease, outcome: Outcome) -> None:
        """Commit the outcome of a job and remove its temporary files."""
        await self._commit(lease, outcome)

    async def _commit(self, lease: Lease, outcome: Outcome, *facts: StateFacts) -> bool:
        """Like `_end`, with facts that are recorded before the outcome; False where the lease held the job no more."""
        job_id = lease.job.id
        if isinstance(outcome, Cancelled):
            outcome = Cancelled(reason=self._cancels.get(job_id, outcome.reason))
        self._stops.end_work(job_id)
        if self._is_lost(lease):
            await self._leave_to_others(lease)
            return False

        def not_yet() -> None:
            if isinstance(outcome, Cancelled):
                self._stops.end_later(job_id, outcome)

        committed, _ = await self._surely(lambda: self._store.commit(lease, outcome, *facts), "commit", not_yet)
        self._end_work(lease)
        self._stops.forget(job_id)
        self._put_backs.pop(job_id, None)
        self._cancels.pop(job_id, None)
        self._bus.end(job_id)
        await asyncio.to_thread(self._tidy, job_id)
        return committed != "fenced"

    # ---- places at fault -------------------------------------------------------------------------

    async def _put_back(self, lease: Lease, fault: StorageFault) -> None:
        """Put a job back where a place is at fault, not the job; no job is claimed before the place works again.

        A job that repeatedly blames a place without a fault fails with the fault's code; a lack of descriptors
        belongs to no place, and passes.
        """
        job_id = lease.job.id
        self._blame(fault)
        self._storage.doubt()
        self._put_backs[job_id] += 1
        tries = self._put_backs[job_id]
        if tries > PUT_BACK_MOST and not isinstance(fault, TooManyOpenFiles):
            code: FailureCode = "disk_full" if isinstance(fault, StorageFull) else "storage_fault"
            return await self._end(lease, Failed(code=code, message=fault.message))
        self._rests_until = asyncio.get_running_loop().time() + REST_S[min(tries - 1, len(REST_S) - 1)]
        await self._give_back(lease, "storage_fault")
        await asyncio.to_thread(self._tidy, job_id)

    async def _wait_for_places(self) -> None:
        """Wait until all places of the lane can be written, or no job waits."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._rests_until - loop.time()))
        tries = 0
        while self._store.depth(self.lane):
            fault = await self._storage.fault((*self.places, *sorted(self._blamed)), newer_than_s=SOUND_S)
            if fault is None:
                break
            self._put_backs.clear()  # the place was really at fault
            self._blame(fault)
            await asyncio.sleep(RETRY_S[min(tries, len(RETRY_S) - 1)])
            tries += 1
        self._blamed.clear()

    def _blame(self, fault: StorageFault | None) -> None:
        """Set and log why no job is claimed, once for each reason; None: jobs are claimed again."""
        before, self.fault = self.fault, fault
        if fault is not None and (before is None or before.message != fault.message):
            log.error("the %s lane takes no jobs: %s", self.lane, fault.message)
        elif fault is None and before is not None:
            log.info("the %s lane goes on", self.lane)

    async def _surely(
        self, write: Callable[[], Awaitable[T]], what: str, not_yet: Callable[[], None] = lambda: None
    ) -> T:
        """Write with retries until the store has it, so that a full disk ends no lane and loses no outcome.

        `not_yet` is called at each failure.
        """
        for tries in range(2**31):
            try:
                result = await write()
                if tries:
                    self._blame(None)
                return result
            except (JobDamaged, JobNotFound):
                raise  # more tries would not help
            except Exception as error:
                if self._stopping:
                    raise
                if (fault := fault_of(error)) is not None:
                    self._blame(fault)
                else:
                    log.exception("%s failed; trying again", what)
                not_yet()
                await asyncio.sleep(RETRY_S[min(tries, len(RETRY_S) - 1)])
        raise AssertionError("unreachable")
