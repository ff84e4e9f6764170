"""One job's turn on the child: passes its facts to the caller, and limits the time until the next one."""

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
    Denoised,
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

Outcome = Succeeded | Failed | Cancelled
Fact = ModelLoading | ModelLoaded | PromptRead | StepDone | Decoding | Denoised | Preview | Drawn | Outcome
Phase = Literal["waiting", "loading", "drawing", "decoding"]
DeathReason = Literal["engine_crash", "engine_timeout", "engine_oom"]


USUAL_PIXELS = 4_194_304
"""Larger images get proportionally longer for their first step and for decoding."""


class EngineDied(Exception):
    """The child exited while it ran the job. `phase` says what it was doing; `is_shared`, that another job was on it,
    too, which may be the cause.
    """

    def __init__(self, reason: DeathReason, phase: Phase, *, is_shared: bool = False) -> None:
        self.reason: DeathReason = reason
        self.phase: Phase = phase
        self.is_shared = is_shared
        super().__init__(f"{reason} while {phase}")


class Deadline:
    """How long the child may stay silent, given the last fact.

    `size_factor` is the size of the image relative to USUAL_PIXELS. With `resets_after_decoding` the step times are
    forgotten after each decoding: the steps of a second pass are of another size.
    """

    def __init__(
        self, options: EngineOptions, *, size_factor: float = 1.0, resets_after_decoding: bool = False
    ) -> None:
        self._options = options
        self._size_factor = size_factor
        self._resets_after_decoding = resets_after_decoding
        self._steps_s: list[float] = []
        self._decoding: int | None = None
        """Image that is being decoded, perhaps beside the steps of the next one."""
        self.phase: Phase = "waiting"

    def on_fact(self, fact: Fact) -> None:
        match fact:
            case ModelLoading():
                self.phase = "loading"
            case ModelLoaded() | PromptRead() | Preview():
                self.phase = "drawing"
            case Drawn():
                self.phase, self._decoding = "drawing", None
            case StepDone(image=image, seconds=seconds):
                self.phase = "drawing"
                if image == self._decoding:  # a second pass
                    self._decoding = None
                self._steps_s.append(seconds)
            case Decoding(image=image) | Denoised(image=image):
                self.phase, self._decoding = "decoding", image
                if self._resets_after_decoding:
                    self._steps_s.clear()
            case Succeeded() | Failed() | Cancelled():
                pass
            case _:
                assert_never(fact)

    @property
    def allowance_s(self) -> float:
        options = self._options
        decode_s = 0.0 if self._decoding is None else options.decode_s * self._size_factor
        match self.phase:
            case "waiting" | "loading":
                return options.load_s
            case "drawing":
                if not self._steps_s:
                    return max(decode_s, options.first_step_s * self._size_factor)
                return max(decode_s, options.step_floor_s, options.step_factor * median(self._steps_s))
            case "decoding":
                return decode_s
            case _:
                assert_never(self.phase)


def size_factor(plan: EnginePlan) -> float:
    """Size of a plan's images relative to USUAL_PIXELS; at least 1."""
    if not isinstance(plan, Generate | Upscale):
        return 1.0
    pixels = plan.width_px * plan.height_px
    if isinstance(plan, Generate) and plan.second_pass is not None:
        pixels = max(pixels, plan.second_pass.width_px * plan.second_pass.height_px)
    return max(1.0, pixels / USUAL_PIXELS)


class Turn:
    """Queue of a job's facts, from the child to the caller, in order. `fail` ends it. Belongs to one event loop."""

    def __init__(self, run: Run, options: EngineOptions) -> None:
        self.run = run
        second = run.plan.second_pass if isinstance(run.plan, Generate) else None
        self.deadline = Deadline(options, size_factor=size_factor(run.plan), resets_after_decoding=second is not None)
        self.before: Turn | None = None
        """Turn whose last image the child still decoded when it got this one."""
        self.cancel_requested = False
        self.ended = False
        """The child reported its last fact of this job, or exited."""
        self.death: EngineDied | None = None
        self.answered = False
        """The caller was told that the job is cancelled; the child has not reported so yet."""
        self._facts: deque[Fact] = deque()
        self._changed = asyncio.Event()
        self.is_silent = False
        """The child was silent for longer than its deadline."""
        self._silence: Alarm | None = None
        self._grace: tuple[Alarm, ...] = ()

    def begin(self) -> None:
        """The child has the job: the deadline runs from here."""
        self.is_silent = False
        self._silence = Alarm(self._allowance_s, self._on_silence)

    @property
    def _allowance_s(self) -> float:
        """As the deadline's; while the image before is decoded at least as long as that may take."""
        own_s = self.deadline.allowance_s
        return own_s if self.before is None or self.before.ended else max(own_s, self.before.deadline.allowance_s)

    def on_former_end(self) -> None:
        """The image before is decoded: from here the deadline is this job's own."""
        self.before = None
        if self._silence is not None and not self.is_silent:
            self._silence.restart(self._allowance_s)

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
        elif self.is_silent:
            self.begin()
        elif self._silence is not None:
            self._silence.restart(self._allowance_s)

    def answer_cancelled(self) -> None:
        """End the job for its caller as cancelled; later facts of the child are ignored."""
        if not self.ended:
            self.answered = self.ended = True
            self._facts.append(Cancelled())
            self._changed.set()

    def fail(self, reason: DeathReason, *, is_shared: bool = False) -> None:
        """End the job because the child exited; a job that was being cancelled counts as cancelled."""
        if self.ended:
            return self._end()
        if self.cancel_requested:
            self._facts.append(Cancelled())
        else:
            self.death = EngineDied(reason, self.deadline.phase, is_shared=is_shared)
        self._end()

    def set_grace(self, *grace: Alarm) -> None:
        """Set the alarms that ring unless the child ends the job first."""
        self._grace = grace

    def _on_silence(self) -> None:
        self.is_silent = True
        self._changed.set()

    async def next(self) -> Fact:
        """The next fact. Raises: EngineDied; TimeoutError when the child was silent too long."""
        while not self._facts:
            if self.death is not None:
                raise self.death
            if self.is_silent:
                raise TimeoutError
            self._changed.clear()
            await self._changed.wait()
        return self._facts.popleft()

    async def end(self) -> None:
        """Wait for the last fact or the exit of the child, without a deadline."""
        while not self.ended:
            self._changed.clear()
            await self._changed.wait()

    def _end(self) -> None:
        self.ended = True
        self.before = None
        self._changed.set()
        for alarm in self._grace:
            alarm.cancel()
        if self._silence is not None:
            self._silence.cancel()
