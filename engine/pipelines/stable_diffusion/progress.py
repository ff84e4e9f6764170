"""Progress of one image through its sampling runs: reports, previews, and the end of a skipped image."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import mlx.core as mx

from engine.drawing.base import ImageSkipped, Watcher


class Skipped(Exception):
    """The remaining steps are skipped. `latents` are the denoised ones of the last step."""

    def __init__(self, latents: mx.array) -> None:
        super().__init__("the remaining steps are skipped")
        self.latents = latents


@dataclass(slots=True)
class SamplingProgress:
    """Progress of the sampling runs of one image. `steps` is the number of steps of all of them; `preview_of` makes a
    JPEG of denoised latents, from them and the seconds of the step.
    """

    watcher: Watcher
    steps: int
    preview_of: Callable[[mx.array, float], bytes]
    done: int = 0
    _began_s: float = field(default_factory=time.monotonic)

    def begin(self) -> None:
        """A sampling run begins now."""
        self._began_s = time.monotonic()

    def step(self, denoised: mx.array) -> None:
        """One step is done. Raises: JobCancelled, Skipped."""
        mx.eval(denoised)
        seconds = time.monotonic() - self._began_s
        self.done += 1
        self.steps = max(self.steps, self.done)  # the steps of DPM adaptive are not known in advance
        try:
            self.watcher.step(self.done, self.steps, seconds, lambda: self.preview_of(denoised, seconds))
        except ImageSkipped:
            raise Skipped(denoised) from None
        self._began_s = time.monotonic()
