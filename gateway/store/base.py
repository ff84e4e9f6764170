"""Job store: the interface that every implementation fulfils, held to it by one conformance suite."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypedDict, Unpack

from engine.protocol import CancelReason, Failed
from gateway.jobs.facts import RequeueReason
from gateway.jobs.job import Job, JobEvent, NewJob, Outcome, Plans, State, StateFacts
from gateway.jobs.order import Waiting
from gateway.jobs.plans import Lane


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker that claims jobs. `lease_s` None: this worker is the store's only one and needs no lease."""

    id: str
    lane: Lane = "engine"
    models: frozenset[str] | None = None
    """Models it can run now; None means every model."""
    held_jobs: frozenset[str] = frozenset()
    """Ids of jobs that cannot run yet."""
    lease_s: float | None = None
    loaded_model: str | None = None
    """The model in its memory; None: that of the job that was served last."""

    def may_run(self, job: Waiting) -> bool:
        return job.id not in self.held_jobs and (self.models is None or job.model in self.models)


@dataclass(frozen=True, slots=True)
class Lease:
    """Lease: the right to write the facts of one claimed job; (job.id, job.attempt) is the fence."""

    job: Job
    worker: str


@dataclass(frozen=True, slots=True)
class Submitted:
    """A submitted job. `created` is False if the Idempotency-Key belongs to a job that an earlier call created."""

    job: Job
    """The job as it was submitted, also where it is claimed already."""
    created: bool
    lease: Lease | None = None
    """The lease of a job that was claimed with its submit."""


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts over all jobs in the store."""

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
    """Queue bounds: how many jobs may wait, in all and per owner. Checked in the transaction that stores the job."""

    waiting: int = 1000
    waiting_per_owner: int | None = None


@dataclass(frozen=True, slots=True)
class InputBounds:
    """Input bounds: how many bytes of blobs may be stored, in all and per payer. Checked in the transaction that
    stores a blob.
    """

    total_bytes: int
    payer_bytes: int

    @classmethod
    def of(cls, total_bytes: int) -> InputBounds:
        """The bounds for `total_bytes`: one payer may use half of it, so that others have room."""
        return cls(total_bytes, total_bytes // 2)


@dataclass(frozen=True, slots=True)
class MissedEvents:
    """Events that one owner has missed up to the event `number`; if they are not known, the owner's live jobs."""

    number: int
    events: tuple[JobEvent, ...] = ()
    live: tuple[Job, ...] | None = None
    """Jobs that wait or run, in order of submission; if there are many, the running ones and the first waiting ones."""
    live_count: int = 0
    """How many jobs wait or run."""


@dataclass(frozen=True, slots=True)
class DamagedRecord:
    """A job record that cannot be read and was set aside (R-06); `at` is the Unix time at which it was found."""

    number: int
    job_id: str
    """The job's id; empty if it cannot be read."""
    owner: str | None
    """The job's owner; None if it cannot be read."""
    reason: str
    at: float

    @property
    def name(self) -> str:
        return self.job_id or f"record {self.number}"


class JobFilter(TypedDict, total=False):
    """Job filter: which jobs a list shows; a field that is None or missing does not filter."""

    owner: str | None
    states: Sequence[State] | None
    protocol: str | None
    hidden: bool | None
    model: str | None
    has_images: bool
    """Only jobs with a finished image."""
    words: Sequence[str]
    """Words that all occur in the prompt (or in the prompt of the image that is upscaled); ASCII case is ignored."""
    among: Collection[str] | None
    """Job ids: only these jobs."""


@dataclass(frozen=True, slots=True)
class WaitingPlan:
    """The plan of a waiting job, and how many of its images or pages are there already."""

    job_id: str
    plan: Plans
    done: int


OnEvent = Callable[[Job, JobEvent], None]
"""Callback: takes the job after an event, and the event."""
Lost = Callable[[DamagedRecord], None]
"""Callback: takes a record that was set aside while the store was open."""


class JobStore(Protocol):
    """Job store: durable jobs. Every method returns after its write is on disk; none blocks the event loop."""

    async def open(self, on_event: OnEvent | None = None, lose: Lost | None = None) -> list[Job]:
        """Lock the store for this process and recover its jobs; returns the jobs whose state this changed.

        Records that cannot be read are set aside, now and later; the event loop calls `lose` with each later one.

        From here on `on_event` is called on the event loop with every event after it is on disk, in the order of the
        events' numbers, before the call that wrote the event returns. Queued and running attached jobs without an
        Idempotency-Key become Cancelled(client_gone); other running jobs return to their place in the queue.
        Raises: StoreLocked, StoreCorrupt.
        """
        ...

    async def close(self) -> None: ...

    async def submit(self, new: NewJob, bounds: Bounds, worker: WorkerInfo | None = None) -> Submitted:
        """Store a new job; `worker` claims it where nothing else waits or runs in its lane.

        Raises: QueueFull, OwnerQueueFull, IdempotencyConflict, StorageFull.
        """
        ...

    async def claim(self, worker: WorkerInfo) -> Lease | None:
        """Claim the next job of the worker's lane by `gateway.jobs.order`; None if none waits or the lane is paused."""
        ...

    async def heartbeat(self, lease: Lease) -> Literal["ok", "cancel", "lost"]: ...

    async def record(self, lease: Lease, fact: StateFacts) -> JobEvent | None:
        """Store a fact that does not end a claimed job; None if the lease is lost."""
        ...

    async def commit(
        self, lease: Lease, outcome: Outcome, *facts: StateFacts
    ) -> tuple[Literal["committed", "already_mine", "fenced"], Job]:
        """Record these facts and end a claimed job, in one transaction.

        `already_mine`: an earlier call with the same lease has already ended it.
        """
        ...

    async def release(self, lease: Lease, why: RequeueReason) -> Job | None:
        """Return a claimed job to its place in the queue; None if the lease is lost."""
        ...

    async def cancel(self, job_id: str, reason: CancelReason) -> Job:
        """Cancel a job. Queued: Cancelled at once. Running: CancelRequested. Ended: unchanged. Raises: JobNotFound."""
        ...

    async def refuse(self, job_ids: Sequence[str], failure: Failed) -> list[Job]:
        """End those of these jobs that still wait with `failure`; returns them."""
        ...

    async def hide(self, job_ids: Sequence[str]) -> None:
        """Hide jobs from their protocol's lists, whatever their state."""
        ...

    async def reap(self) -> list[Job]:
        """Requeue the jobs whose lease expired."""
        ...

    async def get(self, job_id: str, owner: str | None = None) -> Job:
        """A job. Raises: JobNotFound, also if another owner has it; JobDamaged if its record was set aside."""
        ...

    async def damaged(self) -> list[DamagedRecord]:
        """The records that were set aside, oldest first."""
        ...

    async def look_over(self) -> None:
        """Check every record and set damaged ones aside; other reads and writes go on meanwhile."""
        ...

    def steady(self) -> float:
        """Steady time in seconds: passes only while a gateway runs and never jumps; it started as Unix time."""
        ...

    def clock_jumps(self, within_s: float) -> int:
        """How often the clock was changed within the last `within_s` steady seconds, as far as recorded."""
        ...

    def age_s(self, date: float) -> float:
        """Steady seconds since the clock last showed this date, such as a file's."""
        ...

    async def list_jobs(
        self, *, limit: int = 100, before: int | None = None, **filters: Unpack[JobFilter]
    ) -> list[Job]:
        """Jobs, newest first; `before` is the number of the last job of the previous page."""
        ...

    async def compact(self) -> None:
        """Pack the events of jobs that ended long ago, which streams then no longer replay, and free unused space.

        Nothing else changes; other reads and writes go on meanwhile.
        """
        ...

    async def index_prompts(self) -> None:
        """Make searches for words quick in all prompts until now; other reads and writes go on meanwhile."""
        ...

    async def waiting(self, *, owner: str | None = None, limit: int = 100, offset: int = 0) -> list[Job]:
        """Queued jobs of one owner, or of all, in the order in which they will run, lane after lane.

        The first `offset` of them are skipped.
        """
        ...

    async def plans(self, job_ids: Sequence[str]) -> list[WaitingPlan]:
        """The plans of those of these jobs that wait."""
        ...

    def models(self, lane: Lane) -> frozenset[str]:
        """The models of the waiting jobs of a lane."""
        ...

    def order(self, lane: Lane) -> tuple[Waiting, ...]:
        """The waiting jobs of one lane in the order in which they will run, with only what their positions need."""
        ...

    def depth(self, lane: Lane) -> int:
        """How many jobs wait in a lane."""
        ...

    def running(self, lane: Lane) -> int:
        """How many jobs of a lane run, including those whose last image is being written."""
        ...

    async def move(self, job_id: str, to: int) -> list[Waiting]:
        """Move a waiting job to position `to`, from 0, among its owner's jobs in its lane; returns the jobs that moved.

        Raises: JobNotFound, JobNotWaiting.
        """
        ...

    async def pause(self, lane: Lane, paused: bool) -> None:
        """Pause or resume a lane: no job of a paused lane is claimed; survives restarts."""
        ...

    def is_paused(self, lane: Lane) -> bool: ...

    async def position(self, job_id: str) -> int | None:
        """How many jobs of its lane run or wait before this job; 0 if it runs; None if it has ended."""
        ...

    async def events_after(self, job_id: str, seq: int) -> list[JobEvent]: ...

    async def missed_events(self, owner: str, after: int | None, *, limit: int = 1000) -> MissedEvents:
        """The owner's events with a number > `after`, at most the oldest `limit` of them.

        If `after` is None, unknown, or so old that later events were deleted or packed: the owner's live jobs.
        """
        ...

    async def save_state(self, name: str, value: str) -> None:
        """Store a small text under a name."""
        ...

    async def read_state(self, name: str) -> str | None:
        """The text stored under a name."""
        ...

    async def check(self) -> None:
        """Test write. Raises: StorageFull, or whatever prevents the store from being written."""
        ...

    async def back_up(self, every_s: float) -> bool:
        """Back up the database if the newest backup is older than `every_s` and differs from it."""
        ...

    async def stats(self) -> Stats: ...

    async def delete(self, job_ids: Sequence[str]) -> None:
        """Remove ended jobs and their events; other jobs stay."""
        ...

    async def ended_before(self, at: float, *, keep_newest: int, limit: int = 500) -> list[Job]:
        """Ended jobs that retention may remove: ended before `at` in steady time or not among the newest
        `keep_newest`.
        """
        ...

    async def put_blob(
        self,
        data: bytes,
        owner: str | None = None,
        payer: str | None = None,
        bounds: InputBounds | None = None,
        name: str | None = None,
    ) -> str:
        """Store bytes under their sha256 (hex), which is returned; equal bytes belong to every owner who stored them.

        `name`: the sha256 of the larger image that the bytes stand for; of two files with one name the smaller is
        kept. The bytes count for `payer`, by default the owner. Raises: StorageFull.
        """
        ...

    async def blob(self, sha256: str, owner: str | None = None) -> bytes:
        """The bytes of a blob. Raises: KeyError, also if `owner` did not store it."""
        ...

    async def blob_bytes(self, sha256: str) -> int:
        """The size in bytes of a stored blob. Raises: KeyError."""
        ...

    async def drop_unused_blobs(self, grace_s: float) -> int:
        """Remove blobs that no stored job names and that are older than `grace_s`; returns how many.

        While records are set aside, blobs older than the last of them stay, because those records may name them.
        """
        ...


class StoreLocked(Exception):
    """Another process has locked the data folder."""


class StoreCorrupt(Exception):
    """The database does not pass its check."""
