"""Running jobs of the whole fleet, by their events: what a process knows of the jobs that others run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.jobs.job import Job, JobEvent, State
from gateway.jobs.plans import Lane, lane_of
from gateway.store.base import JobStore

READ_MOST = 1000


class RunningJobs:
    """The jobs that run now, in the order in which they started, here or in another process."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._ended: set[str] | None = set()
        """Jobs that ended until the running ones were read; None after that."""

    async def start(self, store: JobStore, begin: Callable[[Job], None]) -> None:
        """Take up the jobs that other processes run already; `begin` gets each."""
        jobs = await store.list_jobs(states=(State.RUNNING,), limit=READ_MOST)
        ended, self._ended = self._ended or set(), None
        for job in reversed(jobs):
            if job.id not in self._jobs and job.id not in ended:
                self._jobs[job.id] = job
                begin(job)

    def on_event(self, job: Job, event: JobEvent) -> None:
        if job.state is State.RUNNING:
            self._jobs[job.id] = job
        else:
            self._jobs.pop(job.id, None)
            if self._ended is not None:
                self._ended.add(job.id)

    def forget(self, job_id: str) -> None:
        self._jobs.pop(job_id, None)

    def find(self, job_id: str, attempt: int) -> Job | None:
        """The job, if that attempt of it runs."""
        job = self._jobs.get(job_id)
        return job if job is not None and job.attempt == attempt else None

    def attempt(self, job_id: str) -> int | None:
        """The attempt of a job that runs; None where it does not run."""
        job = self._jobs.get(job_id)
        return None if job is None else job.attempt

    def of(self, lane: Lane) -> Sequence[Job]:
        """The running jobs of a lane, the one that started first at the beginning."""
        return [job for job in self._jobs.values() if lane_of(job.plan) == lane]
