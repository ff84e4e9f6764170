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
    PromptRead,
    Run,
    StepDone,
    Succeeded,
    Upscale,
)

Fact = ModelLoading | ModelLoaded | PromptRead | StepDone | Decoding | Preview | Drawn | Succeeded | Failed | Cancelled
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

    `size_factor` is how many times the usual size a picture has; after each decoding `resets_after_decoding` forgets the steps before:
    those of a second pass are of another size.
    """

    def __init__(
        self, options: EngineOptions, *, size_factor: float = 1.0, resets_after_decoding: bool = False
    ) -> None:
        self._options = options
        self._size_factor = size_factor
        self._resets_after_decoding = resets_after_decoding
        self._steps_s: list[float] = []
        self.phase: Phase = "waiting"

    def on_fact(self, fact: Fact) -> None:
        match fact:
            case ModelLoading():
                self.phase = "loading"
            case ModelLoaded() | PromptRead() | Preview() | Drawn():
                self.phase = "drawing"
            case StepDone(seconds=seconds):
                self.phase = "drawing"
                self._steps_s.append(seconds)
            case Decoding():
                self.phase = "decoding"
                if self._resets_after_decoding:
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
                    return options.first_step_s * self._size_factor
                return max(options.step_floor_s, options.step_factor * median(self._steps_s))
            case "decoding":
                return options.decode_s * self._size_factor
            case _:
                assert_never(self.phase)


def size_factor(plan: EnginePlan) -> float:
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
        self.deadline = Deadline(options, size_factor=size_factor(run.plan), resets_after_decoding=second is not None)
        self.cancel_requested = False
        self.ended = False
        """The child said its last word of this job, or died."""
        self.death: EngineDied | None = None
        self.answered = False
        """The caller was told that the job is cancelled; the child has not said so yet."""
        self._facts: deque[Fact] = deque()
        self._changed = asyncio.Event()
        self._is_silent = False
        self._silence: Alarm | None = None
        self._grace: tuple[Alarm, ...] = ()

    def begin(self) -> None:
        """The child has the job: the deadline runs from here."""
        self._is_silent = False
        self._silence = Alarm(self.deadline.allowance_s, self._on_silence)

    def on_fact(self, fact: Fact) -> None:
        if self.answered:
            if isinstance(fact, Succeeded | Failed | Cancelled):
                self._end()
            return
        self.deadline.on_fact(fact)
        self._facts.append(fact)
        self._changed.set()
        if isinstance(fact, Succeeded | Failed | Cancelled):
            self._end()
        elif self._is_silent:
            self.begin()
        elif self._silence is not None:
            self._silence.restart(self.deadline.allowance_s)

    def answer_cancelled(self) -> None:
        """The job is over for its caller; what the child still says of it is on_fact no more."""
        if not self.ended:
            self.answered = self.ended = True
            self._facts.append(Cancelled())
            self._changed.set()

    def fail(self, reason: DeathReason) -> None:
        """The child is gone; a job that was to stop has stopped."""
        if self.ended:
            return self._end()
        if self.cancel_requested:
            self._facts.append(Cancelled())
        else:
            self.death = EngineDied(reason, self.deadline.phase)
        self._end()

    def set_grace(self, *grace: Alarm) -> None:
        """What happens unless the child is done with the job first."""
        self._grace = grace

    def _on_silence(self) -> None:
        self._is_silent = True
        self._changed.set()

    async def next(self) -> Fact:
        """The next fact. Raises: EngineDied, and TimeoutError when the child was silent too long."""
        while not self._facts:
            if self.death is not None:
                raise self.death
            if self._is_silent:
                raise TimeoutError
            self._changed.clear()
            await self._changed.wait()
        return self._facts.popleft()

    async def end(self) -> None:
        """Wait for the last fact or the death, whatever the deadline."""
        while not self.ended:
            self._changed.clear()
            await self._changed.wait()

    def _end(self) -> None:
        self.ended = True
        self._changed.set()
        for alarm in self._grace:
            alarm.cancel()
        if self._silence is not None:
            self._silence.cancel()
