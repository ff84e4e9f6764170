"""Forecaster: learns from events how long jobs will take. Has a clock; knows no store and no engine."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import hypot
from typing import Any

from engine.catalog import ModelSpec
from gateway.forecast.accuracy import Accuracy, Record
from gateway.forecast.costs import Costs
from gateway.forecast.series import Cost
from gateway.forecast.trace import Trace, over
from gateway.forecast.wait import Forecast, QueueForecast, filing
from gateway.forecast.work import Work, work_of
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
    """

    def __init__(
        self,
        spec_of: Callable[[str], ModelSpec | None],
        loaded_model: Callable[[], str | None],
        clock: Callable[[], float] = time.monotonic,
        weights_of: Callable[[str], str] = str,
        is_down: Callable[[], bool] = lambda: False,
        due_in: Callable[[], Mapping[str, float]] = dict,
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
        self._loaded: tuple[str, int | None] | None = None
        self._free_since: dict[Lane, float] = {}
        self._starting_since: float | None = None
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

    def on_submitted(self, job_id: str, line: Sequence[Waiting]) -> None:
        """Record the forecast of a waiting job that its client now receives, to compare it with the actual times."""
        due = self._due(job_id, line)
        if due is not None:
            self._submitted[job_id] = SubmittedForecast(self._clock(), due[1], self._forecast(*due, is_paused=False))

    def begins(self, job: Job) -> None:
        """Note a job that a lane has claimed."""
        now = self._clock()
        work = self._works.pop(job.id, None) or self._work(job)
        submitted, free = self._submitted.get(job.id), self._free_since.pop(work.lane, None)
        if submitted is not None:
            if job.attempt == 1:
                self._accuracy.note_wait(submitted.forecast.wait_s, now - submitted.at)
            if free is not None and submitted.at < free:
                self._costs.learn("gap", None, now - free)
        loads = work.needs is not None and work.needs != self._loaded_now()
        self._traces[job.id] = Trace(work, now, loads)

    def on_fact(self, job_id: str, fact: object) -> float | None:
        """Learn from a fact of a running job; returns the seconds until the job is done."""
        self.learn(job_id, fact)
        return self.left_s(job_id)

    def left_s(self, job_id: str) -> float | None:
        """Seconds until a running job is done."""
        trace = self._traces.get(job_id)
        return None if trace is None else self._left(trace).seconds

    def learn(self, job_id: str, fact: object) -> None:
        """Learn from a fact of a running job."""
        trace, now = self._traces.get(job_id), self._clock()
        if trace is None:
            return
        for part, seconds in trace.on_fact(fact, now):
            self._costs.learn(part, trace.work, seconds)
        if trace.work.lane == "engine" and not trace.loads:
            self._loaded = trace.work.needs
        if trace.phase == "filing":
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
            return self._forecast(NONE, self._left(trace), is_paused=False)
        due = self._due(job_id, line)
        return None if due is None else self._forecast(*due, is_paused=is_paused)

    def is_waiting(self, job_id: str) -> bool:
        """Whether the job has not started."""
        return job_id in self._works

    def room_s(self, lane: Lane, before: str | None, line: Sequence[Waiting]) -> float:
        """Seconds until a place in the queue is free: until the next job starts, or the waiting job `before`."""
        if before is not None and (due := self._due(before, line)) is not None:
            return due[0].seconds
        return self._lane_left(lane).seconds

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
        work = work_of(plan, self._spec_of(plan.model), done)
        work = replace(work, model=self._weights_of(work.model))
        if len(self._alike) > ALIKE_MOST:
            self._alike.clear()
        return self._alike.setdefault(work, work)

    def _loaded_now(self) -> tuple[str, int | None] | None:
        loaded, name = self._loaded, self._loaded_model()
        return loaded if loaded is not None and name is not None and self._weights_of(name) == loaded[0] else None

    def _left(self, trace: Trace) -> Cost:
        """Seconds until the job is done, including its last file."""
        now = self._clock()
        left, filed = trace.left(self._costs, now), filing(self._costs, trace.work)
        seconds = over(filed.seconds, now - trace.since) if trace.phase == "filing" else filed.seconds
        return Cost(left.seconds + seconds, hypot(left.spread, filed.spread))

    def _lane_left(self, lane: Lane) -> Cost:
        """Seconds until the lane claims its next job; if the engine is starting, until it is ready."""
        now = self._clock()
        if lane == "engine" and self._starting_since is not None:
            start = self._costs.of("start")
            return Cost(over(start.seconds, now - self._starting_since), start.spread)
        running = [trace for trace in self._traces.values() if trace.work.lane == lane]
        return running[-1].left(self._costs, now) if running else NONE

    def _due(self, job_id: str, line: Sequence[Waiting]) -> tuple[Cost, Cost] | None:
        """Seconds from now until a waiting job starts and is done."""
        work = self._works.get(job_id)
        if work is None or (work.lane == "engine" and self.is_down()):
            return None
        walk = self._walk(work.lane, line)
        # A claimed job leaves the line a moment before `begins`.
        due = walk.walked.due(job_id) or QueueForecast([(job_id, work)], self._costs, walk.loaded).due(job_id)
        left = self._lane_left(work.lane)
        assert due is not None, "a line of this very job"
        return _after(left, due.begins), _after(left, due.done)

    def _walk(self, lane: Lane, line: Sequence[Waiting]) -> Walk:
        running = [trace for trace in self._traces.values() if trace.work.lane == lane]
        loaded = running[-1].work.needs if running else self._loaded_now()
        walk = self._walks.get(lane)
        ready_in = self._ready_in() if lane == "engine" else {}
        follows = (self._costs.version, loaded, ready_in)
        is_valid = walk is not None and (walk.version, walk.loaded, walk.ready_in) == follows
        if walk is None or not is_valid or walk.line is not line:
            known = self._works
            works = ((job.id, known[job.id]) for job in line if job.id in known)
            walk = self._walks[lane] = Walk(line, *follows, QueueForecast(works, self._costs, loaded, ready_in))
        return walk

    def _ready_in(self) -> Mapping[str, float]:
        """Whole seconds from when the lane is free, so that a computed queue stays valid for that long."""
        coming = self.due_in()
        if not coming:
            return coming
        free = self._lane_left("engine").seconds
        return {waits: float(max(0, round(seconds - free))) for waits, seconds in coming.items()}

    def _forecast(self, begins: Cost, done: Cost, *, is_paused: bool) -> Forecast:
        low, high = self._accuracy.interval(done)
        return Forecast(done.seconds, begins.seconds, low, high, is_paused)


def _after(first: Cost, then: Cost) -> Cost:
    return Cost(first.seconds + then.seconds, hypot(first.spread, then.spread))
