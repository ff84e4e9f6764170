"""R-12: whatever order submits, claims, ends, cancels, moves and restarts come in, the store does what a model says.

CI plays a fixed slice; STORE_STEPS and STORE_EXAMPLES ask for more.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from engine.protocol import Cancelled, Failed, Succeeded
from gateway.errors import JobNotWaiting
from gateway.jobs.facts import CancelRequested, Queued, Requeued, Started
from gateway.jobs.job import Job, JobEvent, Priority, State
from gateway.store.base import Bounds, Lease, WorkerInfo
from gateway.store.sqlite import SqliteStore
from tests.support import a_job

WORKER = WorkerInfo(id="w")
OUTCOMES = (Succeeded(), Failed(code="internal_error", message="x"), Cancelled())


class StoreMachine(RuleBasedStateMachine):
    """`states` is the model: what each job must be."""

    leases: Bundle[Lease] = Bundle("leases")

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.now = 1_000_000.0
        self.passed = 0.0
        self.states: dict[str, State] = {}
        self.asked: set[str] = set()
        self.told: list[JobEvent] = []
        self.paused = False
        self._open()

    def _open(self) -> None:
        self.store = SqliteStore(Path(self.folder.name), lambda: self.now, elapsed=lambda: self.passed)
        self.do(self.store.open(lambda _, event: self.told.append(event)))
        self.store._database._write_db.execute("PRAGMA synchronous=OFF")

    def do(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.do(self.store.close())
            self.loop.close()
            self.folder.cleanup()

    def _job(self, data: st.DataObject) -> str | None:
        return data.draw(st.sampled_from(sorted(self.states))) if self.states else None

    # ---- what happens ------------------------------------------------------------------------

    @rule(owner=st.sampled_from("ab"), priority=st.sampled_from(list(Priority)))
    def submit(self, owner: str, priority: Priority) -> None:
        job = self.do(self.store.submit(a_job(owner=owner, priority=priority), Bounds())).job
        self.states[job.id] = State.QUEUED

    @rule(seconds=st.sampled_from([0.0, 1.0, 700.0, 5000.0, -3600.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.passed += max(0.0, seconds)

    @rule(target=leases)
    def claim(self) -> Lease | None:
        line = [job.id for job in self.store.order("engine")]
        lease: Lease | None = self.do(self.store.claim(WORKER))
        if self.paused or not line:
            assert lease is None
            return None
        assert lease is not None
        assert lease.job.id == line[0]
        self.states[lease.job.id] = State.RUNNING
        return lease

    @rule(lease=leases, outcome=st.sampled_from(OUTCOMES))
    def commit(self, lease: Lease | None, outcome: Any) -> None:
        if lease is None:
            return
        before = self.do(self.store.get(lease.job.id))
        verdict, after = self.do(self.store.commit(lease, outcome))
        holds = before.state is State.RUNNING and before.attempt == lease.job.attempt
        assert (verdict == "committed") == holds
        if holds:
            self.states[after.id] = after.state
            self.asked.discard(after.id)
        else:
            assert after == before

    @rule(lease=consumes(leases))
    def release(self, lease: Lease | None) -> None:
        if lease is None:
            return
        before = self.do(self.store.get(lease.job.id))
        released = self.do(self.store.release(lease, "engine_crash"))
        holds = before.state is State.RUNNING and before.attempt == lease.job.attempt
        assert (released is not None) == holds
        if holds:
            self.states[before.id] = State.QUEUED

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if (job_id := self._job(data)) is None:
            return
        was = self.states[job_id]
        job = self.do(self.store.cancel(job_id, "user"))
        if was is State.QUEUED:
            self.states[job_id] = State.CANCELLED
        elif was is State.RUNNING:
            assert job.cancel_requested == "user"
            self.asked.add(job_id)
        assert job.state is self.states[job_id]

    @rule(data=st.data(), to=st.integers(0, 5))
    def move(self, data: st.DataObject, to: int) -> None:
        if (job_id := self._job(data)) is None:
            return
        before = [job.owner for job in self.store.order("engine")]
        try:
            self.do(self.store.move(job_id, to))
        except JobNotWaiting:
            assert self.states[job_id] is not State.QUEUED
        assert [job.owner for job in self.store.order("engine")] == before

    @rule(paused=st.booleans())
    def pause(self, paused: bool) -> None:
        self.do(self.store.pause("engine", paused))
        self.paused = paused

    @rule()
    def restart(self) -> None:
        self.do(self.store.close())
        self._open()
        for job_id, state in self.states.items():
            if state is State.RUNNING:
                asked = self.do(self.store.get(job_id)).events
                was_asked = any(isinstance(event.fact, CancelRequested) for event in asked)
                self.states[job_id] = State.CANCELLED if was_asked else State.QUEUED

    # ---- what must hold ----------------------------------------------------------------------

    @invariant()
    def the_store_says_what_the_model_says(self) -> None:
        if not hasattr(self, "states"):
            return
        jobs: list[Job] = self.do(self.store.list_jobs(limit=1000))
        assert {job.id: job.state for job in jobs} == self.states
        waiting = [job.id for job in self.store.order("engine")]
        assert sorted(waiting) == sorted(job_id for job_id, state in self.states.items() if state is State.QUEUED)
        running = sum(state is State.RUNNING for state in self.states.values())
        assert self.store.running("engine") == running
        for place, job_id in enumerate(waiting):
            assert self.do(self.store.position(job_id)) == running + place
        for job in jobs:
            assert [event.seq for event in job.events] == list(range(1, job.seq + 1))
            assert [event.at for event in job.events] == sorted(event.at for event in job.events)
            assert job.seconds is None or 0 <= job.seconds <= self.passed
            ends = [e for e in job.events if not isinstance(e.fact, Queued | Started | Requeued | CancelRequested)]
            assert len(ends) == (job.state is not None and job.state.terminal)
        numbers = [event.number for event in self.told]
        assert numbers == sorted(set(numbers))


StoreMachine.TestCase.settings = settings(
    max_examples=int(os.environ.get("STORE_EXAMPLES", "6")),
    stateful_step_count=int(os.environ.get("STORE_STEPS", "30")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.timeout(600)
class TestStore(StoreMachine.TestCase):  # type: ignore[misc]
    """Its one test is hypothesis's."""
