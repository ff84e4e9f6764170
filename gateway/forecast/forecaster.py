"""Forecaster: learns from events how long jobs will take. Has a clock; knows no store and no engine."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import hypot
from typing import Any

from engine.catalog import ModelSpec
from gateway.fleet.node import Node, SeenNode
from gateway.forecast.accuracy import Accuracy, Record
from gateway.forecast.costs import Costs
from gateway.forecast.fleet_queue import FleetQueue, counted_from, runners_of
from gateway.forecast.other_nodes import OtherNodes
from gateway.forecast.schedule import Runner
from gateway.forecast.series import Cost
from gateway.forecast.trace import Trace, over
from gateway.forecast.wait import Forecast, QueueForecast, filing
from gateway.forecast.work import MEGAPIXEL, Work, work_of
from gateway.jobs.job import Job, Plans, State
from gateway.jobs.order import Waiting
from gateway.jobs.plans import Lane

NONE = Cost(0.0, 0.0)
ALIKE_MOST = 4096


@dataclass(frozen=True, slots=True)
class SubmittedForecast:
    """The forecast of a job when it was submitted."""

    at: float
    done: Cost
    forecast: Forecast


@dataclass(frozen=True, slots=True)
class Walk:
    """A computed queue with the state it was computed from: it is valid while that is unchanged."""

    line: Sequence[Waiting]
    version: int
    loaded: tuple[str, int | None] | None
    ready_in: Mapping[str, float]
    walked: QueueForecast


class Forecaster:
    """Belongs to one event loop. `loaded_model` names the model in the engine's memory, `spec_of` a model's row,
    `weights_of` the weights of a model: between two models with the same weights nothing is loaded.

    Where several processes share the queue, `nodes` is their newest snapshot, `own_id` the id of this one's node,
    `runs` whether this process runs a job, and `needed_bytes` the memory that a plan is expected to need. What is
    learned comes from this process's jobs alone.
    """

    def __init__(
        self,
        spec_of: Callable[[str], ModelSpec | None],
        loaded_model: Callable[[], str | None],
        clock: Callable[[], float] = time.monotonic,
        weights_of: Callable[[str], str] = str,
        is_down: Callable[[], bool] = lambda: False,
        due_in: Callable[[], Mapping[str, float]] = dict,
        *,
        own_id: Callable[[], str] = str,
        nodes: Callable[[], Sequence[SeenNode]] = tuple,
        runs: Callable[[str], bool] = lambda _: True,
        needed_bytes: Callable[[Plans, ModelSpec], int] | None = None,
    ) -> None:
        self._spec_of = spec_of
        self._loaded_model = loaded_model
        self._clock = clock
        self._weights_of = weights_of
        self._costs = Costs(spec_of)
        self._accuracy = Accuracy()
        self._works: dict[str, Work] = {}
        """Work of waiting jobs, by id."""
        self._alike: dict[Work, Work] = {}
        """One object for all equal works, so that a long queue computes the costs of each kind once."""
        self._traces: dict[str, Trace] = {}
        """Running jobs, in the order in which they started."""
        self._submitted: dict[str, SubmittedForecast] = {}
        self._walks: dict[Lane, Walk] = {}
        self._other_nodes = OtherNodes(own_id, nodes, spec_of, weights_of)
        self._fleet_queue = FleetQueue()
        self._runs = runs
        self._needed_bytes = needed_bytes
        self._loaded: tuple[str, int | None] | None = None
        self._free_since: dict[Lane, float] = {}
        self._starting_since: float | None = None
        self._costs_text = -1, ""
        self.is_down = is_down
        """Whether the engine is down: then there is no forecast for jobs that wait for it."""
        self.due_in = due_in
        """Models, and jobs by id, that wait for a download, with the whole seconds until it is complete."""

    # ---- events ----------------------------------------------------------------------------------

    def waits(self, job: Job) -> None:
        """Note a job that waits, with all of its work or the rest of it."""
        self._traces.pop(job.id, None)
        self._works[job.id] = self._work(job)

    def waited(self, job_id: str, plan: Plans, done: int) -> None:
        """Note a job that an earlier process left waiting, with `done` of its images or pages."""
        if job_id not in self._works and job_id not in self._traces:
            self._works[job_id] = self._work_of(plan, done)
            self._walks.clear()  # they have left it out
            self._fleet_queue.clear()

    def on_submitted(self, job_id: str, line: Sequence[Waiting]) -> None:
        """Record the forecast of a waiting job that its client now receives, to compare it with the actual times."""
        due = self._due(job_id, line)
        if due is not None:
            self._submitted[job_id] = SubmittedForecast(self._clock(), due[1], self._forecast(*due, is_paused=False))

    def begins(self, job: Job) -> None:
        """Note a job that a lane has claimed."""
        now = self._clock()
        work = self._works.pop(job.id, None) or self._work(job)
        submitted, free = self._submitted.get(job.id), self._free_since.get(work.lane)
        gap_s = None
        if submitted is not None:
            if job.attempt == 1:
                self._accuracy.note_wait(submitted.forecast.wait_s, now - submitted.at)
            if free is not None and submitted.at < free:
                gap_s = now - free
        loads = work.needs is not None and not self._other_nodes.has_loaded(work.needs)
        trace = self._traces[job.id] = Trace(work, now, loads, is_own=False, gap_s=gap_s)
        self._is_own(job.id, trace)

    def on_fact(self, job_id: str, fact: object) -> float | None:
        """Learn from a fact of a running job; returns the seconds until the job is done."""
        self.learn(job_id, fact)
        return self.left_s(job_id)

    def left_s(self, job_id: str) -> float | None:
        """Seconds until a running job is done."""
        trace = self._traces.get(job_id)
        return None if trace is None else self._left(job_id, trace).seconds

    def learn(self, job_id: str, fact: object) -> None:
        """Learn from a fact of a running job; nothing from one that another process runs."""
        trace, now = self._traces.get(job_id), self._clock()
        if trace is None:
            return
        is_own = self._is_own(job_id, trace)
        for part, seconds in trace.on_fact(fact, now):
            if is_own:
                self._costs.learn(part, trace.work, seconds)
        if trace.work.lane == "engine" and not trace.loads:
            if is_own:
                self._loaded = trace.work.needs
            elif (node := self._other_nodes.node_of(job_id)) is not None:
                self._other_nodes.note_loaded(node, trace.work.needs)
        if trace.phase == "filing" and is_own:
            self._free_since[trace.work.lane] = trace.since

    def ends(self, job: Job) -> None:
        """Note a job that has ended; if it succeeded, its forecast is compared with the actual times."""
        submitted = self._submitted.pop(job.id, None)
        self._works.pop(job.id, None)
        self._traces.pop(job.id, None)
        if submitted is not None and job.state is State.SUCCEEDED:
            interval = submitted.forecast.finish_low_s, submitted.forecast.finish_high_s
            self._accuracy.note(submitted.done, interval, self._clock() - submitted.at)

    def forget(self, job_id: str) -> None:
        """Drop a job of which no more events will come."""
        for by_id in (self._submitted, self._works, self._traces):
            by_id.pop(job_id, None)

    def pauses(self) -> None:
        """Drop all forecasts made so far: they are no longer valid."""
        self._submitted.clear()

    def engine_starts(self) -> None:
        self._starting_since = self._clock()

    def engine_started(self) -> None:
        if self._starting_since is not None:
            self._costs.learn("start", None, self._clock() - self._starting_since)
            self._starting_since = None

    # ---- forecasts -------------------------------------------------------------------------------

    def of(self, job_id: str, line: Sequence[Waiting], *, is_paused: bool = False) -> Forecast | None:
        """The forecast of a running job, or of one in `line`, the order of its lane; None for other jobs."""
        trace = self._traces.get(job_id)
        if trace is not None:
            return self._forecast(NONE, self._left(job_id, trace), is_paused=False)
        due = self._due(job_id, line)
        return None if due is None else self._forecast(*due, is_paused=is_paused)

    def is_waiting(self, job_id: str) -> bool:
        """Whether the job has not started."""
        return job_id in self._works

    def room_s(self, lane: Lane, before: str | None, line: Sequence[Waiting]) -> float:
        """Seconds until a place in the queue is free: until the next job starts, or the waiting job `before`."""
        if before is not None and (due := self._due(before, line)) is not None:
            return due[0].seconds
        frees = [runner.free for runner in self._runners(lane)] if self._other_nodes.of(lane) else []
        return min((free.seconds for free in frees), default=self._lane_left(lane).seconds)

    def is_worth_keeping(self, job_id: str, *, needs_load: bool) -> bool:
        """Whether a running job's phase ends no later than a new engine could be ready, with a load if needed."""
        trace, costs = self._traces.get(job_id), self._costs
        if trace is None:
            return True
        again = costs.of("start").seconds + (costs.of("load", trace.work).seconds if needs_load else 0.0)
        return trace.phase_left(costs, self._clock()) <= again

    @property
    def record(self) -> Record:
        """Accuracy of the forecasts so far."""
        return self._accuracy.record

    # ---- stored over restarts --------------------------------------------------------------------

    @property
    def version(self) -> tuple[int, int]:
        """Changes when `to_text` changes."""
        return self._costs.version, self._accuracy.count

    @property
    def costs_text(self) -> str:
        """What was learned from this process's jobs, as JSON for the other processes."""
        version, text = self._costs_text
        if version != self._costs.version:
            text = json.dumps(self._costs.to_json())
            self._costs_text = self._costs.version, text
        return text

    def image_s(self, model: str, node: Node | None = None) -> float | None:
        """Learned seconds of an image of a model, at its usual size and steps; None where there is nothing learned.

        Of another node, or of this process where that is None.
        """
        spec = self._spec_of(model)
        if spec is None or spec.task != "generate":
            return None
        costs = self._costs if node is None else self._other_nodes.costs(node)
        px = spec.native_px or spec.default_px
        mode = "txt2img+guidance" if spec.default_guidance > 1 and not spec.distilled else "txt2img"
        size = px * px / MEGAPIXEL
        return costs.image_s(Work("engine", self._weights_of(model), None, mode, 1, spec.default_steps, size, size))

    def to_text(self) -> str:
        return json.dumps({"version": 1, "costs": self._costs.to_json(), "accuracy": self._accuracy.to_json()})

    def read_text(self, text: str) -> None:
        """Restore the state. Raises: ValueError, KeyError, TypeError, AttributeError for other data."""
        value: dict[str, Any] = json.loads(text)
        if value["version"] != 1:
            raise ValueError("another version")
        self._costs.read_json(value["costs"])
        self._accuracy.read_json(value["accuracy"])

    # ---- internal --------------------------------------------------------------------------------

    def _work(self, job: Job) -> Work:
        return self._work_of(job.plan, max(job.first_undrawn, len(job.pages)))

    def _work_of(self, plan: Plans, done: int) -> Work:
        spec = self._spec_of(plan.model)
        work = work_of(plan, spec, done)
        needed = 0 if self._needed_bytes is None or spec is None else self._needed_bytes(plan, spec)
        work = replace(work, model=self._weights_of(work.model), memory_bytes=needed)
        if len(self._alike) > ALIKE_MOST:
            self._alike.clear()
        return self._alike.setdefault(work, work)

    def _loaded_now(self) -> tuple[str, int | None] | None:
        loaded, name = self._loaded, self._loaded_model()
        return loaded if loaded is not None and name is not None and self._weights_of(name) == loaded[0] else None

    def _is_own(self, job_id: str, trace: Trace) -> bool:
        """Whether this process runs the job; known a moment after its claim, and from then on."""
        if not trace.is_own and self._runs(job_id):
            trace.is_own = True
            trace.expect_load(trace.work.needs is not None and trace.work.needs != self._loaded_now())
            self._free_since.pop(trace.work.lane, None)
            if trace.gap_s is not None:
                self._costs.learn("gap", None, trace.gap_s)
        return trace.is_own

    def _left(self, job_id: str, trace: Trace) -> Cost:
        """Seconds until the job is done, including its last file."""
        now, costs = self._clock(), self._costs
        if not trace.is_own and (node := self._other_nodes.node_of(job_id)) is not None:
            costs = self._other_nodes.costs(node)
        left, filed = trace.left(costs, now), filing(costs, trace.work)
        seconds = over(filed.seconds, now - trace.since) if trace.phase == "filing" else filed.seconds
        return Cost(left.seconds + seconds, hypot(left.spread, filed.spread))

    def _lane_left(self, lane: Lane) -> Cost:
        """Seconds until the lane claims its next job; if the engine is starting, until it is ready."""
        now = self._clock()
        if lane == "engine" and self._starting_since is not None:
            start = self._costs.of("start")
            return Cost(over(start.seconds, now - self._starting_since), start.spread)
        running = self._own_traces(lane)
        return running[-1].left(self._costs, now) if running else NONE

    def _own_traces(self, lane: Lane) -> list[Trace]:
        return [t for job_id, t in self._traces.items() if t.work.lane == lane and self._is_own(job_id, t)]

    def _due(self, job_id: str, line: Sequence[Waiting]) -> tuple[Cost, Cost] | None:
        """Seconds from now until a waiting job starts and is done."""
        work = self._works.get(job_id)
        if work is None:
            return None
        if self._other_nodes.of(work.lane):
            return self._due_in_fleet(job_id, work, line)
        if not self._takes(work.lane):
            return None
        walk = self._walk(work.lane, line)
        # A claimed job leaves the line a moment before `begins`.
        due = walk.walked.due(job_id) or QueueForecast([(job_id, work)], self._costs, walk.loaded).due(job_id)
        left = self._lane_left(work.lane)
        assert due is not None, "a line of this very job"
        return _after(left, due.begins), _after(left, due.done)

    def _takes(self, lane: Lane) -> bool:
        """Whether this process takes jobs of the lane."""
        return self._other_nodes.takes(lane) and not (lane == "engine" and self.is_down())

    def _walk(self, lane: Lane, line: Sequence[Waiting]) -> Walk:
        running = self._own_traces(lane)
        loaded = running[-1].work.needs if running else self._loaded_now()
        walk = self._walks.get(lane)
        ready_in = self._ready_in() if lane == "engine" else {}
        follows = (self._costs.version, loaded, ready_in)
        is_valid = walk is not None and (walk.version, walk.loaded, walk.ready_in) == follows
        if walk is None or not is_valid or walk.line is not line:
            walked = QueueForecast(self._works_of(line), self._costs, loaded, ready_in)
            walk = self._walks[lane] = Walk(line, *follows, walked)
        return walk

    def _works_of(self, line: Sequence[Waiting]) -> Iterator[tuple[str, Work]]:
        known = self._works
        return ((job.id, known[job.id]) for job in line if job.id in known)

    def _ready_in(self) -> Mapping[str, float]:
        """Whole seconds from when the lane is free, so that a computed queue stays valid for that long."""
        due = self.due_in()
        return counted_from(due, self._lane_left("engine").seconds) if due else due

    # ---- several nodes ---------------------------------------------------------------------------

    def _due_in_fleet(self, job_id: str, work: Work, line: Sequence[Waiting]) -> tuple[Cost, Cost] | None:
        """As `_due`; None where no node may run the job now."""
        due_in = self.due_in() if work.lane == "engine" else {}
        works = partial(self._works_of, line)
        return self._fleet_queue.due(job_id, work, line, works, self._runners(work.lane), due_in)

    def _runners(self, lane: Lane) -> list[Runner]:
        """The nodes that take jobs of a lane."""
        own: list[Runner] = []
        if self._takes(lane):
            running = self._own_traces(lane)
            loaded = running[-1].work.needs if running else self._loaded_now()
            models, limit = None, None
            if lane == "engine":
                models, limit = self._other_nodes.models(), self._other_nodes.own_limit_bytes
            own = [Runner(self._costs, loaded, self._lane_left(lane), models, limit, self._costs.version)]
        traces = {id_: t for id_, t in self._traces.items() if t.work.lane == lane and not self._is_own(id_, t)}
        return runners_of(self._other_nodes, lane, own, traces, self._clock())

    def _forecast(self, begins: Cost, done: Cost, *, is_paused: bool) -> Forecast:
        low, high = self._accuracy.interval(done)
        return Forecast(done.seconds, begins.seconds, low, high, is_paused)


def _after(first: Cost, then: Cost) -> Cost:
    return Cost(first.seconds + then.seconds, hypot(first.spread, then.spread))
