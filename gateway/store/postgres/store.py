"""PostgreSQL job store: jobs in the rows of one database, used by several processes at once. Knows no protocol.

Each process has a replica of the queue in memory. A writing transaction, and a notification of another process's, first
applies what others have written since, in the order of the commits; so all replicas are equal after the same number.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from engine.protocol import Cancelled, Generate, Upscale
from gateway import __version__
from gateway.disk import write_atomic
from gateway.errors import StorageFault
from gateway.files.base import Files
from gateway.fleet.node import Node, SeenNode
from gateway.jobs.facts import CancelRequested, Requeued, RequeueReason
from gateway.jobs.job import Job, JobEvent, NewJob, State
from gateway.jobs.plans import LANES, lane_of
from gateway.private_files import private_folder
from gateway.store import queries, rows
from gateway.store.base import Bounds, Lease, Lost, OnEvent, Submitted, WorkerInfo
from gateway.store.candidates import NextJob
from gateway.store.clock import Clock, StoreClock
from gateway.store.connection import Connection
from gateway.store.folder_lock import FolderLock
from gateway.store.packed import SEQ
from gateway.store.postgres import nodes
from gateway.store.postgres.clock import DatabaseClock
from gateway.store.postgres.connection import PostgresConnection
from gateway.store.postgres.database import PostgresDatabase
from gateway.store.postgres.listener import Listener
from gateway.store.shared import MESSAGE_BYTES, OnMessage
from gateway.store.sql_store import SqlStore

HOME = "node"
"""File of the data folder with the folder's id."""
READ_AT_ONCE = 500
"""Events of other processes that are applied together."""


class PostgresStore(SqlStore):
    """A SharedStore at a PostgreSQL address. `folder` is the data folder of this process, which it locks."""

    _database: PostgresDatabase

    def __init__(
        self,
        url: str,
        folder: Path,
        clock: Callable[[], float] | None = None,
        *,
        name: str = "",
        lookahead: int = 0,
        inputs: Files | None = None,
    ) -> None:
        """`name` is the operator's name of this process. `clock` is for tests: by default the database's is used.

        `inputs`: where inputs are stored that several processes use; None: in `folder`.
        """
        self.node_id = ""
        """The id of this process, from `open` on: `<id of the data folder>.<random>`."""
        self._folder, self._name = folder, name
        self._lock: FolderLock | None = None
        database = PostgresDatabase(url, secrets.token_hex(8), self._catch_up, self._written)
        time: Clock = DatabaseClock() if clock is None else StoreClock(clock, clock)
        super().__init__(database, time, inputs=inputs or folder / "blobs", lookahead=lookahead)
        self._applied: dict[str, int] = {}
        """The numbers up to which the replica is complete; empty before it is filled."""
        self._numbers: dict[str, int] = {}
        """The numbers after the current transaction."""
        self._lease_s: dict[str, float] = {}
        self._listener: Listener | None = None
        self._on_message: OnMessage | None = None
        self._looking: asyncio.Task[None] | None = None
        self._has_news = False

    # ---- open and close --------------------------------------------------------------------------

    async def open(self, on_event: OnEvent | None = None, lose: Lost | None = None) -> list[Job]:
        """Like `JobStore.open`, for the jobs of earlier processes with this data folder.

        What other processes run is left alone, and what a dead one of another folder ran waits for `reap`.
        """
        try:
            return await self._open(on_event, lose)
        except BaseException:
            await self.close()
            raise

    async def _open(self, on_event: OnEvent | None, lose: Lost | None) -> list[Job]:
        self._loop = asyncio.get_running_loop()
        home = await asyncio.to_thread(self._take_folder)
        self.node_id = f"{home}.{secrets.token_hex(4)}"
        await self._database.open()
        await self._inputs.prepare()
        await self.announce(Node(self.node_id, self._name, "gateway", __version__))
        recovered = await self._records.write(lambda db: self._recover(db, home))
        await self._records.write(self._fill_line)
        self._hear, self._records.lose = on_event, lose
        self._listener = await asyncio.to_thread(
            Listener,
            self._database.listening,
            self._database.channel,
            self._database.name,
            lambda: self._soon(self._look),
            lambda message: self._soon(self._receive, message),
        )
        return recovered

    def _take_folder(self) -> str:
        """Lock the data folder; returns its id, which it keeps. Raises: StoreLocked, OSError."""
        private_folder(self._folder, "store.data_dir")
        self._lock = FolderLock(self._folder)
        file = self._folder / HOME
        if not file.exists():
            write_atomic(self._folder, HOME, secrets.token_hex(8).encode(), "the data folder")
        return file.read_text().strip()

    def _recover(self, db: Connection, home: str) -> list[Job]:
        """End or requeue what earlier processes with this data folder left running, or held for their clients."""
        mine = "starts_with(worker, ?)", "starts_with(gateway, ?)"
        which = f"SELECT * FROM jobs WHERE finished_at IS NULL AND ({' OR '.join(mine)}) ORDER BY number"
        before = f"{home}."
        changed = []
        for row in db.execute(which, (before, before)).fetchall():
            job = rows.fold(db, row)
            is_here = row["worker"] is None or row["worker"].startswith(before)
            if row["gateway"] is not None and row["gateway"].startswith(before):
                changed.append(self._abandoned(db, job, is_here=is_here))
            elif is_here:
                changed.append(self._given_back(db, job, "gateway_restart"))
        return [job for job in changed if job.state is not State.RUNNING]  # files of those that run elsewhere stay

    def _abandoned(self, db: Connection, job: Job, *, is_here: bool) -> Job:
        """Cancel a job whose client is gone; where another process runs it, that one is asked to stop."""
        if is_here or job.state is State.QUEUED:
            return self._append(db, job, Cancelled(reason="client_gone"))
        return job if job.cancel_requested is not None else self._append(db, job, CancelRequested(reason="client_gone"))

    def _given_back(self, db: Connection, job: Job, why: RequeueReason) -> Job:
        """Requeue a job whose process is gone, or end it where it was asked to stop."""
        if job.cancel_requested is not None:
            return self._append(db, job, Cancelled(reason=job.cancel_requested))
        return self._append(db, job, Requeued(reason=why))

    def _soon(self, call: Callable[..., None], *values: object) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(call, *values)

    async def close(self) -> None:
        self._hear = None
        if (listener := self._listener) is not None:
            self._listener = None
            await asyncio.to_thread(listener.close)
        if self._looking is not None:
            await asyncio.gather(self._looking, return_exceptions=True)
        with suppress(StorageFault):
            if self._applied:
                self._applied = {}
                await nodes.withdraw(self._database, self.node_id)
        await self._database.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _holder(self, worker: WorkerInfo) -> str:
        return f"{self.node_id} {worker.id}"

    def _fill_line(self, db: Connection) -> None:
        super()._fill_line(db)
        live = "SELECT id, lane FROM jobs WHERE state = 'running' AND finished_at IS NULL"
        for row in db.execute(live).fetchall():
            self._line.begin(row["lane"], row["id"], self._clock.steady())
        self._applied = {name: db.last_number(name) for name in ("events", "moves", "lanes")}

    def _read_lanes(self, db: Connection) -> dict[str, str]:
        texts = super()._read_lanes(db)
        for lane in LANES:
            if (text := texts.get(f"passed {lane}")) is not None:
                model, passed = json.loads(text)
                self._line.set_passed(lane, model, passed)
        return texts

    def _leave_out(self, job_id: str) -> None:
        """Leave out a job whose record is damaged: it is set aside when it is read, or when all records are checked.

        A damaged record must not stop the writes of all processes, which begin with what others have written.
        """

    # ---- what other processes have written ---------------------------------------------------------

    def _look(self) -> None:
        """Look for news now, or once more after the look under way."""
        self._has_news = True
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_on(), name="news of the job store")

    async def _look_on(self) -> None:
        while self._has_news:
            self._has_news = False
            with suppress(StorageFault):  # the listener looks again when the database answers
                await self._database.catch_up()

    def _catch_up(self, db: PostgresConnection, now: float) -> None:
        """Apply what other processes have written, in order, and send their events."""
        self._begin(db)
        self._numbers = {}
        if isinstance(self._clock, DatabaseClock):
            self._clock.read(now)
        if all(number == db.last_number(name) for name, number in self._applied.items()):
            return
        changed, news = self._newer(db)
        if self._applied["moves"] != db.last_number("moves") or self._applied["events"] < queries.forgotten(db):
            self._fill_line(db)
        else:
            self._apply(db, changed)
            self._read_lanes(db)
            self._applied = {name: db.last_number(name) for name in self._applied}
        if self._hear is not None:
            for job, event in news:  # after the replica: who hears of a job may claim it
                self._soon(self._hear, job, event)

    def _newer(self, db: PostgresConnection) -> tuple[list[Job], list[tuple[Job, JobEvent]]]:
        """The jobs that others have changed since the last applied event, and the events, each with its job then."""
        jobs: dict[str, Job] = {}
        news: list[tuple[Job, JobEvent]] = []
        after, last = self._applied["events"], db.last_number("events")
        while after < last:
            newer = "SELECT number, job_id, seq FROM events WHERE number > ? ORDER BY number LIMIT ?"
            page = db.execute(newer, (after, READ_AT_ONCE)).fetchall()
            changed = {job.id: job for job in rows.readable(db, list({row["job_id"] for row in page}))}
            jobs |= changed
            for row in page:
                if row["seq"] != SEQ and (job := changed.get(row["job_id"])) is not None:
                    then = job.until(row["seq"])
                    news.append((then, then.events[-1]))
            after = page[-1]["number"] if len(page) == READ_AT_ONCE else last
        return list(jobs.values()), news

    def _apply(self, db: PostgresConnection, jobs: Sequence[Job]) -> None:
        """Put jobs that another process has changed to their places in the replica."""
        queued = [job.id for job in jobs if job.state is State.QUEUED]
        self._line.put(*rows.waiting_among(db, queued))
        for job in jobs:
            if job.state is State.RUNNING:
                self._line.begin(lane_of(job.plan), job.id, self._clock.steady())
            elif job.state is not State.QUEUED:
                self._line.end(lane_of(job.plan), job.id, self._clock.steady())

    def _end(self, db: Connection) -> None:
        self._numbers = {name: db.last_number(name) for name in ("events", "moves", "lanes")}

    def _written(self) -> None:
        if self._applied and self._numbers:
            self._applied, self._numbers = self._numbers, {}
        super()._written()

    def _changed(self, db: Connection, what: Literal["moves", "lanes"]) -> None:
        db.next_number(what)

    # ---- jobs ------------------------------------------------------------------------------------

    async def submit(self, new: NewJob, bounds: Bounds, worker: WorkerInfo | None = None) -> Submitted:
        self._note_lease(worker)
        return await super().submit(new, bounds, worker)

    async def claim(self, worker: WorkerInfo) -> Lease | None:
        self._note_lease(worker)
        return await super().claim(worker)

    def _note_lease(self, worker: WorkerInfo | None) -> None:
        if worker is not None and worker.lease_s is not None:
            self._lease_s[worker.id] = worker.lease_s

    def _insert(self, db: Connection, new: NewJob) -> Job:
        is_attached = new.attached and new.idempotency_key is None
        further = {"gateway": self.node_id if is_attached else None, "prompt": rows.lower(_prompt(new))}
        return rows.insert(db, new, self._clock.date(), self._clock.steady(), further)

    def _begin_job(self, db: Connection, worker: WorkerInfo, before: Job, next_job: NextJob) -> Lease:
        if (passed := self._line.passed_after(next_job)) is not None:
            rows.store_text(db, f"passed {worker.lane}", json.dumps([next_job.job.model, passed]))
        return super()._begin_job(db, worker, before, next_job)

    async def renew(self, leases: Sequence[Lease]) -> list[Lease]:
        lost = []
        for lease in leases:
            until = self._clock.steady() + self._lease_s.get(lease.worker, 0.0)
            held = await self._database.run(
                "UPDATE jobs SET lease_until = ? WHERE id = ? AND attempt = ? AND state = 'running' RETURNING 1",
                (until, lease.job.id, lease.job.attempt),
            )
            if not held:
                lost.append(lease)
        return lost

    async def reap(self) -> list[Job]:
        expired = "state = 'running' AND finished_at IS NULL AND lease_until < ?"

        def work(db: Connection) -> list[Job]:
            late = db.execute(f"SELECT * FROM jobs WHERE {expired} ORDER BY number", (self._clock.steady(),)).fetchall()
            return [self._given_back(db, rows.fold(db, row), "lease_expired") for row in late]

        if not await self._database.run(f"SELECT 1 FROM jobs WHERE {expired} LIMIT 1", (self._clock.steady(),)):
            return []
        return await self._records.write(work)

    async def end_abandoned(self, gateways_gone_s: float) -> list[Job]:
        which = (
            "finished_at IS NULL AND gateway IS NOT NULL AND NOT EXISTS (SELECT 1 FROM nodes WHERE nodes.id ="
            f" jobs.gateway AND nodes.seen > {nodes.NOW} - ?)"
        )

        def work(db: Connection) -> list[Job]:
            jobs = rows.fold_all(db, f"SELECT * FROM jobs WHERE {which} ORDER BY number", (gateways_gone_s,))
            return [self._abandoned(db, job, is_here=False) for job in jobs]

        if not await self._database.run(f"SELECT 1 FROM jobs WHERE {which} LIMIT 1", (gateways_gone_s,)):
            return []
        return await self._records.write(work)

    # ---- processes and messages --------------------------------------------------------------------

    async def announce(self, node: Node) -> bool:
        return await nodes.announce(self._database, node)

    async def withdraw(self, node_id: str) -> None:
        await nodes.withdraw(self._database, node_id)

    async def nodes(self, within_s: float = 60.0) -> list[SeenNode]:
        return await nodes.listed(self._database, within_s)

    async def drain(self, name: str, is_draining: bool) -> None:
        await self._records.write(lambda db: rows.store_text(db, nodes.DRAINS + name, "true" if is_draining else None))

    async def post(self, message: str) -> None:
        if len(message.encode()) > MESSAGE_BYTES:
            raise ValueError("the message is too long")
        channel, payload = f"{self._database.channel}_messages", f"{self._database.name} {message}"
        await self._database.run("SELECT pg_notify(?, ?)", (channel, payload))

    def listen(self, on_message: OnMessage) -> None:
        self._on_message = on_message

    def _receive(self, message: str) -> None:
        if self._on_message is not None:
            self._on_message(message)

    # ---- upkeep ------------------------------------------------------------------------------------

    async def check(self) -> None:
        await self._database.run("UPDATE counters SET seq = seq WHERE name = 'lanes'")

    async def back_up(self, every_s: float) -> bool:
        """Return False: `pg_dump` backs up a shared store."""
        return False


def _prompt(new: NewJob) -> str:
    """The prompt of a generated image, or of the image that is upscaled."""
    if isinstance(new.plan, Generate):
        return new.plan.prompt.replace("\0", " ")
    if isinstance(new.plan, Upscale) and new.plan.drawn is not None:
        return str(json.loads(new.plan.drawn).get("prompt") or "").replace("\0", " ")
    return ""
