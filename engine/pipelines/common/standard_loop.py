"""Pipelines with mflux's usual loop: `generate_image` with latents from the common `LatentCreator`.

The latent creator is patched for the time of one image, so that subseeds, masks and the denoise of img2img work as with
FLUX.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import mlx.core as mx
from mflux.models.common.latent_creator.latent_creator import Img2Img, LatentCreator
from mflux.models.common.vae.vae_util import VAEUtil
from PIL.Image import Image

from engine.pipelines.common.base import ImageTask
from engine.pipelines.common.denoising import DenoisingRun
from engine.pipelines.common.finite import to_image
from engine.pipelines.common.initial_latents import Sigmas, initial_latents, scheduler_sigmas
from engine.pipelines.common.latents import shrink_latents
from engine.pipelines.common.patching import patched
from engine.pipelines.common.pipeline import MfluxPipeline
from engine.prompt_tokens import Encoder
from engine.protocol import Generate


class StandardPipeline(MfluxPipeline):
    """Pipeline with mflux's usual loop. `scheduler` is mflux's name of the noise schedule, `arguments` are further
    arguments from a plan; `sigmas` is the schedule where the pipeline runs another one under that name.
    """

    def __init__(
        self,
        pipeline: Any,
        *,
        loras: str | None,
        scheduler: str,
        arguments: Callable[[Generate], Mapping[str, Any]],
        sigmas: Sigmas | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        super().__init__(pipeline, loras, encoder=encoder)
        self._scheduler = scheduler
        self._sigmas = sigmas or scheduler_sigmas(pipeline, scheduler)
        self._more = arguments
        self._unpack: Callable[[mx.array, int, int], mx.array] = lambda latents, height, width: latents
        """Function from the loop's latents to the VAE's, for a height and a width in pixels."""

    def _arguments(self, plan: Generate) -> Mapping[str, Any]:
        return {"scheduler": self._scheduler, **self._more(plan)}

    def _sigma_of(self, width: int, height: int) -> Callable[[int, int], float]:
        return lambda scheduler_steps, first: self._sigmas(scheduler_steps, width, height)[first]

    def _patch_loop(self, task: ImageTask, denoising: DenoisingRun) -> AbstractContextManager[None]:
        def prepare(seed: int, height: int, width: int, img2img: Img2Img) -> mx.array:
            """Replacement for `LatentCreator.create_for_txt2img_or_img2img`."""
            layout = img2img.latent_creator
            self._unpack = layout.unpack_latents
            return initial_latents(
                task,
                denoising,
                layout.create_noise(seed, height, width),
                layout=layout,
                pipeline=self._pipeline,
                sigma=lambda: img2img.sigmas[img2img.init_time_step],
            )

        return patched(LatentCreator, "create_for_txt2img_or_img2img", staticmethod(prepare))

    def _decode(self, clean: mx.array, height: int, width: int, *, small_px: int | None = None) -> Image:
        pipeline, latent = self._pipeline, self._unpack(clean, height, width)
        latent = latent if small_px is None else shrink_latents(latent, small_px, height // latent.shape[-2])
        decoded = VAEUtil.decode(vae=pipeline.vae, latent=latent, tiling_config=pipeline.tiling_config)
        return to_image(decoded)
