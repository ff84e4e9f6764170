"""Pipelines whose loop makes its noise itself and accepts no input image.

The first callback gets that noise and replaces it for img2img, masks and subseeds. img2img changes mflux's own first
timestep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import mlx.core as mx
from mflux.models.common.config.config import Config
from mflux.models.common.vae.vae_util import VAEUtil
from PIL.Image import Image

from engine.pipelines.common.base import ImageTask
from engine.pipelines.common.denoising import DenoisingRun
from engine.pipelines.common.finite import to_image
from engine.pipelines.common.initial_latents import Layout, Sigmas, initial_latents
from engine.pipelines.common.latents import shrink_latents
from engine.pipelines.common.pipeline import MfluxPipeline
from engine.prompt_tokens import Encoder
from engine.protocol import Generate


class OwnLoopPipeline(MfluxPipeline):
    """Pipeline with a loop of its own. `arguments` are further arguments from a plan, `image_arguments` those from a
    task; with `references` the frame's reference images are passed under that name.
    """

    def __init__(
        self,
        pipeline: Any,
        *,
        layout: Layout,
        sigmas: Sigmas,
        arguments: Callable[[Generate], Mapping[str, Any]],
        loras: str | None = None,
        transformer: str = "transformer",
        references: bool = False,
        image_arguments: Callable[[ImageTask], Mapping[str, Any]] | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        super().__init__(pipeline, loras, transformer, encoder)
        self._layout = layout
        self._sigmas = sigmas
        self._more = arguments
        self._references = references
        self._image_arguments_of = image_arguments

    def _arguments(self, plan: Generate) -> Mapping[str, Any]:
        return self._more(plan)

    def _image_arguments(self, task: ImageTask, strength: float | None) -> Mapping[str, Any]:
        if self._image_arguments_of is not None:
            return self._image_arguments_of(task)
        return {"references": task.frame.references} if self._references else {}

    def _sigma_of(self, width: int, height: int) -> Callable[[int, int], float]:
        return lambda scheduler_steps, first: float(self._sigmas(scheduler_steps, width, height)[first])

    @contextmanager
    def _patch_loop(self, task: ImageTask, denoising: DenoisingRun) -> Iterator[None]:
        width, height = task.frame.drawn
        sigmas = denoising.sigmas = self._sigmas(denoising.steps, width, height)
        first = 0 if denoising.strength is None else max(1, int(denoising.steps * denoising.strength))

        def begin(noise: mx.array, _: Any) -> mx.array:
            if first:  # only now: a loop that begins late earlier may look for an input image
                late.enter_context(_begin_at(first))
            parts = {"layout": self._layout, "pipeline": self._pipeline}
            return initial_latents(task, denoising, noise, **parts, sigma=lambda: float(sigmas[first]))

        denoising.initial_latents = begin
        with ExitStack() as late:
            yield

    def _decode(self, clean: mx.array, height: int, width: int, *, small_px: int | None = None) -> Image:
        pipeline, latent = self._pipeline, self._layout.unpack_latents(clean, height, width)
        latent = latent if small_px is None else shrink_latents(latent, small_px, height // latent.shape[-2])
        decoded = VAEUtil.decode(vae=pipeline.vae, latent=latent, tiling_config=pipeline.tiling_config)
        return to_image(decoded)


@contextmanager
def _begin_at(first: int) -> Iterator[None]:
    """During the context every loop begins at this timestep: the engine has one thread, for one image at a time."""
    original = Config.init_time_step
    Config.init_time_step = property(lambda _: first)
    try:
        yield
    finally:
        Config.init_time_step = original
