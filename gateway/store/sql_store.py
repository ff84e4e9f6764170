"""SQL job store: what every JobStore does that has its jobs in rows. Knows no protocol and no database."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal, Unpack

from engine.protocol import Cancelled, CancelReason, Failed
from gateway.errors import (
    IdempotencyConflict,
    JobDamaged,
    JobNotFound,
    JobNotWaiting,
    OwnerQueueFull,
    QueueFull,
)
from gateway.files.base import Files
from gateway.jobs.facts import CancelRequested, Requeued, RequeueReason, Started
from gateway.jobs.job import Job, JobEvent, NewJob, Outcome, State, StateFacts
from gateway.jobs.order import RoundRobinState, Standing, Waiting, moved
from gateway.jobs.plans import LANES, Lane, lane_of
from gateway.store import compaction, damage, guarded, lists, queries, rows
from gateway.store.base import (
    Bounds,
    DamagedRecord,
    InputBounds,
    JobFilter,
    Lease,
    MissedEvents,
    OnEvent,
    Stats,
    Submitted,
    WaitingPlan,
    WorkerInfo,
)
from gateway.store.candidates import Candidates, NextJob
from gateway.store.clock import Clock
from gateway.store.connection import Connection, Database
from gateway.store.guarded import GuardedDatabase
from gateway.store.index import QueueIndex
from gateway.store.inputs import Inputs
from gateway.store.prompt_index import IndexUnusable, PromptIndex
from gateway.store.rows import RecordDamaged

log = logging.getLogger("gateway.store")

IDEMPOTENCY_S = 24 * 3600.0
LISTED_AT_ONCE = 200
"""Jobs of a list that are read in one transaction."""
INDEXED_AT_ONCE = 200
"""Prompts that are added to their index in one transaction."""


class SqlStore:
    """A JobStore in the rows of a database; the subclass opens the database and recovers its jobs."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        inputs: Path | Files,
        prompts: PromptIndex | None = None,
        lookahead: int = 0,
    ) -> None:
        """`inputs` is the place of clients' input files. The database calls `_begin` and `_written`."""
        self._database, self._clock, self._prompts = database, clock, prompts
        self._line = QueueIndex(lookahead)
        self._records = GuardedDatabase(database, clock, self._line, self._end)
        self._inputs = Inputs(inputs, clock, self._records)
        self._news: list[tuple[Job, JobEvent]] = []
        """Events of the current transaction, sent when it is on disk."""
        self._after: list[Callable[[], None]] = []
        """Changes to the queue index, made when the current transaction is on disk."""
        self._hear: OnEvent | None = None
        self._loop: asyncio.AbstractEventLoop

    def _fill_line(self, db: Connection) -> None:
        """Fill the queue index anew. Raises: RecordDamaged."""
        self._line.clear()
        waiting = f"SELECT {rows.WAITING_COLUMNS} FROM jobs WHERE state = 'queued' AND finished_at IS NULL"
        for row in db.execute(waiting).fetchall():
            try:
                self._line.put(rows.waiting(row))
            except rows.UNREADABLE:
                self._leave_out(row["id"])
        self._read_lanes(db)
        self._line.prepare(self._clock.steady())

    def _leave_out(self, job_id: str) -> None:
        """Leave a waiting job out of the queue index, whose place cannot be read. Raises: RecordDamaged."""
        raise RecordDamaged(job_id) from None

    def _read_lanes(self, db: Connection) -> dict[str, str]:
        """Read which lanes are paused, and whose turn it is in each; returns the stored texts of all lanes."""
        texts = rows.stored_texts(db, [f"{what} {lane}" for lane in LANES for what in ("paused", "turns", "passed")])
        for lane in LANES:
            self._line.set_paused(lane, f"paused {lane}" in texts)
            if (turns := texts.get(f"turns {lane}")) is not None:
                try:
                    self._line.set_turns(lane, rows.to_turns(turns))
                except rows.UNREADABLE:
                    log.warning("the round-robin state of the %s lane cannot be read; it starts again", lane)
        return texts

    # ---- writes ----------------------------------------------------------------------------------

    async def submit(self, new: NewJob, bounds: Bounds, worker: WorkerInfo | None = None) -> Submitted:
        def work(db: Connection) -> Submitted:
            if new.idempotency_key is not None and (former := self._find_idempotent(db, new)) is not None:
                return Submitted(former, created=False)
            self._check_bounds(db, new, bounds)
            lane = lane_of(new.plan)
            is_alone = not self._line.depth(lane) and not self._line.running(lane)
            if is_alone:
                self._keep_turns(db, lane, RoundRobinState())
            job = self._tell(self._insert(db, new))
            standing = Standing(job.priority, job.created_steady, job.number)
            waiting = Waiting(job.id, job.owner, lane, job.plan.model, standing)
            self._after.append(lambda: self._line.put(waiting))
            if worker is None or worker.lane != lane or not is_alone or self._line.is_paused(lane):
                return Submitted(job, created=True)
            now = self._clock.steady()
            next_job = Candidates([waiting], RoundRobinState(), now).next(worker, now)
            lease = None if next_job is None else self._begin_job(db, worker, job, next_job)
            return Submitted(job, created=True, lease=lease)

        return await self._records.write(work)

    def _insert(self, db: Connection, new: NewJob) -> Job:
        return rows.insert(db, new, self._clock.date(), self._clock.steady())

    def _find_idempotent(self, db: Connection, new: NewJob) -> Job | None:
        row = db.execute(
            "SELECT * FROM jobs WHERE owner = ? AND idempotency_key = ?", (new.owner, new.idempotency_key)
        ).fetchone()
        if row is None:
            return None
        job = rows.fold(db, row)
        if job.created_steady < self._clock.steady() - IDEMPOTENCY_S:
            rows.forget_key(db, job.id)
            return None
        if job.fingerprint != new.fingerprint:
            raise IdempotencyConflict
        return job

    def _check_bounds(self, db: Connection, new: NewJob, bounds: Bounds) -> None:
        if self._line.count() >= bounds.waiting:
            raise QueueFull(retry_after_s=30)
        if bounds.waiting_per_owner is not None and self._line.count(new.owner) >= bounds.waiting_per_owner:
            raise OwnerQueueFull(retry_after_s=30)

    async def claim(self, worker: WorkerInfo) -> Lease | None:
        if not self._line.depth(worker.lane):
            return None

        def work(db: Connection) -> Lease | None:
            if self._line.is_paused(worker.lane):
                return None
            next_job = self._line.next(worker, self._clock.steady())
            if next_job is None:
                return None
            if (before := rows.find(db, next_job.job.id)) is None:
                raise RecordDamaged(next_job.job.id)
            return self._begin_job(db, worker, before, next_job)

        return await self._records.write(work)

    def _begin_job(self, db: Connection, worker: WorkerInfo, before: Job, next_job: NextJob) -> Lease:
        job = self._append(db, before, Started(attempt=before.attempt + 1))
        rows.store_text(db, f"turns {worker.lane}", rows.of_turns(next_job.turns))
        self._after.append(lambda: self._line.serve(next_job))
        until = None if worker.lease_s is None else self._clock.steady() + worker.lease_s
        db.execute("UPDATE jobs SET worker = ?, lease_until = ? WHERE id = ?", (self._holder(worker), until, job.id))
        return Lease(job, worker.id)

    def _holder(self, worker: WorkerInfo) -> str:
        """The name under which a worker holds its jobs."""
        return worker.id

    def _keep_turns(self, db: Connection, lane: Lane, turns: RoundRobinState) -> None:
        if turns != self._line.turns(lane):
            rows.store_text(db, f"turns {lane}", rows.of_turns(turns))
            self._after.append(lambda: self._line.set_turns(lane, turns))

    async def pause(self, lane: Lane, paused: bool) -> None:
        def work(db: Connection) -> None:
            rows.store_text(db, f"paused {lane}", "true" if paused else None)
            self._after.append(lambda: self._line.set_paused(lane, paused))
            self._changed(db, "lanes")

        await self._records.write(work)

    def is_paused(self, lane: Lane) -> bool:
        return self._line.is_paused(lane)

    async def move(self, job_id: str, to: int) -> list[Waiting]:
        def work(db: Connection) -> list[Waiting]:
            job = self._get(db, job_id)
            if job.state is not State.QUEUED:
                raise JobNotWaiting
            line = self._line.order(lane_of(job.plan), self._clock.steady())
            standings = moved(line, job_id, to)
            rows.move(db, standings)
            changed = [replace(other, standing=standings[other.id]) for other in line if other.id in standings]
            self._after.append(lambda: self._line.put(*changed))
            self._changed(db, "moves")
            return changed

        return await self._records.write(work)

    async def heartbeat(self, lease: Lease, lease_s: float | None = None) -> Literal["ok", "cancel", "lost"]:
        def work(db: Connection) -> Literal["ok", "cancel", "lost"]:
            job = rows.leased_job(db, lease)
            if job is None:
                return "lost"
            if lease_s is not None:
                db.execute("UPDATE jobs SET lease_until = ? WHERE id = ?", (self._clock.steady() + lease_s, job.id))
            return "ok" if job.cancel_requested is None else "cancel"

        return await self._records.write(work)

    async def record(self, lease: Lease, fact: StateFacts) -> JobEvent | None:
        def work(db: Connection) -> JobEvent | None:
            if (job := rows.leased_job(db, lease)) is None:
                return None
            if fact in job.images:  # recorded, but the answer was lost
                return next(event for event in job.events if event.fact == fact)
            return self._append(db, job, fact).events[-1]

        return await self._records.write(work)

    async def commit(
        self, lease: Lease, outcome: Outcome, *facts: StateFacts
    ) -> tuple[Literal["committed", "already_mine", "fenced"], Job]:
        def work(db: Connection) -> tuple[Literal["committed", "already_mine", "fenced"], Job]:
            job = rows.find(db, lease.job.id)
            if job is None:  # its record was set aside meanwhile
                return "fenced", lease.job
            if job.attempt == lease.job.attempt and job.state is State.RUNNING:
                for fact in facts:
                    job = self._append(db, job, fact)
                return "committed", self._append(db, job, outcome)
            mine = job.attempt == lease.job.attempt and job.events[-1].fact == outcome
            return "already_mine" if mine else "fenced", job

        return await self._records.write(work)

    async def release(self, lease: Lease, why: RequeueReason) -> Job | None:
        def work(db: Connection) -> Job | None:
            job = rows.leased_job(db, lease)
            if job is None:
                return None
            lane = lane_of(job.plan)
            self._keep_turns(db, lane, self._line.turns(lane).given_back(job.owner))
            return self._append(db, job, Requeued(reason=why))

        return await self._records.write(work)

    async def cancel(self, job_id: str, reason: CancelReason) -> Job:
        def work(db: Connection) -> Job:
            job = self._get(db, job_id)
            if job.state is State.QUEUED:
                return self._append(db, job, Cancelled(reason=reason))
            if job.state is State.RUNNING and job.cancel_requested is None:
                return self._append(db, job, CancelRequested(reason=reason))
            return job

        return await self._records.write(work)

    async def refuse(self, job_ids: Sequence[str], failure: Failed) -> list[Job]:
        def work(db: Connection) -> list[Job]:
            jobs = [job for job_id in job_ids if (job := rows.find(db, job_id)) is not None]
            return [self._append(db, job, failure) for job in jobs if job.state is State.QUEUED]

        return await self._records.write(work)

    async def hide(self, job_ids: Sequence[str]) -> None:
        def work(db: Connection) -> None:
            for job_id in job_ids:
                rows.hide(db, job_id)

        await self._records.write(work)

    async def reap(self) -> list[Job]:
        def work(db: Connection) -> list[Job]:
            expired = db.execute(
                "SELECT * FROM jobs WHERE state = 'running' AND finished_at IS NULL AND lease_until < ?"
                " ORDER BY number",
                (self._clock.steady(),),
            ).fetchall()
            return [self._append(db, rows.fold(db, row), Requeued(reason="lease_expired")) for row in expired]

        return await self._records.write(work)

    async def delete(self, job_ids: Sequence[str]) -> None:
        def work(db: Connection) -> None:
            newest = queries.forgotten(db)
            for job_id in job_ids:
                if db.execute("SELECT 1 FROM jobs WHERE id = ? AND finished_at IS NULL", (job_id,)).fetchone() is None:
                    last = db.execute("SELECT max(number) FROM events WHERE job_id = ?", (job_id,)).fetchone()[0]
                    newest = max(newest, last or 0)
                    db.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
            queries.forget(db, newest)

        await self._records.write(work)

    async def compact(self) -> None:
        await self._repeat(partial(compaction.pack_page, steady=self._clock.steady()))

    async def _repeat(self, work: Callable[[Connection], bool]) -> None:
        """Repeat a transaction until it returns False; other reads and writes go on meanwhile."""
        may_go_on = True
        while may_go_on:
            may_go_on = await self._records.write(work)
            await asyncio.sleep(guarded.PAUSE_S)

    async def save_state(self, name: str, value: str) -> None:
        await self._records.write(lambda db: rows.store_text(db, f"kept {name}", value))

    # ---- reads -----------------------------------------------------------------------------------

    async def get(self, job_id: str, owner: str | None = None) -> Job:
        job = await self._records.read(lambda db: self._get(db, job_id, owner))
        if owner is not None and job.owner != owner:
            raise JobNotFound
        return job

    def _get(self, db: Connection, job_id: str, owner: str | None = None) -> Job:
        """Raises: JobNotFound, JobDamaged."""
        if (job := rows.find(db, job_id)) is not None:
            return job
        if (record := damage.of(db, job_id)) is None or (owner and record.owner not in (None, owner)):
            raise JobNotFound
        damaged = JobDamaged()
        damaged.owner = record.owner
        raise damaged

    async def damaged(self) -> list[DamagedRecord]:
        return await self._records.read(damage.listed)

    async def look_over(self) -> None:
        await self._records.look_over()

    def steady(self) -> float:
        return self._clock.steady()

    def clock_jumps(self, within_s: float) -> int:
        return self._clock.jumps(within_s)

    def age_s(self, date: float) -> float:
        return self._clock.age_s(date)

    async def list_jobs(
        self, *, limit: int = 100, before: int | None = None, **filters: Unpack[JobFilter]
    ) -> list[Job]:
        jobs: list[Job] = []
        while True:  # other reads go on between two parts of a long list
            most = min(LISTED_AT_ONCE, limit - len(jobs))
            listed = partial(lists.listed, criteria=filters, limit=most, before=before, prompts=self._prompts)
            jobs += (some := await self._records.read(listed))
            if len(some) < most or len(jobs) == limit:
                return jobs
            before = some[-1].number

    async def index_prompts(self) -> None:
        if (prompts := self._prompts) is None:
            return
        with suppress(IndexUnusable):
            while some := await self._records.read(lambda db: lists.unindexed(db, prompts, INDEXED_AT_ONCE)):
                await asyncio.to_thread(prompts.add, some)
                await asyncio.sleep(guarded.PAUSE_S)

    async def waiting(self, *, owner: str | None = None, limit: int = 100, offset: int = 0) -> list[Job]:
        line = (job.id for lane in LANES for job in self.order(lane) if owner is None or job.owner == owner)
        page = list(islice(line, offset, offset + limit))
        return await self._records.read(lambda db: rows.by_id(db, page))

    async def plans(self, job_ids: Sequence[str]) -> list[WaitingPlan]:
        return await self._records.read(lambda db: rows.plans(db, job_ids))

    def models(self, lane: Lane) -> frozenset[str]:
        return self._line.models(lane)

    def order(self, lane: Lane) -> tuple[Waiting, ...]:
        return self._line.order(lane, self._clock.steady())

    def depth(self, lane: Lane) -> int:
        return self._line.depth(lane)

    def running(self, lane: Lane) -> int:
        return self._line.running(lane)

    async def position(self, job_id: str) -> int | None:
        now = self._clock.steady()
        for lane in LANES:
            if (position := self._line.position(lane, job_id, now)) is not None:
                return position
        return None

    async def events_after(self, job_id: str, seq: int) -> list[JobEvent]:
        return await self._records.read(lambda db: rows.events(db, job_id, seq))

    async def missed_events(self, owner: str, after: int | None, *, limit: int = 1000) -> MissedEvents:
        return await self._records.read(lambda db: queries.missed_events(db, owner, after, limit))

    async def read_state(self, name: str) -> str | None:
        return await self._records.read(lambda db: rows.stored_text(db, f"kept {name}"))

    async def stats(self) -> Stats:
        return await self._records.read(queries.stats)

    async def ended_before(self, at: float, *, keep_newest: int, limit: int = 500) -> list[Job]:
        return await self._records.read(lambda db: queries.ended_before(db, at, keep_newest, limit))

    # ---- blobs -----------------------------------------------------------------------------------

    async def put_blob(
        self,
        data: bytes,
        owner: str | None = None,
        payer: str | None = None,
        bounds: InputBounds | None = None,
        name: str | None = None,
    ) -> str:
        whose = owner or ""
        return await self._inputs.put(data, whose, payer or whose, bounds, name)

    async def blob(self, sha256: str, owner: str | None = None) -> bytes:
        return await self._inputs.get(sha256, owner)

    async def blob_bytes(self, sha256: str) -> int:
        return await self._inputs.size(sha256)

    async def drop_unused_blobs(self, grace_s: float) -> int:
        return await self._inputs.drop_unused(grace_s)

    # ---- after a write ---------------------------------------------------------------------------

    def _append(self, db: Connection, job: Job, fact: StateFacts) -> Job:
        """Store one more fact; its event is sent when it is on disk."""
        after = rows.append(db, job, fact, self._clock.date(), self._clock.steady())
        if after.state is not job.state and after.state is not State.RUNNING:  # `claim` updates the index itself
            self._line_up(db, after)
        return self._tell(after)

    def _changed(self, db: Connection, what: Literal["moves", "lanes"]) -> None:
        """Note that the order of jobs, or a lane, was changed without an event."""

    def _tell(self, job: Job) -> Job:
        """Send the job's last event when it is on disk."""
        self._news.append((job, job.events[-1]))
        return job

    def _line_up(self, db: Connection, job: Job) -> None:
        """Put a job into the queue index, or take it out, when the transaction is on disk."""
        lane = lane_of(job.plan)
        if job.state is not State.QUEUED:
            self._after.append(lambda: self._line.end(lane, job.id, self._clock.steady()))
        elif (
            row := db.execute(f"SELECT {rows.WAITING_COLUMNS} FROM jobs WHERE id = ?", (job.id,)).fetchone()
        ) is not None:
            place = rows.waiting(row)
            self._after.append(lambda: self._line.put(place))

    def _begin(self, db: Connection) -> None:
        """Begin a transaction: forget what one that failed would have sent."""
        self._news, self._after = [], []

    def _end(self, db: Connection) -> None:
        """End the work of a transaction, which is written next."""

    def _written(self) -> None:
        """Update the queue index and send the events of a transaction that is on disk."""
        news, after, self._news, self._after = self._news, self._after, [], []
        for change in after:
            change()
        if self._hear is not None:
            for job, event in news:
                self._loop.call_soon_threadsafe(self._hear, job, event)
