"""Families whose loop is mflux's usual one: `generate_image` with latents from its common `LatentCreator`.

The pipeline stays as mflux has it; for the time of one picture its first latents come from here, so that seeds vary,
masks keep and img2img begins where a denoise asks, as with FLUX.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

import mlx.core as mx
import numpy as np
from mflux.models.common.config.config import Config
from mflux.models.common.latent_creator.latent_creator import Img2Img, LatentCreator
from mflux.models.common.lora.mapping.lora_mapping import LoRATarget
from mflux.models.common.vae.vae_util import VAEUtil
from mflux.utils.image_util import ImageUtil
from PIL.Image import Image

from engine.families.base import Sketch
from engine.families.latents import shrunk, stretched
from engine.families.noise import slerp
from engine.families.painter import PipelinePainter
from engine.families.sitting import Sitting
from engine.protocol import Generate


class StandardPainter(PipelinePainter):
    """`scheduler` is mflux's name of the noise schedule to draw by, `arguments` what else of a plan is passed on."""

    def __init__(
        self,
        pipeline: Any,
        *,
        loras: list[LoRATarget],
        scheduler: str,
        arguments: Callable[[Generate], Mapping[str, Any]],
    ) -> None:
        super().__init__(pipeline, loras)
        self._scheduler = scheduler
        self._more = arguments

    def _arguments(self, plan: Generate) -> Mapping[str, Any]:
        return {"scheduler": self._scheduler, **self._more(plan)}

    def _sigma_of(self, width: int, height: int) -> Callable[[int, int], float]:
        def sigma_of(scheduler_steps: int, first: int) -> float:
            config = Config(
                model_config=self._pipeline.model_config,
                num_inference_steps=scheduler_steps,
                width=width,
                height=height,
                scheduler=self._scheduler,
            )
            return float(config.scheduler.sigmas[first])

        return sigma_of

    def _begun(self, sketch: Sketch, sitting: Sitting) -> AbstractContextManager[None]:
        return _beginning_with(_Canvas(sketch, sitting).prepare)

    def _decoded(self, clean: mx.array, height: int, width: int, *, small: bool = False) -> Image:
        sitting, pipeline = self._observer.sitting, self._pipeline
        assert sitting is not None
        latent = sitting.unpack(clean, height, width)
        decoded = VAEUtil.decode(
            vae=pipeline.vae, latent=shrunk(latent) if small else latent, tiling_config=pipeline.tiling_config
        )
        return cast(Image, ImageUtil.to_pil(decoded))


@contextmanager
def _beginning_with(prepare: Callable[..., mx.array]) -> Iterator[None]:
    """Every loop begins with the latents of `prepare`: the engine has one thread and draws one picture at a time."""
    original = LatentCreator.create_for_txt2img_or_img2img
    LatentCreator.create_for_txt2img_or_img2img = staticmethod(prepare)
    try:
        yield
    finally:
        LatentCreator.create_for_txt2img_or_img2img = staticmethod(original)


class _Canvas:
    """What the steps of one picture begin from, and what of it a mask keeps."""

    def __init__(self, sketch: Sketch, sitting: Sitting) -> None:
        self._sketch = sketch
        self._sitting = sitting

    def prepare(self, seed: int, height: int, width: int, img2img: Img2Img) -> mx.array:
        """In the place of `LatentCreator.create_for_txt2img_or_img2img`."""
        plan, frame, layout = self._sketch.plan, self._sketch.frame, img2img.latent_creator
        self._sitting.unpack = lambda latents, height, width: layout.unpack_latents(latents, height, width)
        noise = layout.create_noise(seed, height, width)
        if plan.subseed_strength > 0:
            other = layout.create_noise(plan.subseeds[self._sketch.image], height, width)
            noise = slerp(noise, other, plan.subseed_strength)
        if frame.init is None:
            return noise
        encoded = LatentCreator.encode_image(
            vae=img2img.vae,
            image_path=cast(Any, frame.init),  # takes a picture as well as a path
            height=frame.init.height,
            width=frame.init.width,
            tiling_config=img2img.tiling_config,
        )
        encoded = stretched(encoded, height // 8, width // 8)
        clean = start = layout.pack_latents(encoded, height, width)
        if frame.mask is not None:
            repaint = layout.pack_latents(_touched(frame.mask, encoded), height, width) > 0
            if plan.mask_content != "original":
                another = layout.create_noise((seed + 1) % 2**32, height, width)
                start = mx.where(repaint, another if plan.mask_content == "noise" else mx.zeros_like(start), start)

            def keep(latents: mx.array, sigma: float) -> mx.array:
                kept = LatentCreator.add_noise_by_interpolation(clean=clean, noise=noise, sigma=sigma)
                return mx.where(repaint, latents, kept).astype(latents.dtype)

            self._sitting.keep = keep
        sigma = float(img2img.sigmas[img2img.init_time_step])
        return LatentCreator.add_noise_by_interpolation(clean=start, noise=noise, sigma=sigma).astype(noise.dtype)


def _touched(mask: Image, like: mx.array) -> mx.array:
    """1 where a mask of white on black repaints a latent, else 0, in the shape of VAE latents (..., rows, columns):
    all that it touches, as one pixel kept in them would pull the rest back.
    """
    rows, columns = like.shape[-2:]
    pixels = mx.array(np.asarray(mask)).reshape(rows, mask.height // rows, columns, mask.width // columns)
    return mx.broadcast_to((pixels.max(axis=(1, 3)) > 127).astype(like.dtype), like.shape)
