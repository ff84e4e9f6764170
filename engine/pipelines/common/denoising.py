"""Denoising of one image: what mflux's callbacks report, and how it is stopped. It knows no family."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from PIL.Image import Image

from engine.drawing.base import ImageSkipped, Watcher
from engine.drawing.canvas import Frame
from engine.pipelines.common.finite import check_finite


class StepsDone(Exception):
    """mflux's function ends before it decodes: no steps are left, or the rest is skipped. `latents` are denoised,
    evaluated, and in the loop's layout.
    """

    def __init__(self, latents: mx.array) -> None:
        super().__init__("the steps are done")
        self.latents = latents


@dataclass(slots=True)
class DenoisingRun:
    """One image being denoised."""

    watcher: Watcher
    frame: Frame
    preview_of: Callable[[mx.array, Any, float], Image]
    """Function that decodes a small preview image, from clean latents in the loop's layout, mflux's config, and the
    seconds of the step before.
    """
    steps: int
    """Steps of the schedule, of which img2img runs the last ones."""
    strength: float | None = None
    """mflux's `image_strength`, which determines the first step of img2img."""
    initial_latents: Callable[[mx.array, Any], mx.array] | None = None
    """Function that makes the first step's latents, from the loop's noise and mflux's config; None keeps the noise."""
    on_prompt_encoded: Callable[[], None] = lambda: None
    """Called once the prompt is encoded, before the first step."""
    sigmas: Sequence[float] | None = None
    """Share of noise before each step and after the last, where the loop does not use mflux's own scheduler."""
    restore_unmasked: Callable[[mx.array, float], mx.array] | None = None
    """Function that puts the input image back where a mask keeps it, at the share of noise of the next step."""
    denoised: mx.array | None = None
    """Denoised latents after this step, for families that do not get them from the callback."""
    previous_latents: mx.array | None = None
    step_started_s: float = 0.0
    sigma: float = 1.0
    """Share of noise at the start of the next step."""

    def schedule(self, config: Any) -> Any:
        """Noise schedule: share of noise by timestep."""
        return config.scheduler.sigmas if self.sigmas is None else self.sigmas

    def clean_latents(self, latents: mx.array, denoised: mx.array | None, config: Any, t: int) -> mx.array:
        """Denoised latents after timestep `t`: those that the loop passes on, else the prediction."""
        denoised = self.denoised if denoised is None else denoised
        if denoised is not None and denoised is not latents:
            return denoised
        assert self.previous_latents is not None
        return predict_x0(self.previous_latents, latents, self.schedule(config), t)


class StepCallback:
    """mflux's callbacks. Evaluates the latents before measuring time, lets the watcher stop the image, and leaves mflux
    once the last latents are there.
    """

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
            clean = denoising.clean_latents(latents, denoised, config, t)
            check_finite(clean, "latents")
            denoising.watcher.start_decoding()
            raise StepsDone(clean) from None
        denoising.sigma = float(denoising.schedule(config)[t + 1])
        if denoising.restore_unmasked is not None:
            latents[...] = denoising.restore_unmasked(latents, denoising.sigma)
            mx.eval(latents)
        denoising.previous_latents = mx.array(latents) if denoising.restore_unmasked is not None else latents
        denoising.step_started_s = time.monotonic()

    def call_after_loop(self, *, latents: mx.array, **_: Any) -> None:
        if self.denoising is not None:
            mx.eval(latents)
            check_finite(latents, "latents")
            self.denoising.watcher.start_decoding()
            raise StepsDone(latents)


def predict_x0(before: mx.array, latents: mx.array, sigmas: Any, t: int) -> mx.array:
    """Denoised latents, in the loop's layout: the prediction of timestep `t`."""
    if float(sigmas[t + 1]) == float(sigmas[t]):  # Ming's last step changes nothing
        return latents
    velocity = (latents - before) / (sigmas[t + 1] - sigmas[t])
    return (latents - sigmas[t + 1] * velocity).astype(latents.dtype)
