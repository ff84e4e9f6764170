"""One picture under way: what mflux's callbacks tell of it, and how it is stopped. Knows no family."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from PIL.Image import Image

from engine.backends.base import PictureSkipped, Watcher
from engine.backends.canvas import Frame


class Unfinished(Exception):
    """The rest of the steps is left out; `clean` are the latents to which they would have led straight on."""

    def __init__(self, clean: mx.array) -> None:
        super().__init__("the picture was skipped")
        self.clean = clean


@dataclass(slots=True)
class Sitting:
    """One picture on its way. `before` holds the latents one step ago, `clock` when the step began."""

    watcher: Watcher
    frame: Frame
    look: Callable[[mx.array, Any], Image]
    """A small picture of clean latents, as the loop has them, and mflux's config."""
    unpack: Callable[[mx.array, int, int], mx.array] = lambda latents, height, width: latents
    """The loop's latents as the VAE's, for a height and a width in pixels."""
    keep: Callable[[mx.array, float], mx.array] | None = None
    """Latents, put back where a mask keeps the input picture, for the noise that the next step begins with."""
    before: mx.array | None = None
    clock: float = 0.0
    sigma: float = 1.0
    """Share of noise that the next step begins with."""


class Observer:
    """mflux's callbacks: evaluates before it looks at the clock, and lets the watcher stop the picture."""

    def __init__(self) -> None:
        self.sitting: Sitting | None = None

    def call_before_loop(self, *, latents: mx.array, config: Any, **_: Any) -> None:
        if self.sitting is not None:
            mx.eval(latents)
            self.sitting.sigma = float(config.scheduler.sigmas[config.init_time_step])
            self.sitting.before = latents
            self.sitting.clock = time.monotonic()

    def call_in_loop(self, *, t: int, latents: mx.array, config: Any, **_: Any) -> None:
        sitting = self.sitting
        if sitting is None or sitting.before is None:
            return
        # mflux calls this before it evaluates: without this line progress runs a step ahead.
        mx.eval(latents)
        seconds = time.monotonic() - sitting.clock
        before, first = sitting.before, int(config.init_time_step)

        def preview() -> bytes:
            return sitting.frame.preview(sitting.look(straight_on(before, latents, config, t), config))

        try:
            sitting.watcher.step(t - first + 1, int(config.num_inference_steps) - first, seconds, preview)
        except PictureSkipped:
            raise Unfinished(straight_on(before, latents, config, t)) from None
        sitting.sigma = float(config.scheduler.sigmas[t + 1])
        if sitting.keep is not None:
            latents[...] = sitting.keep(latents, sitting.sigma)
            mx.eval(latents)
        sitting.before = mx.array(latents) if sitting.keep is not None else latents
        sitting.clock = time.monotonic()

    def call_after_loop(self, **_: Any) -> None:
        if self.sitting is not None:
            self.sitting.watcher.decoding()


def straight_on(before: mx.array, latents: mx.array, config: Any, t: int) -> mx.array:
    """Latents without noise, in the loop's own layout: where step `t` points to."""
    sigmas = config.scheduler.sigmas
    velocity = (latents - before) / (sigmas[t + 1] - sigmas[t])
    return (latents - sigmas[t + 1] * velocity).astype(latents.dtype)
