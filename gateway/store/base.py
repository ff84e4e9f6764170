"""What a job store and an event bus must do. One conformance suite holds every implementation to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypedDict, Unpack

from engine.protocol import CancelReason, Failed
from gateway.jobs.facts import RequeueReason
from gateway.jobs.job import Job, JobEvent, NewJob, Outcome, State, StateFacts
from gateway.jobs.order import Waiting
from gateway.jobs.plans import Lane


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """Who claims. `lease_s` None means: this worker is the store's only one and needs no lease."""

    id: str
    lane: Lane = "engine"
    models: frozenset[str] | None = None
    """Models it can run now; None means all."""
    held: frozenset[str] = frozenset()
    """Jobs, by id, that cannot run yet."""
    lease_s: float | None = None

    def may_run(self, job: Waiting) -> bool:
        return job.id not in self.held and (self.models is None or job.model in self.models)


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write the facts of one claimed job; (job.id, job.attempt) is the fence."""

    job: Job
    worker: str


@dataclass(frozen=True, slots=True)
class Submitted:
    """`created` is False where the Idempotency-Key found the job that an earlier call made."""

    job: Job
    created: bool


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts over all jobs on record."""

    by_protocol: Mapping[tuple[State, str], int]
    images: int
    drawing_seconds: float

    @property
    def by_state(self) -> dict[State, int]:
        counts: Counter[State] = Counter()
        for (state, _), count in self.by_protocol.items():
            counts[state] += count
        return dict(counts)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many jobs may wait: in all, and of one owner. Checked in the transaction that stores the job."""

    waiting: int = 1000
    waiting_per_owner: int | None = None


@dataclass(frozen=True, slots=True)
class InputBounds:
    """How many bytes of blobs may be kept: in all, and of one payer. Checked in the transaction that notes one."""

    total_bytes: int
    payer_bytes: int

    @classmethod
    def of(cls, total_bytes: int) -> InputBounds:
        """One payer may take half, so that there is room for others."""
        return cls(total_bytes, total_bytes // 2)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one owner has missed up to the event `number`: the events, or what lives where they are not known."""

    number: int
    events: tuple[JobEvent, ...] = ()
    live: tuple[Job, ...] | None = None
    """Jobs that wait or run, in order of submission; of a long queue those that run and the first ones."""
    live_count: int = 0
    """How many wait or run."""


@dataclass(frozen=True, slots=True)
class DamagedRecord:
    """A job's record that cannot be read and was set aside (R-06); `at` is the Unix time at which it was found."""

    number: int
    job_id: str
    """Empty where not even that can be read."""
    owner: str | None
    """None where it cannot be read."""
    reason: str
    at: float

    @property
    def name(self) -> str:
        return self.job_id or f"record {self.number}"


class JobFilter(TypedDict, total=False):
    """Which jobs a list shows; what is None or not said is no matter."""

    owner: str | None
    states: Sequence[State] | None
    protocol: str | None
    hidden: bool | None
    model: str | None
    words: Sequence[str]
    """All occur in the prompt, or in that of the picture that is enlarged, whatever the case of ASCII letters."""
    among: Collection[str] | None
    """Ids of jobs: only these."""


OnEvent = Callable[[Job, JobEvent], None]
"""Takes an event and the job as the event left it."""
Lost = Callable[[DamagedRecord], None]
"""Takes a record that was set aside while the store was open."""


class JobStore(Protocol):
    """Durable jobs. Every method returns after its write is on disk; none blocks the event loop."""

    async def open(self, on_event: OnEvent | None = None, lose: Lost | None = None) -> list[Job]:
        """Take the store for this process and recover; returns the jobs whose state that changed.

        Records that cannot be read are set aside, now and later; of the later ones `lose` is told on the event loop.

        From here on `hear` is called on the event loop with every event once it is on disk, in the order of their
        numbers, and before the call that wrote it returns. Queued and running attached jobs without an
        Idempotency-Key become Cancelled(client_gone); other running jobs are requeued where they waited.
        Raises: StoreLocked, StoreCorrupt.
        """
        ...

    async def close(self) -> None: ...

    async def submit(self, new: NewJob, bounds: Bounds) -> Submitted:
        """Raises: QueueFull, OwnerQueueFull, IdempotencyConflict, StorageFull."""
        ...

    async def claim(self, worker: WorkerInfo) -> Lease | None:
        """The next job of the worker's lane by `gateway.jobs.order`; None where none waits or the lane is paused."""
        ...

    async def heartbeat(self, lease: Lease) -> Literal["ok", "cancel", "lost"]: ...

    async def record(self, lease: Lease, fact: StateFacts) -> JobEvent | None:
        """Store a fact of a claimed job that does not end it; None where the lease is lost."""
        ...

    async def commit(
        self, lease: Lease, outcome: Outcome
    ) -> tuple[Literal["committed", "already_mine", "fenced"], Job]:
        """End a claimed job. `already_mine` where an earlier try of the same lease got through."""
        ...

    async def release(self, lease: Lease, why: RequeueReason) -> Job | None:
        """Give the job back to its place in the queue; None where the lease is lost."""
        ...

    async def cancel(self, job_id: str, reason: CancelReason) -> Job:
        """Queued: Cancelled at once. Running: CancelRequested. Ended: unchanged. Raises: JobNotFound."""
        ...

    async def refuse(self, job_ids: Sequence[str], failure: Failed) -> list[Job]:
        """End those of these jobs that still wait; returns them."""
        ...

    async def hide(self, job_ids: Sequence[str]) -> None:
        """Mark jobs as shown no more by their protocol; their state does not matter."""
        ...

    async def reap(self) -> list[Job]:
        """Requeue the jobs whose lease expired."""
        ...

    async def get(self, job_id: str, owner: str | None = None) -> Job:
        """Raises: JobNotFound, also where the job is another owner's; JobDamaged where its record was set aside."""
        ...

    async def damaged(self) -> list[DamagedRecord]:
        """The records that were set aside, the oldest first."""
        ...

    async def look_over(self) -> None:
        """Look at every record, and set aside those that are damaged; others read and write between."""
        ...

    def steady(self) -> float:
        """Seconds that pass while a gateway runs and never jump; once they were Unix time."""
        ...

    def clock_jumps(self, within_s: float) -> int:
        """How often the clock was set in the last steady seconds, as far as is remembered."""
        ...

    def age_s(self, date: float) -> float:
        """How many of these seconds ago the clock last showed this date, such as a file's."""
        ...

    async def list_jobs(self, *, limit: int = 100, before: int | None = None, **wanted: Unpack[JobFilter]) -> list[Job]:
        """Newest first; `before` is the number of the last job of the page before."""
        ...

    async def waiting(self, *, owner: str | None = None, limit: int = 100, offset: int = 0) -> list[Job]:
        """Queued jobs, of one owner or of all, in the order in which they will run, one lane after the other.

        The first `offset` of them are left out.
        """
        ...

    def order(self, lane: Lane) -> tuple[Waiting, ...]:
        """The same of one lane, as little as their places need."""
        ...

    def depth(self, lane: Lane) -> int:
        """How many jobs of a lane wait."""
        ...

    def running(self, lane: Lane) -> int:
        """How many jobs of a lane run, those included whose last picture is being filed."""
        ...

    async def move(self, job_id: str, to: int) -> list[Waiting]:
        """Let a waiting job take place `to`, from 0, among its owner's in its lane; returns those that moved.

        Raises: JobNotFound, JobNotWaiting.
        """
        ...

    async def pause(self, lane: Lane, paused: bool) -> None:
        """Claim nothing of this lane until it goes on; outlives restarts."""
        ...

    def is_paused(self, lane: Lane) -> bool: ...

    async def position(self, job_id: str) -> int | None:
        """How many jobs of its lane run or wait before this one; 0 for the running one; None once it has ended."""
        ...

    async def events_after(self, job_id: str, seq: int) -> list[JobEvent]: ...

    async def seen(self, owner: str, after: int | None, *, limit: int = 1000) -> Seen:
        """The owner's events with a number > `after`, the oldest `limit` of them.

        Where `after` is None, unknown, or so old that events since were deleted: the jobs that live.
        """
        ...

    async def keep(self, name: str, value: str) -> None:
        """Keep a small text under a name."""
        ...

    async def kept(self, name: str) -> str | None:
        """What was kept under a name."""
        ...

    async def check(self) -> None:
        """Write something. Raises: StorageFull, or whatever keeps the store from being written."""
        ...

    async def back_up(self, every_s: float) -> bool:
        """Copy what is on record, to go back to, where the newest copy is older than that and no longer the same."""
        ...

    async def stats(self) -> Stats: ...

    async def delete(self, job_ids: Sequence[str]) -> None:
        """Remove ended jobs and their events; others are left."""
        ...

    async def ended_before(self, at: float, *, keep_newest: int, limit: int = 500) -> list[Job]:
        """Ended jobs that retention may remove: ended before `at`, by `steady`, or beyond the newest `keep_newest`."""
        ...

    async def put_blob(
        self,
        data: bytes,
        owner: str | None = None,
        payer: str | None = None,
        bounds: InputBounds | None = None,
        name: str | None = None,
    ) -> str:
        """Store bytes under their sha256 (hex), which is returned; equal bytes belong to all who stored them.

        `name`: the sha256 of what they stand for, where that is larger; of two that stand for the same the smaller is
        kept. They count for `payer`, who is the owner where nothing is said. Raises: StorageFull.
        """
        ...

    async def blob(self, sha256: str, owner: str | None = None) -> bytes:
        """Raises: KeyError, also where `owner` did not store it."""
        ...

    async def blob_bytes(self, sha256: str) -> int:
        """How many bytes are kept of it. Raises: KeyError."""
        ...

    async def drop_unused_blobs(self, grace_s: float) -> int:
        """Remove blobs no job on record names and that are older than `grace_s`; returns how many.

        While records are set aside, what was there before the last of them stays: they may name it.
        """
        ...


class StoreLocked(Exception):
    """Another process holds the data folder."""


class StoreCorrupt(Exception):
    """The data do not pass their check."""
