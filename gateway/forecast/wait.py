"""Waiting times: when the jobs of a queue are expected to start and to be done, one after the other. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import islice

from gateway.forecast.costs import Costs
from gateway.forecast.series import Cost
from gateway.forecast.work import Work

Parts = tuple[float, float, float, float, tuple[str, int | None] | None]
WALKED_AT_ONCE = 64
"""Jobs of a queue that are computed together."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Forecast of a job that waits or runs, in seconds from now."""

    expected_s: float
    """Seconds until it is done."""
    wait_s: float
    """Seconds until it starts; 0 if it runs."""
    finish_low_s: float
    finish_high_s: float
    """Interval in which nine of ten jobs are done."""
    is_paused: bool = False
    """The queue is paused: times count from its resumption."""


@dataclass(frozen=True, slots=True)
class Due:
    """When a waiting job starts and is done, from when the running one is."""

    begins: Cost
    done: Cost


class QueueForecast:
    """Queue of a lane in order, with the loads between its jobs; `loaded` is in memory before the first job.

    `ready_in` has the seconds until a model, or another download that a job (by id) needs, is complete: until then its
    jobs are passed over. Computed only as far as needed: a forecast for the first of ten thousand jobs is cheap.
    """

    def __init__(
        self,
        line: Iterable[tuple[str, Work]],
        costs: Costs,
        loaded: tuple[str, int | None] | None,
        ready_in: Mapping[str, float] | None = None,
    ) -> None:
        self._costs = costs
        self._parts_of: dict[int, tuple[Work, Parts]] = {}
        self._times: dict[str, tuple[float, float, float, float]] = {}
        """Seconds and variance until each job starts, and until it is done."""
        self._ready: dict[str, float] = {}
        """Seconds until each job can start that waits for a download."""
        self._jobs = iter(self._served_late(list(line), ready_in) if ready_in else line)
        self._at, self._variance, self._loaded = 0.0, 0.0, loaded

    def due(self, job_id: str) -> Due | None:
        """When a job starts and is done; None if it does not wait here."""
        while (times := self._times.get(job_id)) is None:
            if not self._walk_on():
                return None
        begins, begins_variance, done, done_variance = times
        return Due(Cost(begins, begins_variance**0.5), Cost(done, done_variance**0.5))

    def _walk_on(self) -> bool:
        """Add some more jobs in order; False after the last one. Local names only: a queue may be long."""
        costs, times, ready, loaded = self._costs, self._times, self._ready, self._loaded
        at, variance, gap = self._at, self._variance, costs.of("gap").seconds
        job_id: str | None = None
        before: Work | None = None
        for job_id, work in islice(self._jobs, WALKED_AT_ONCE):
            if work is not before:
                before = work
                run_s, run_variance, filed_s, filed_variance, needs = self._parts(work)
            at += gap
            if ready:
                at = max(at, ready.get(job_id, 0.0))
            begins, begins_variance = at, variance
            at += run_s
            variance += run_variance
            if needs is not loaded and needs is not None and needs != loaded:
                load, loaded = costs.of("load", work), needs
                at, variance = at + load.seconds, variance + load.spread**2
            times[job_id] = begins, begins_variance, at + filed_s, variance + filed_variance
        self._at, self._variance, self._loaded = at, variance, loaded
        return job_id is not None

    def _parts(self, work: Work) -> Parts:
        """Seconds and variance of a work's run and its files, and what it needs; stored, so that its id is unique."""
        if (stored := self._parts_of.get(id(work))) is None:
            run, filed = self._costs.run(work), filing(self._costs, work)
            parts = run.seconds, run.spread**2, filed.seconds, filed.spread**2, work.needs
            stored = self._parts_of[id(work)] = work, parts
        return stored[1]

    def _served_late(
        self, jobs: Sequence[tuple[str, Work]], ready_in: Mapping[str, float]
    ) -> Iterator[tuple[str, Work]]:
        """The jobs in the order of their claims; loads are not counted."""
        ready = [max(ready_in.get(work.model, 0.0), ready_in.get(job_id, 0.0)) for job_id, work in jobs]
        absent = [(at, place) for place, at in enumerate(ready) if at > 0]
        present = [place for place, at in enumerate(ready) if at <= 0]
        heapify(absent)
        at = 0.0
        while present or absent:
            if not present:
                at = max(at, absent[0][0])
            while absent and absent[0][0] <= at:
                heappush(present, heappop(absent)[1])
            place = heappop(present)
            job_id, work = jobs[place]
            if ready[place] > 0:
                self._ready[job_id] = ready[place]
            yield job_id, work
            at += self._parts(work)[0]


def filing(costs: Costs, work: Work) -> Cost:
    """Seconds from when a job's lane is free to its end: the rest of its last image's decoding, and the file."""
    if work.lane != "engine" or work.images <= 0:
        return Cost(0.0, 0.0)
    tail, held, file = costs.of("tail", work), costs.of("last_tail", work), costs.of("file", work)
    return Cost(max(0.0, tail.seconds - held.seconds) + file.seconds, file.spread)
