"""Downloads that wait or run, by job: what they bring, and how far they are. Pure bookkeeping; knows no store."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.downloads.sources import Sources
from gateway.jobs.facts import ModelDownloading
from gateway.jobs.plans import Download


class LiveDownloads:
    """Several downloads may have the same sources."""

    def __init__(self) -> None:
        self._plans: dict[str, Download] = {}
        self._running: set[str] = set()
        self._cancelled: set[str] = set()
        self._facts: dict[Sources, ModelDownloading] = {}

    def __iter__(self) -> Iterator[tuple[str, Download]]:
        return iter(list(self._plans.items()))

    def add(self, job_id: str, plan: Download) -> None:
        """It was stored; its first event may have come before."""
        self._plans.setdefault(job_id, plan)

    def wait(self, job_id: str, plan: Download) -> None:
        """It waits, for the first time or again."""
        self._running.discard(job_id)
        self._plans[job_id] = plan

    def run(self, job_id: str) -> None:
        """It runs."""
        self._running.add(job_id)

    def cancel(self, job_id: str) -> None:
        """It runs, and was cancelled: no job joins it any more."""
        self._running.add(job_id)
        self._cancelled.add(job_id)

    def end(self, job_id: str) -> Download | None:
        """It is over; None where it was none of these."""
        self._running.discard(job_id)
        self._cancelled.discard(job_id)
        plan = self._plans.pop(job_id, None)
        if plan is not None and not self.brings(plan.sources):
            self._facts.pop(plan.sources, None)
        return plan

    def plan(self, job_id: str) -> Download | None:
        """What a download brings; None where it is over."""
        return self._plans.get(job_id)

    def is_running(self, job_id: str) -> bool:
        return job_id in self._running

    def brings(self, sources: Sources) -> bool:
        """Whether any download brings these."""
        return any(plan.sources == sources for plan in self._plans.values())

    def joinable(self, sources: Sources) -> str | None:
        """The download that brings these, by its job; one that was cancelled is joined no more."""
        same = (job_id for job_id, plan in self._plans.items() if plan.sources == sources)
        return next((job_id for job_id in same if job_id not in self._cancelled), None)

    def fact(self, sources: Sources) -> ModelDownloading | None:
        """How far the download of these is; None before the sizes are known."""
        return self._facts.get(sources)

    def set_fact(self, sources: Sources, fact: ModelDownloading) -> None:
        self._facts[sources] = fact
