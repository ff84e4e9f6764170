"""A machine by the second for the forecaster's tests: jobs wait, load, draw, and the clock is ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from engine.catalog import CATALOG
from engine.protocol import Drawn, Generate, ModelLoaded, ModelLoading, StepDone, Succeeded
from gateway.forecast import Forecast, Forecaster
from gateway.jobs.facts import ImageDone, Queued, Started
from gateway.jobs.job import Job, Priority
from gateway.jobs.order import Standing, Waiting
from tests.support import a_job, a_plan

SPECS = {spec.name: spec for spec in CATALOG}
SMALL, LARGE = "flux2-klein-4b", "flux2-klein-9b"


def a_picture(px: int = 512, steps: int = 4, model: str = SMALL, count: int = 1) -> Generate:
    return a_plan(model=model, width_px=px, height_px=px, steps=steps, seeds=tuple(range(count)))


@dataclass
class Seconds:
    """What things really take here; `pace` times it all."""

    load: float = 5.0
    head: float = 0.4
    step: float = 0.1
    step_megapixel: float = 2.0
    tail_megapixel: float = 1.0
    file: float = 0.05
    pace: Callable[[], float] = lambda: 1.0

    def of(self, plan: Generate) -> float:
        """A job whose model is in memory."""
        px = plan.width_px * plan.height_px / 1e6
        picture = plan.steps * (self.step + px * self.step_megapixel) + px * self.tail_megapixel
        return self.head + len(plan.seeds) * picture + self.file


@dataclass
class Machine:
    """Draws one job after the other and tells the forecaster what a gateway would."""

    real: Seconds = field(default_factory=Seconds)
    now: float = 0.0
    loaded: str | None = None
    line: list[Job] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    held: list[bool] = field(default_factory=list)
    arrivals: list[tuple[float, Generate]] = field(default_factory=list)
    """What is submitted at which time, in order."""
    weights_of: Callable[[str], str | None] = str
    """None for the model's own."""
    _told: dict[str, tuple[float, Forecast]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.forecaster = Forecaster(
            SPECS.get, lambda: self.loaded, lambda: self.now, weights_of=lambda name: self.weights_of(name) or name
        )

    def order(self) -> Sequence[Waiting]:
        return [
            Waiting(job.id, "me", "engine", job.plan.model, Standing(Priority.NORMAL, job.created_at, job.number))
            for job in self.line
        ]

    def submit(self, plan: Generate) -> Job:
        job = Job.of(a_job(plan=plan), len(self.line) + 1).apply(Queued(), self.now)
        self.line.append(job)
        self.forecaster.waits(job)
        self.forecaster.on_submitted(job.id, self.order())
        self._told[job.id] = self.now, self.forecast(job)
        return job

    def forecast(self, job: Job) -> Forecast:
        found = self.forecaster.of(job.id, self.order())
        assert found is not None
        return found

    def draw(self, plan: Generate) -> float:
        """Submit it and draw all that waits; gives what it took."""
        began = self.now
        self.submit(plan)
        self.run()
        return self.now - began

    def run(self) -> None:
        while self.line or self.arrivals:
            if not self.line:
                self.pass_time(self.arrivals[0][0] - self.now)
            self.finish(self.begin())

    def begin(self) -> Job:
        job = self.line.pop(0).apply(Started(attempt=1), self.now)
        self.forecaster.begins(job)
        return job

    def load(self, job: Job) -> None:
        """Where the model is another one."""
        if self.loaded == job.plan.model:
            return
        self.loaded = None
        self.forecaster.on_fact(job.id, ModelLoading(model=job.plan.model))
        seconds = self._spend(self.real.load)
        self.loaded = job.plan.model
        self.forecaster.on_fact(job.id, ModelLoaded(model=job.plan.model, seconds=seconds))

    def step(self, job: Job, image: int, step: int) -> None:
        plan = job.plan
        assert isinstance(plan, Generate)
        seconds = self._spend(self.real.step + self._megapixels(plan) * self.real.step_megapixel)
        self.forecaster.on_fact(job.id, StepDone(image=image, step=step, steps=plan.steps, seconds=seconds))

    def finish(self, job: Job) -> None:
        plan = job.plan
        assert isinstance(plan, Generate)
        self.load(job)
        self._spend(self.real.head)
        for image in range(len(plan.seeds)):
            for step in range(1, plan.steps + 1):
                self.step(job, image, step)
            self._spend(self._megapixels(plan) * self.real.tail_megapixel)
            self.forecaster.on_fact(
                job.id, Drawn(image=image, seed=0, spool="", width_px=1, height_px=1, drawn_px=(1, 1), seconds=1)
            )
        self._spend(self.real.file)
        done = ImageDone(
            image=len(plan.seeds) - 1, seed=0, file="", width_px=1, height_px=1, drawn_px=(1, 1), seconds=1
        )
        self.forecaster.on_fact(job.id, done)
        self.forecaster.ends(job.apply(Succeeded(), self.now))
        at, told = self._told.pop(job.id)
        actual = self.now - at
        self.errors.append(abs(told.expected_s - actual) / actual)
        self.held.append(told.finish_low_s <= actual <= told.finish_high_s)

    def pass_time(self, seconds: float) -> None:
        """Whoever comes meanwhile comes at his own time."""
        end = self.now + max(0.0, seconds)
        while self.arrivals and self.arrivals[0][0] <= end:
            at, plan = self.arrivals.pop(0)
            self.now = max(self.now, at)
            self.submit(plan)
        self.now = end

    def _spend(self, seconds: float) -> float:
        seconds *= self.real.pace()
        self.pass_time(seconds)
        return seconds

    @staticmethod
    def _megapixels(plan: Generate) -> float:
        return plan.width_px * plan.height_px / 1e6
