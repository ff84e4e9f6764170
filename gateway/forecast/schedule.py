"""Schedule: when the jobs of a queue are expected to start and to be done where several nodes run them. Pure.

List scheduling: in the order of the queue, each job is given to the node that is free first among those that may run
it. With one node that may run everything the times are those of `QueueForecast`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import islice

from gateway.forecast.costs import Costs
from gateway.forecast.series import Cost
from gateway.forecast.wait import WALKED_AT_ONCE, Due, filing
from gateway.forecast.work import Work

NOW = Cost(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Runner:
    """A node that takes jobs of the lane, with what it has learned."""

    costs: Costs
    loaded: tuple[str, int | None] | None = None
    """The model and bits in its memory when it is free."""
    free: Cost = NOW
    """Seconds until it claims its next job."""
    models: frozenset[str] | None = None
    """The models whose jobs it may run; None: every model."""
    memory_limit_bytes: int | None = None
    version: object = None
    """Changes when `costs` do."""

    def may_run(self, work: Work) -> bool:
        """Whether it has the model, and memory for the job."""
        is_here = self.models is None or work.model in self.models
        return is_here and (self.memory_limit_bytes is None or work.memory_bytes <= self.memory_limit_bytes)


@dataclass(slots=True)
class _Node:
    """A runner while the queue is walked: seconds and variance until it is free, and what is in its memory then."""

    runner: Runner
    place: int
    gap: float
    at: float
    variance: float
    loaded: tuple[str, int | None] | None


@dataclass(frozen=True, slots=True)
class _Share:
    """A node that may run a kind of work, with the seconds and the variance of that work on it."""

    node: _Node
    run_s: float
    run_variance: float
    filed_s: float
    filed_variance: float


@dataclass(slots=True)
class _Kind:
    """All works that are one object, so that a long queue computes the costs of each kind once."""

    work: Work
    shares: list[_Share] = field(default_factory=list)


class Schedule:
    """The queue of a lane in order over its runners. Computed only as far as needed, as `QueueForecast` is.

    `ready_in` has the seconds until a model, or another download that a job (by id) needs, is complete: until then its
    jobs are passed over.
    """

    def __init__(
        self,
        line: Iterable[tuple[str, Work]],
        runners: Sequence[Runner],
        ready_in: Mapping[str, float] | None = None,
    ) -> None:
        self._nodes = [
            _Node(one, place, one.costs.of("gap").seconds, one.free.seconds, one.free.spread**2, one.loaded)
            for place, one in enumerate(runners)
        ]
        self._kinds: dict[int, _Kind] = {}
        self._times: dict[str, tuple[float, float, float, float]] = {}
        """Seconds and variance until each job starts, and until it is done."""
        self._ready: dict[str, float] = {}
        """Seconds until each job can start that waits for a download."""
        self._jobs = iter(self._served_late(list(line), ready_in) if ready_in else line)

    def due(self, job_id: str) -> Due | None:
        """When a job starts and is done; None where it does not wait here, or no node may run it."""
        while (times := self._times.get(job_id)) is None:
            if not self._walk_on():
                return None
        begins, begins_variance, done, done_variance = times
        return Due(Cost(begins, begins_variance**0.5), Cost(done, done_variance**0.5))

    def _walk_on(self) -> bool:
        """Give some more jobs to nodes, in order; False after the last one. Local names only: a queue may be long."""
        times, ready = self._times, self._ready
        job_id: str | None = None
        before: Work | None = None
        for job_id, work in islice(self._jobs, WALKED_AT_ONCE):
            if work is not before:
                before, needs, shares = work, work.needs, self._kind(work).shares
            if (share := _first_free(shares, needs)) is None:
                continue
            node = share.node
            at = node.at + node.gap
            if ready:
                at = max(at, ready.get(job_id, 0.0))
            begins, begins_variance = at, node.variance
            at += share.run_s
            variance = begins_variance + share.run_variance
            if needs is not None and needs != node.loaded:
                load, node.loaded = node.runner.costs.of("load", work), needs
                at, variance = at + load.seconds, variance + load.spread**2
            node.at, node.variance = at, variance
            times[job_id] = begins, begins_variance, at + share.filed_s, variance + share.filed_variance
        return job_id is not None

    def _kind(self, work: Work) -> _Kind:
        if (kind := self._kinds.get(id(work))) is None:
            kind = self._kinds[id(work)] = _Kind(work)  # stored, so that its id is unique
            for node in self._nodes:
                if node.runner.may_run(work):
                    costs = node.runner.costs
                    run, filed = costs.run(work), filing(costs, work)
                    kind.shares.append(_Share(node, run.seconds, run.spread**2, filed.seconds, filed.spread**2))
        return kind

    def _served_late(
        self, jobs: Sequence[tuple[str, Work]], ready_in: Mapping[str, float]
    ) -> Iterator[tuple[str, Work]]:
        """The jobs in the order of their claims; loads are not counted. Jobs that no node may run are left out."""
        ready = [max(ready_in.get(work.model, 0.0), ready_in.get(job_id, 0.0)) for job_id, work in jobs]
        absent = [(at, place) for place, at in enumerate(ready) if at > 0]
        heapify(absent)
        present: dict[int, list[int]] = {}
        """The places of jobs that can start, by the nodes that may run them: a bit each."""
        of_node: list[list[int]] = [[] for _ in self._nodes]
        """The keys of `present` that a node serves."""
        run_s: dict[int, dict[int, float]] = {}

        def arrive(place: int) -> None:
            work = jobs[place][1]
            shares = self._kind(work).shares
            run_s.setdefault(id(work), {share.node.place: share.run_s for share in shares})
            nodes = sum(1 << share.node.place for share in shares)
            if nodes not in present:
                present[nodes] = []
                for share in shares:
                    of_node[share.node.place].append(nodes)
            heappush(present[nodes], place)

        for place, at in enumerate(ready):
            if at <= 0:
                arrive(place)
        free = [(node.at, node.place) for node in self._nodes]
        heapify(free)
        while free:
            at, node = heappop(free)
            while absent and absent[0][0] <= at:
                arrive(heappop(absent)[1])
            first = min((places for key in of_node[node] if (places := present[key])), default=None)
            if first is None:
                if absent:
                    heappush(free, (absent[0][0], node))
                continue
            place = heappop(first)
            job_id, work = jobs[place]
            if ready[place] > 0:
                self._ready[job_id] = ready[place]
            yield job_id, work
            heappush(free, (at + run_s[id(work)][node], node))


def _first_free(shares: Sequence[_Share], needs: tuple[str, int | None] | None) -> _Share | None:
    """The node that is free first; of several at once one with the model in memory, then the first one."""
    first: _Share | None = None
    first_at = 0.0
    for share in shares:
        at = share.node.at
        if first is None or at < first_at or (at == first_at and share.node.loaded == needs != first.node.loaded):
            first, first_at = share, at
    return first
