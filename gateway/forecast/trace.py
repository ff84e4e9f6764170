"""Trace of a running job: seconds of its parts, and how much is left. Pure; times are of a monotonic clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from engine.protocol import Denoised, Drawn, ModelLoaded, ModelLoading, StepDone
from gateway.forecast.costs import Costs, Part
from gateway.forecast.series import Cost
from gateway.forecast.work import Work
from gateway.jobs.facts import ImageDone, ModelDownloading, PageRead

LIVE_AFTER = 2
"""Steps of this job that weigh as much as everything known before."""
OVERDUE = 0.1
"""A part that takes longer than expected is expected to take this share of its time so far in addition."""

GIGABYTE = 1e9
LEARNT_FROM = 0.01
"""Gigabytes: a smaller download does not show the network's speed."""

Phase = Literal["loading", "head", "steps", "tail", "filing"]


@dataclass(slots=True)
class Trace:
    """One attempt at a job, which started at `began`."""

    work: Work
    """All work of this attempt."""
    began: float
    loads: bool
    """Whether the model must be loaded first."""
    is_own: bool = True
    """Whether this process runs it. Of a job elsewhere no `Drawn` comes, and not every step."""
    gap_s: float | None = None
    """Seconds from the end of the job before, where this one waited for it."""
    phase: Phase = "head"
    since: float = field(init=False)
    """Start of the current phase; within steps, end of the last step."""
    done: int = 0
    """Images drawn or pages read."""
    step: int = 0
    ahead: int = 0
    """1 while an image is decoded beside the steps of the next one."""
    _has_facts: bool = False
    _image: int | None = None
    """The image of the last step."""
    _first_step_at: float = 0.0
    _first_step_s: float = 0.0
    _head_s: float = 0.0
    _paces: list[float] = field(default_factory=list)
    """Seconds of each step so far, without the first one of each image."""
    _drawn_at: dict[int, float] = field(default_factory=dict)
    _fetched: ModelDownloading | None = None
    _fetched_first: tuple[float, int] = (0.0, 0)
    """Time and bytes of the first progress report of a download."""

    def __post_init__(self) -> None:
        self.since = self.began
        self.expect_load(self.loads)

    def expect_load(self, loads: bool) -> None:
        """Set whether the model must be loaded first, unless facts have shown it."""
        if not self._has_facts:
            self.loads, self.phase = loads, "loading" if loads else "head"

    def on_fact(self, fact: object, now: float) -> Iterator[tuple[Part, float]]:
        """Record a fact; yields the parts that ended with it and their seconds."""
        self._has_facts = True
        match fact:
            case ModelLoading():
                self._enter("loading", now)
            case ModelLoaded(seconds=seconds):
                self.loads = False
                self._enter("head", now)
                yield "load", seconds
            case StepDone(image=image, step=step, steps=steps, seconds=seconds):
                if not self.is_own and self.phase == "steps" and image != self._image:
                    self._enter("tail", now)  # its last step was not reported
                if self.phase == "tail" and image != self._image:
                    yield from self._parts()
                    yield "next_tail", 0.0
                    self.ahead = 1
                self._image = image
                if self.phase != "steps":
                    self._first_step_at, self._first_step_s, self._head_s = now, seconds, now - self.since
                elif step > self.step:
                    self._paces.append((now - self.since) / (step - self.step))
                self.loads, self.step = False, step
                self._enter("tail" if step >= steps else "steps", now)
            case Denoised():
                if self.phase == "tail":
                    yield from self._parts()
                    yield "last_tail", 0.0
                self.done = self.work.images
                self._enter("filing", now)
            case Drawn(image=image) if self.phase == "filing":
                self._drawn_at[image] = now
                yield "tail", now - self.since
            case Drawn(image=image, cut_short=cut_short):
                self._drawn_at[image] = now
                if self.phase == "tail" and not cut_short and not (self.ahead and image != self._image):
                    yield from self._parts()
                    yield "tail", now - self.since
                    if self._before + 1 == self.work.images:
                        yield "last_tail", now - self.since
                self._drawn(image, now)
            case ImageDone(image=image) if not self.is_own:
                self._drawn(image, now)
            case ImageDone(image=image):
                if (drawn_at := self._drawn_at.pop(image, None)) is not None:
                    yield "file", now - drawn_at
            case ModelDownloading(done_bytes=done, total_bytes=total):
                if self._fetched is None:
                    self._fetched_first = now, done
                self._fetched = fact
                size = (done - self._fetched_first[1]) / GIGABYTE
                if done >= total and size >= LEARNT_FROM:
                    yield "fetch", (now - self._fetched_first[0]) / size
            case PageRead(seconds=seconds):
                self.done += 1
                self.since = now
                yield "page", seconds

    def _drawn(self, image: int, now: float) -> None:
        if self.ahead and image != self._image:
            self.done, self.ahead = self.done + 1, 0
            return
        self.done, self.step = self.done + 1, 0
        self._enter("filing" if self.done >= self.work.images else "head", now)

    @property
    def _before(self) -> int:
        """Images before the one that is denoised."""
        return self.done + self.ahead

    def _parts(self) -> Iterator[tuple[Part, float]]:
        """Parts of an image before its decoding. The first step's extra time is counted with what comes before it."""
        more = self.step - 1
        step_s = (self.since - self._first_step_at) / more if more > 0 else self._first_step_s
        yield "step", step_s
        yield "head" if self._before == 0 else "next_head", max(0.0, self._head_s - step_s)

    def _enter(self, phase: Phase, now: float) -> None:
        self.phase, self.since = phase, now

    def left(self, costs: Costs, now: float) -> Cost:
        """Seconds until the lane is free, without writing the last image's file."""
        work, elapsed = self.work, max(0.0, now - self.since)
        rest = work.images - self._before
        if work.lane == "network":
            return self._to_fetch(costs)
        if work.lane == "cpu":
            page = costs.of("page", work)
            if rest <= 0:
                return Cost(0.0, 0.0)
            return Cost(over(page.seconds, elapsed) + max(0, rest - 1) * page.seconds, rest * page.spread)
        load = costs.of("load", work) if self.loads else Cost(0.0, 0.0)
        if rest <= 0:
            return Cost(over(load.seconds, elapsed) if self.loads else 0.0, load.spread)
        if self.phase == "loading":
            run = costs.run(work)
            return Cost(over(load.seconds, elapsed) + run.seconds, load.spread + run.spread)
        step_s, last_tail, next_tail = self._pace(costs), costs.of("last_tail", work), costs.of("next_tail", work)
        head = costs.of("head" if self._before == 0 else "next_head", work)
        tail = last_tail if rest == 1 else next_tail
        match self.phase:
            case "head":
                seconds = over(head.seconds + step_s, elapsed) + max(0, work.steps - 1) * step_s + tail.seconds
            case "steps":
                seconds = over(step_s, elapsed) + max(0, work.steps - self.step - 1) * step_s + tail.seconds
            case _:
                seconds = over(tail.seconds, elapsed)
        if rest > 1:
            later = costs.of("next_head", work).seconds + work.steps * step_s + next_tail.seconds
            seconds += (rest - 1) * later + last_tail.seconds - next_tail.seconds
        share = costs.run(replace(work, images=rest))
        return Cost(seconds, share.spread * min(1.0, seconds / share.seconds) if share.seconds else 0.0)

    def phase_left(self, costs: Costs, now: float) -> float:
        """Seconds until this phase of an image ends; within steps, until the next step ends."""
        work, elapsed = self.work, max(0.0, now - self.since)
        match self.phase:
            case "loading":
                return over(costs.of("load", work).seconds, elapsed)
            case "head":
                head = costs.of("head" if self._before == 0 else "next_head", work)
                return over(head.seconds + self._pace(costs), elapsed)
            case "steps":
                return over(self._pace(costs), elapsed)
            case "tail" | "filing":
                return over(costs.of("tail", work).seconds, elapsed)

    def _to_fetch(self, costs: Costs) -> Cost:
        """Seconds for the rest of a download, at the recent speed if that is known."""
        per_gigabyte = costs.of("fetch", self.work)
        if (fetched := self._fetched) is None:
            return Cost(self.work.gigabytes * per_gigabyte.seconds, self.work.gigabytes * per_gigabyte.spread)
        rest = (fetched.total_bytes - fetched.done_bytes) / GIGABYTE
        if fetched.bytes_per_s:
            return Cost(rest * GIGABYTE / fetched.bytes_per_s, 0.2 * rest * GIGABYTE / fetched.bytes_per_s)
        return Cost(rest * per_gigabyte.seconds, rest * per_gigabyte.spread)

    def _pace(self, costs: Costs) -> float:
        """Seconds a step: first what is known of such jobs, then more and more what this job shows."""
        usual_s = costs.of("step", self.work).seconds
        if not self._paces:
            return usual_s
        live = sorted(self._paces)[len(self._paces) // 2]
        if "+tiles" in self.work.mode:  # tiles are encoded and decoded between two steps
            live = sum(self._paces) / len(self._paces)
        return (LIVE_AFTER * usual_s + len(self._paces) * live) / (LIVE_AFTER + len(self._paces))


def over(expected_s: float, elapsed_s: float) -> float:
    """Seconds left of something that was expected to take `expected_s`."""
    return max(expected_s - elapsed_s, OVERDUE * max(expected_s, elapsed_s))
