"""Families whose loop is mflux's usual one: `generate_image` with latents from its common `LatentCreator`.

The pipeline stays as mflux has it; for the time of one picture its first latents come from here, so that seeds vary,
masks keep and img2img begins where a denoise asks, as with FLUX.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import mlx.core as mx
import numpy as np
from mflux.models.common.config.config import Config
from mflux.models.common.latent_creator.latent_creator import Img2Img, LatentCreator
from mflux.models.common.lora.mapping.lora_mapping import LoRATarget
from mflux.models.common.vae.vae_util import VAEUtil
from mflux.utils.image_util import ImageUtil
from PIL.Image import Image

from engine.backends.base import Watcher
from engine.families.base import Sketch
from engine.families.latents import shrunk, stretched
from engine.families.loras import Wardrobe
from engine.families.noise import img2img_schedule, slerp
from engine.families.sitting import Observer, Sitting, Unfinished
from engine.protocol import Generate


class StandardPainter:
    """A pipeline with the one callback it ever gets. `scheduler` is mflux's name of the noise schedule it draws by,
    `arguments` what of a plan its `generate_image` takes besides the usual.
    """

    def __init__(
        self,
        pipeline: Any,
        *,
        loras: list[LoRATarget],
        scheduler: str,
        arguments: Callable[[Generate], Mapping[str, Any]],
    ) -> None:
        mx.eval(pipeline.parameters())
        self._pipeline = pipeline
        self._scheduler = scheduler
        self._arguments = arguments
        self._wardrobe = Wardrobe(pipeline.transformer, loras)
        self._observer = Observer()
        pipeline.callbacks.register(self._observer)

    def paint(self, sketch: Sketch, watcher: Watcher) -> Image:
        plan, frame = sketch.plan, sketch.frame
        self._wardrobe.wear(sketch.loras)
        width, height = frame.drawn
        steps, strength = plan.steps, None
        if frame.init is not None and plan.denoise < 1:
            steps, strength = img2img_schedule(plan.steps, plan.denoise, self._sigma_of(width, height))
        sitting = self._observer.sitting = Sitting(watcher, frame, self._look)
        canvas = _Canvas(sketch, sitting)
        try:
            with _beginning_with(canvas.prepare):
                made = self._pipeline.generate_image(
                    seed=sketch.seed,
                    prompt=plan.prompt,
                    num_inference_steps=steps,
                    width=width,
                    height=height,
                    scheduler=self._scheduler,
                    # Only its presence counts: it makes the schedule begin late. The canvas encodes the picture.
                    image_path=frame.init if strength is not None else None,
                    image_strength=strength,
                    **self._arguments(plan),
                )
            return cast(Image, made.image)
        except Unfinished as unfinished:
            watcher.decoding()
            return self._decoded(sitting.unpack(unfinished.clean, height, width))
        finally:
            self._observer.sitting = None

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

    def _look(self, clean: mx.array, config: Any) -> Image:
        sitting = self._observer.sitting
        assert sitting is not None
        return self._decoded(shrunk(sitting.unpack(clean, config.height, config.width)))

    def _decoded(self, latent: mx.array) -> Image:
        pipeline = self._pipeline
        decoded = VAEUtil.decode(vae=pipeline.vae, latent=latent, tiling_config=pipeline.tiling_config)
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
