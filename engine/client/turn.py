"""One job's turn on the child: its facts on their way to the caller, and how long the next one may take."""

from __future__ import annotations

import asyncio
from collections import deque
from statistics import median
from typing import Literal, assert_never

from engine.client.options import EngineOptions
from engine.clock import Alarm
from engine.protocol import (
    Cancelled,
    Decoding,
    Drawn,
    EnginePlan,
    Failed,
    Generate,
    ModelLoaded,
    ModelLoading,
    Preview,
    Run,
    StepDone,
    Succeeded,
    Upscale,
)

Fact = ModelLoading | ModelLoaded | StepDone | Decoding | Preview | Drawn | Succeeded | Failed | Cancelled
Phase = Literal["waiting", "loading", "drawing", "decoding"]
DeathReason = Literal["engine_crash", "engine_timeout", "engine_oom"]


USUAL_PIXELS = 4_194_304
"""Larger pictures get as much longer for their first step and for decoding."""


class EngineDied(Exception):
    """The child died while it held the job. `phase` says what it was doing then."""

    def __init__(self, reason: DeathReason, phase: Phase) -> None:
        self.reason: DeathReason = reason
        self.phase: Phase = phase
        super().__init__(f"{reason} while {phase}")


class Deadline:
    """How long the child may stay silent, by what it said last.

    `larger` is how many times the usual size a picture has; after each decoding `begins_anew` forgets the steps before:
    those of a second pass are of another size.
    """

    def __init__(self, options: EngineOptions, *, larger: float = 1.0, begins_anew: bool = False) -> None:
        self._options = options
        self._larger = larger
        self._begins_anew = begins_anew
        self._steps_s: list[float] = []
        self.phase: Phase = "waiting"

    def heard(self, fact: Fact) -> None:
        match fact:
            case ModelLoading():
                self.phase = "loading"
            case ModelLoaded() | Preview() | Drawn():
                self.phase = "drawing"
            case StepDone(seconds=seconds):
                self.phase = "drawing"
                self._steps_s.append(seconds)
            case Decoding():
                self.phase = "decoding"
                if self._begins_anew:
                    self._steps_s.clear()
            case Succeeded() | Failed() | Cancelled():
                pass
            case _:
                assert_never(fact)

    @property
    def allowance_s(self) -> float:
        options = self._options
        match self.phase:
            case "waiting" | "loading":
                return options.load_s
            case "drawing":
                if not self._steps_s:
                    return options.first_step_s * self._larger
                return max(options.step_floor_s, options.step_factor * median(self._steps_s))
            case "decoding":
                return options.decode_s * self._larger
            case _:
                assert_never(self.phase)


def larger(plan: EnginePlan) -> float:
    """How many times a picture of this plan has USUAL_PIXELS; 1 at least."""
    if not isinstance(plan, Generate | Upscale):
        return 1.0
    pixels = plan.width_px * plan.height_px
    if isinstance(plan, Generate) and plan.second_pass is not None:
        pixels = max(pixels, plan.second_pass.width_px * plan.second_pass.height_px)
    return max(1.0, pixels / USUAL_PIXELS)


class Turn:
    """Facts go in as the child says them and come out in order; `died` ends them. Belongs to one event loop."""

    def __init__(self, run: Run, options: EngineOptions) -> None:
        self.run = run
        second = run.plan.second_pass if isinstance(run.plan, Generate) else None
        self.deadline = Deadline(options, larger=larger(run.plan), begins_anew=second is not None)
        self.cancel_asked = False
        self.ended = False
        """The child said its last word of this job, or died."""
        self.death: EngineDied | None = None
        self.answered = False
        """The caller was told that the job is cancelled; the child has not said so yet."""
        self._facts: deque[Fact] = deque()
        self._news = asyncio.Event()
        self._is_silent = False
        self._silence: Alarm | None = None
        self._grace: tuple[Alarm, ...] = ()

    def begin(self) -> None:
        """The child has the job: the deadline runs from here."""
        self._is_silent = False
        self._silence = Alarm(self.deadline.allowance_s, self._fall_silent)

    def hear(self, fact: Fact) -> None:
        if self.answered:
            if isinstance(fact, Succeeded | Failed | Cancelled):
                self._end()
            return
        self.deadline.heard(fact)
        self._facts.append(fact)
        self._news.set()
        if isinstance(fact, Succeeded | Failed | Cancelled):
            self._end()
        elif self._is_silent:
            self.begin()
        elif self._silence is not None:
            self._silence.restart(self.deadline.allowance_s)

    def answer(self) -> None:
        """The job is over for its caller; what the child still says of it is heard no more."""
        if not self.ended:
            self.answered = self.ended = True
            self._facts.append(Cancelled())
            self._news.set()

    def die(self, reason: DeathReason) -> None:
        """The child is gone; a job that was to stop has stopped."""
        if self.ended:
            return self._end()
        if self.cancel_asked:
            self._facts.append(Cancelled())
        else:
            self.death = EngineDied(reason, self.deadline.phase)
        self._end()

    def give_grace(self, *grace: Alarm) -> None:
        """What happens unless the child is done with the job first."""
        self._grace = grace

    def _fall_silent(self) -> None:
        self._is_silent = True
        self._news.set()

    async def next(self) -> Fact:
        """The next fact. Raises: EngineDied, and TimeoutError when the child was silent too long."""
        while not self._facts:
            if self.death is not None:
                raise self.death
            if self._is_silent:
                raise TimeoutError
            self._news.clear()
            await self._news.wait()
        return self._facts.popleft()

    async def end(self) -> None:
        """Wait for the last fact or the death, whatever the deadline."""
        while not self.ended:
            self._news.clear()
            await self._news.wait()

    def _end(self) -> None:
        self.ended = True
        self._news.set()
        for alarm in self._grace:
            alarm.cancel()
        if self._silence is not None:
            self._silence.cancel()
