"""Forecasts where an image is decoded beside the steps of the next one, of its job or the next: its decoding delays
nothing but the last.
"""

from __future__ import annotations

import pytest

from engine.protocol import Denoised, Drawn, Generate, Succeeded
from gateway.jobs.facts import ImageDone
from gateway.jobs.job import Job
from tests.support.forecast import Machine, a_picture

approx = pytest.approx
PX = 512
SECONDS = {"head": 0.4, "step": 0.1 + 2.0 * PX**2 / 1e6, "tail": PX**2 / 1e6, "file": 0.05}


class Beside(Machine):
    """Each image but the last is drawn after the first step of the next."""

    def finish(self, job: Job) -> None:
        plan = job.plan
        assert isinstance(plan, Generate)
        self.load(job)
        self._spend(self.real.head)
        last = len(plan.seeds) - 1
        for image in range(last + 1):
            for step in range(1, plan.steps + 1):
                self.step(job, image, step)
                if step == 1 and image:
                    self.drawn(job, image - 1)
        self._spend(self._megapixels(plan) * self.real.tail_megapixel)
        self.drawn(job, last)
        self._spend(self.real.file)
        spooled = {"seed": 0, "file": "", "width_px": 1, "height_px": 1, "drawn_px": (1, 1), "seconds": 1}
        self.forecaster.on_fact(job.id, ImageDone(image=last, **spooled))
        self.forecaster.ends(job.apply(Succeeded(), self.now))
        self._told.pop(job.id)

    def drawn(self, job: Job, image: int) -> None:
        spooled = {"seed": 0, "spool": "", "width_px": 1, "height_px": 1, "drawn_px": (1, 1), "seconds": 1}
        self.forecaster.on_fact(job.id, Drawn(image=image, **spooled))


def seconds(images: int, steps: int = 4) -> float:
    return SECONDS["head"] + images * steps * SECONDS["step"] + SECONDS["tail"] + SECONDS["file"]


@pytest.mark.parametrize("images", [1, 2, 4])
def test_forecast_counts_the_decoding_of_the_last_image_only(images: int) -> None:
    machine = Beside()
    for _ in range(4):
        machine.draw(a_picture(PX, count=4))
    job = machine.submit(a_picture(PX, count=images))
    assert machine.forecast(job).expected_s == approx(seconds(images), rel=0.05)


def test_forecast_of_a_running_job_counts_down_while_an_image_is_decoded() -> None:
    machine = Beside()
    for _ in range(4):
        machine.draw(a_picture(PX, count=3))
    machine.submit(a_picture(PX, count=3))
    job = machine.begin()
    machine._spend(machine.real.head)
    left = []
    for image in range(3):
        for step in range(1, 5):
            machine.step(job, image, step)
            left.append((machine.forecast(job).expected_s, seconds(3) - SECONDS["head"] - len(left) * SECONDS["step"]))
            if step == 2 and image:
                machine.drawn(job, image - 1)
    for forecast, actual in left:
        assert forecast == approx(actual - SECONDS["step"], abs=0.15)


def test_forecast_is_as_before_where_no_image_was_ever_decoded_beside_another() -> None:
    machine = Machine()
    for _ in range(4):
        machine.draw(a_picture(PX, count=2))
    job = machine.submit(a_picture(PX, count=4))
    assert machine.forecast(job).expected_s == approx(machine.real.of(a_picture(PX, count=4)), rel=0.05)


class JobsBeside(Beside):
    """The last image of a job is drawn after the first steps of the next job, or once no job waits."""

    before: Job | None = None

    def finish(self, job: Job) -> None:
        plan = job.plan
        assert isinstance(plan, Generate)
        self.load(job)
        self._spend(self.real.head)
        for step in range(1, plan.steps + 1):
            self.step(job, 0, step)
            if step == 2 and self.before is not None:
                self.end(self.before)
        self.forecaster.on_fact(job.id, Denoised(image=0))
        self.before = job
        if not self.line:
            self._spend(self._megapixels(plan) * self.real.tail_megapixel)
            self.end(job)
            self.before = None

    def end(self, job: Job) -> None:
        self.drawn(job, 0)
        spooled = {"seed": 0, "file": "", "width_px": 1, "height_px": 1, "drawn_px": (1, 1), "seconds": 1}
        self.now += self.real.file
        self.forecaster.on_fact(job.id, ImageDone(image=0, **spooled))
        self.now -= self.real.file
        self.forecaster.ends(job.apply(Succeeded(), self.now))


def test_forecast_of_waiting_jobs_counts_their_own_last_decoding_only() -> None:
    machine = JobsBeside()
    for _ in range(8):
        machine.submit(a_picture(PX))
    machine.run()
    jobs = [machine.submit(a_picture(PX)) for _ in range(4)]
    denoising = SECONDS["head"] + 4 * SECONDS["step"]
    for ahead, job in enumerate(jobs):
        forecast = machine.forecast(job)
        assert forecast.wait_s == approx(ahead * denoising, rel=0.05, abs=0.05)
        # Its decoding takes two steps and a head beside another job, and as long as it does where none waits.
        own = forecast.expected_s - forecast.wait_s - denoising
        assert own == approx(SECONDS["head"] + 2 * SECONDS["step"] + SECONDS["file"], rel=0.1)


def test_forecast_of_a_job_whose_image_is_decoded_counts_the_rest_of_it() -> None:
    machine = JobsBeside()
    for _ in range(8):
        machine.submit(a_picture(PX))
    machine.run()
    machine.submit(a_picture(PX))
    waiting = machine.submit(a_picture(PX))
    job = machine.begin()
    machine._spend(machine.real.head)
    for step in range(1, 5):
        machine.step(job, 0, step)
    assert machine.forecast(waiting).wait_s < 0.2 * SECONDS["step"], "the lane is free now"
    machine.forecaster.on_fact(job.id, Denoised(image=0))
    left = [machine.forecast(job).expected_s]
    for _ in range(3):
        machine.now += 0.2
        left.append(machine.forecast(job).expected_s)
    assert left == sorted(left, reverse=True)
    assert left[0] > SECONDS["head"]
    assert machine.forecast(waiting).wait_s == approx(0.0, abs=0.05)
