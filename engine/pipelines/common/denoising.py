"""One picture under way: what mflux's callbacks tell of it, and how it is stopped. Knows no family."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from PIL.Image import Image

from engine.backends.base import ImageSkipped, Watcher
from engine.backends.canvas import Frame
from engine.pipelines.common.finite import check_finite


class StepsSkipped(Exception):
    """The rest of the steps is left out; `clean` are the latents to which they would have led straight on."""

    def __init__(self, clean_latents: mx.array) -> None:
        super().__init__("the picture was skipped")
        self.clean_latents = clean_latents


@dataclass(slots=True)
class DenoisingRun:
    """One picture on its way. `before` holds the latents one step ago, `clock` when the step began."""

    watcher: Watcher
    frame: Frame
    preview_of: Callable[[mx.array, Any, float], Image]
    """A small picture of clean latents, as the loop has them, mflux's config, and the seconds of the step before."""
    steps: int
    """Of the schedule, of which an img2img runs the end."""
    strength: float | None = None
    """mflux's `image_strength`, which says where it begins."""
    unpack: Callable[[mx.array, int, int], mx.array] = lambda latents, height, width: latents
    """The loop's latents as the VAE's, for a height and a width in pixels."""
    initial_latents: Callable[[mx.array, Any], mx.array] | None = None
    """What the first step begins with, from the noise that the loop made and mflux's config; None leaves the noise."""
    on_prompt_encoded: Callable[[], None] = lambda: None
    """Told once the prompt is encoded, before the first step."""
    sigmas: Sequence[float] | None = None
    """Share of noise before each step and after the last, where the loop does not go by mflux's own scheduler."""
    restore_unmasked: Callable[[mx.array, float], mx.array] | None = None
    """Latents, put back where a mask keeps the input picture, for the noise that the next step begins with."""
    denoised: mx.array | None = None
    """Latents without noise after this step, where the family learns of them otherwise than by the callback."""
    previous_latents: mx.array | None = None
    step_started_s: float = 0.0
    sigma: float = 1.0
    """Share of noise that the next step begins with."""

    def schedule(self, config: Any) -> Any:
        """Share of noise by step."""
        return config.scheduler.sigmas if self.sigmas is None else self.sigmas

    def clean_latents(self, latents: mx.array, denoised: mx.array | None, config: Any, t: int) -> mx.array:
        """Latents without noise after step `t`: as the loop says, else where the step points to."""
        denoised = self.denoised if denoised is None else denoised
        if denoised is not None and denoised is not latents:
            return denoised
        assert self.previous_latents is not None
        return predict_x0(self.previous_latents, latents, self.schedule(config), t)


class StepCallback:
    """mflux's callbacks: evaluates before it looks at the clock, and lets the watcher stop the picture."""

    def __init__(self) -> None:
        self.denoising: DenoisingRun | None = None

    def call_before_loop(self, *, latents: mx.array, config: Any, **_: Any) -> None:
        if self.denoising is not None:
            self.denoising.on_prompt_encoded()
            if self.denoising.initial_latents is not None:
                latents[...] = self.denoising.initial_latents(latents, config)
            mx.eval(latents)
            self.denoising.sigma = float(self.denoising.schedule(config)[config.init_time_step])
            self.denoising.previous_latents = latents if self.denoising.initial_latents is None else mx.array(latents)
            self.denoising.step_started_s = time.monotonic()

    def call_in_loop(
        self, *, t: int, latents: mx.array, config: Any, denoised: mx.array | None = None, **_: Any
    ) -> None:
        denoising = self.denoising
        if denoising is None or denoising.previous_latents is None:
            return
        # mflux calls this before it evaluates: without this line progress runs a step ahead.
        mx.eval(latents)
        seconds = time.monotonic() - denoising.step_started_s
        first = int(config.init_time_step)

        def preview() -> bytes:
            return denoising.frame.preview(
                denoising.preview_of(denoising.clean_latents(latents, denoised, config, t), config, seconds)
            )

        try:
            denoising.watcher.step(t - first + 1, int(config.num_inference_steps) - first, seconds, preview)
        except ImageSkipped:
            raise StepsSkipped(denoising.clean_latents(latents, denoised, config, t)) from None
        denoising.sigma = float(denoising.schedule(config)[t + 1])
        if denoising.restore_unmasked is not None:
            latents[...] = denoising.restore_unmasked(latents, denoising.sigma)
            mx.eval(latents)
        denoising.previous_latents = mx.array(latents) if denoising.restore_unmasked is not None else latents
        denoising.step_started_s = time.monotonic()

    def call_after_loop(self, *, latents: mx.array, **_: Any) -> None:
        if self.denoising is not None:
            check_finite(latents, "latents")
            self.denoising.watcher.decoding()


def predict_x0(before: mx.array, latents: mx.array, sigmas: Any, t: int) -> mx.array:
    """Latents without noise, in the loop's own layout: where step `t` points to."""
    if float(sigmas[t + 1]) == float(sigmas[t]):  # Ming's last step goes nowhere
        return latents
    velocity = (latents - before) / (sigmas[t + 1] - sigmas[t])
    return (latents - sigmas[t + 1] * velocity).astype(latents.dtype)
