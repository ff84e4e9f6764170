"""The one who is told what happens, and asked how long things will take. Has a clock; knows no store and no engine."""

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
from gateway.jobs.job import Job, State
from gateway.jobs.order import Waiting
from gateway.jobs.plans import Lane

NONE = Cost(0.0, 0.0)
ALIKE_MOST = 4096


@dataclass(frozen=True, slots=True)
class SubmittedForecast:
    """What was said of a job when it was submitted."""

    at: float
    done: Cost
    forecast: Forecast


@dataclass(frozen=True, slots=True)
class Walk:
    """A line once walked along, and what it followed from: it holds while these are the same."""

    line: Sequence[Waiting]
    version: int
    loaded: tuple[str, int | None] | None
    ready_in: Mapping[str, float]
    walked: QueueForecast


class Forecaster:
    """Belongs to one event loop. `loaded_model` says which model the engine holds, `spec_of` what is known of one,
    `weights_of` what names the weights it shares with others: between two such nothing is loaded.
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
        """Of waiting jobs."""
        self._alike: dict[Work, Work] = {}
        """One object for all works that are the same: a long line asks for the costs of each kind once."""
        self._traces: dict[str, Trace] = {}
        """Of running jobs, in the order in which they began."""
        self._told: dict[str, SubmittedForecast] = {}
        self._walks: dict[Lane, Walk] = {}
        self._loaded: tuple[str, int | None] | None = None
        self._free_since: dict[Lane, float] = {}
        self._starting_since: float | None = None
        self.is_down = is_down
        """Whether the engine is down: nobody can say when it goes on, so nothing that waits for it has a forecast."""
        self.due_in = due_in
        """Models, and jobs by id, whose downloads go on now, and when they are here, in whole seconds from now."""

    # ---- what happens ----------------------------------------------------------------------------

    def waits(self, job: Job) -> None:
        """It waits, from its beginning or for what is left of it."""
        self._traces.pop(job.id, None)
        self._works[job.id] = self._work(job)

    def on_submitted(self, job_id: str, line: Sequence[Waiting]) -> None:
        """A waiting job's client is told a forecast now: hold it to it."""
        found = self._due(job_id, line)
        if found is not None:
            self._told[job_id] = SubmittedForecast(self._clock(), found[1], self._forecast(*found, is_paused=False))

    def begins(self, job: Job) -> None:
        """A lane claimed it."""
        now = self._clock()
        work = self._works.pop(job.id, None) or self._work(job)
        told, free = self._told.get(job.id), self._free_since.pop(work.lane, None)
        if told is not None:
            if job.attempt == 1:
                self._accuracy.note_wait(told.forecast.wait_s, now - told.at)
            if free is not None and told.at < free:
                self._costs.learn("gap", None, now - free)
        loads = work.needs is not None and work.needs != self._loaded_now()
        self._traces[job.id] = Trace(work, now, loads)

    def on_fact(self, job_id: str, fact: object) -> float | None:
        """A fact of a running job; gives the seconds until it is done."""
        trace, now = self._traces.get(job_id), self._clock()
        if trace is None:
            return None
        for part, seconds in trace.on_fact(fact, now):
            self._costs.learn(part, trace.work, seconds)
        if trace.work.lane == "engine" and not trace.loads:
            self._loaded = trace.work.needs
        if trace.phase == "filing":
            self._free_since[trace.work.lane] = trace.since
        return self._left(trace).seconds

    def ends(self, job: Job) -> None:
        """It is over; a success shows how good the forecast was."""
        told = self._told.pop(job.id, None)
        self._works.pop(job.id, None)
        self._traces.pop(job.id, None)
        if told is not None and job.state is State.SUCCEEDED:
            interval = told.forecast.finish_low_s, told.forecast.finish_high_s
            self._accuracy.note(told.done, interval, self._clock() - told.at)

    def forget(self, job_id: str) -> None:
        """Nothing more will be heard of a job."""
        for known in (self._told, self._works, self._traces):
            known.pop(job_id, None)

    def pauses(self) -> None:
        """Whatever was told does not hold any more."""
        self._told.clear()

    def engine_starts(self) -> None:
        self._starting_since = self._clock()

    def engine_started(self) -> None:
        if self._starting_since is not None:
            self._costs.learn("start", None, self._clock() - self._starting_since)
            self._starting_since = None

    # ---- what is asked ---------------------------------------------------------------------------

    def of(self, job_id: str, line: Sequence[Waiting], *, is_paused: bool = False) -> Forecast | None:
        """Of a job that runs, or that waits in `line`, the order of its lane; None where it does neither."""
        trace = self._traces.get(job_id)
        if trace is not None:
            return self._forecast(NONE, self._left(trace), is_paused=False)
        found = self._due(job_id, line)
        return None if found is None else self._forecast(*found, is_paused=is_paused)

    def is_waiting(self, job_id: str) -> bool:
        """Whether the job has not begun."""
        return job_id in self._works

    def room_s(self, lane: Lane, before: str | None, line: Sequence[Waiting]) -> float:
        """Until a place in the queue is free: when the next job begins, or the waiting job `before`."""
        if before is not None and (found := self._due(before, line)) is not None:
            return found[0].seconds
        return self._lane_left(lane).seconds

    def is_worth_keeping(self, job_id: str, *, needs_load: bool) -> bool:
        """Whether the rest of a running job's phase takes no longer than an engine anew, and a load where needed."""
        trace, costs = self._traces.get(job_id), self._costs
        if trace is None:
            return True
        again = costs.of("start").seconds + (costs.of("load", trace.work).seconds if needs_load else 0.0)
        return trace.phase_left(costs, self._clock()) <= again

    @property
    def record(self) -> Record:
        """How good forecasts have been."""
        return self._accuracy.record

    # ---- kept over restarts ----------------------------------------------------------------------

    @property
    def version(self) -> tuple[int, int]:
        """Changes with what `to_text` gives."""
        return self._costs.version, self._accuracy.count

    def to_text(self) -> str:
        return json.dumps({"version": 1, "costs": self._costs.to_json(), "accuracy": self._accuracy.to_json()})

    def read_text(self, kept: str) -> None:
        """Raises: ValueError, KeyError, TypeError, AttributeError for what was not written by `to_text`."""
        value: dict[str, Any] = json.loads(kept)
        if value["version"] != 1:
            raise ValueError("another version")
        self._costs.read_json(value["costs"])
        self._accuracy.read_json(value["accuracy"])

    # ---- inside ----------------------------------------------------------------------------------

    def _work(self, job: Job) -> Work:
        work = work_of(job.plan, self._spec_of(job.plan.model), max(job.first_undrawn, len(job.pages)))
        work = replace(work, model=self._weights_of(work.model))
        if len(self._alike) > ALIKE_MOST:
            self._alike.clear()
        return self._alike.setdefault(work, work)

    def _loaded_now(self) -> tuple[str, int | None] | None:
        loaded, name = self._loaded, self._loaded_model()
        return loaded if loaded is not None and name is not None and self._weights_of(name) == loaded[0] else None

    def _left(self, trace: Trace) -> Cost:
        """Until the job is done, its last file included."""
        now = self._clock()
        left, filed = trace.left(self._costs, now), filing(self._costs, trace.work)
        seconds = over(filed.seconds, now - trace.since) if trace.phase == "filing" else filed.seconds
        return Cost(left.seconds + seconds, hypot(left.spread, filed.spread))

    def _lane_left(self, lane: Lane) -> Cost:
        """Until the lane claims its next job; of an engine that starts until it is there."""
        now = self._clock()
        if lane == "engine" and self._starting_since is not None:
            start = self._costs.of("start")
            return Cost(over(start.seconds, now - self._starting_since), start.spread)
        running = [trace for trace in self._traces.values() if trace.work.lane == lane]
        return running[-1].left(self._costs, now) if running else NONE

    def _due(self, job_id: str, line: Sequence[Waiting]) -> tuple[Cost, Cost] | None:
        """When a waiting job begins and is done, from now."""
        work = self._works.get(job_id)
        if work is None or (work.lane == "engine" and self.is_down()):
            return None
        walk = self._walk(work.lane, line)
        # One that is claimed leaves the line a moment before `begins`.
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
        known = walk is not None and (walk.version, walk.loaded, walk.ready_in) == follows
        if walk is None or not known or walk.line is not line:
            works = ((job.id, work) for job in line if (work := self._works.get(job.id)) is not None)
            walk = self._walks[lane] = Walk(line, *follows, QueueForecast(works, self._costs, loaded, ready_in))
        return walk

    def _ready_in(self) -> Mapping[str, float]:
        """Counted from when the lane is free, in whole seconds: a walk along the line holds for so long."""
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
