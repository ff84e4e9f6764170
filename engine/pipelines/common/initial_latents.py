"""Initial latents of an image, and the part of them that a mask keeps. It knows no family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import mlx.core as mx
import numpy as np
from mflux.models.common.config.config import Config
from mflux.models.common.latent_creator.latent_creator import LatentCreator
from PIL.Image import Image

from engine.pipelines.common.base import ImageTask, key_of
from engine.pipelines.common.denoising import DenoisingRun
from engine.pipelines.common.latents import resize_latents
from engine.pipelines.common.noise import slerp

Sigmas = Callable[[int, int, int], Sequence[float]]
"""Noise schedule: share of noise before each step and after the last, by steps, width and height in pixels."""


class Layout(Protocol):
    """Layout of a loop's latents; mflux's latent creators have this interface. Sizes in pixels."""

    def create_noise(self, seed: int, height: int, width: int) -> mx.array:
        """Initial noise of a seed."""

    def pack_latents(self, latents: mx.array, height: int, width: int) -> mx.array:
        """Latents of the VAE in the loop's layout."""

    def unpack_latents(self, latents: mx.array, height: int, width: int) -> mx.array:
        """Latents of the loop in the VAE's layout."""


def initial_latents(
    task: ImageTask,
    denoising: DenoisingRun,
    noise: mx.array,
    *,
    layout: Layout,
    pipeline: Any,
    sigma: Callable[[], float | mx.array],
) -> mx.array:
    """Latents for the first step, from the loop's noise. `sigma` is the share of noise that they begin with; as a
    float32 array it widens bfloat16 latents, as in mflux. `denoising.restore_unmasked` is set here.
    """
    plan, frame = task.plan, task.frame
    width, height = frame.drawn
    if plan.subseed_strength > 0:
        other = layout.create_noise(task.subseed, height, width)
        noise = slerp(noise, other, plan.subseed_strength).astype(noise.dtype)
    if frame.init is None:
        return noise
    encoded = LatentCreator.encode_image(
        vae=pipeline.vae,
        image_path=cast(Any, frame.init),  # takes an image as well as a path
        height=frame.init.height,
        width=frame.init.width,
        tiling_config=pipeline.tiling_config,
    )
    cell_px = frame.init.height // encoded.shape[-2]
    encoded = resize_latents(encoded, height // cell_px, width // cell_px)
    clean = start = layout.pack_latents(encoded, height, width)
    if frame.mask is not None:
        repainted = mask_to_latents(frame.mask, encoded)
        # Packing may shift and scale as well: what differs from the packed zeros is to be repainted.
        nothing = layout.pack_latents(mx.zeros_like(repainted), height, width)
        repaint = layout.pack_latents(repainted, height, width) != nothing
        if plan.mask_content != "original":
            another = layout.create_noise(key_of(task.seed + 1), height, width)
            start = mx.where(repaint, another if plan.mask_content == "noise" else mx.zeros_like(start), start)

        def restore(latents: mx.array, sigma: float) -> mx.array:
            unmasked = LatentCreator.add_noise_by_interpolation(clean=clean, noise=noise, sigma=sigma)
            return mx.where(repaint, latents, unmasked).astype(latents.dtype)

        denoising.restore_unmasked = restore
    return LatentCreator.add_noise_by_interpolation(clean=start, noise=noise, sigma=cast(float, sigma()))


def mask_to_latents(mask: Image, like: mx.array) -> mx.array:
    """Mask as VAE latents (..., rows, columns) in the shape of `like`: 1 where a white pixel of the mask touches the
    latent, else 0. A kept pixel inside a repainted latent would pull the rest of it back.
    """
    rows, columns = like.shape[-2:]
    pixels = mx.array(np.asarray(mask)).reshape(rows, mask.height // rows, columns, mask.width // columns)
    return mx.broadcast_to((pixels.max(axis=(1, 3)) > 127).astype(like.dtype), like.shape)


def scheduler_sigmas(pipeline: Any, scheduler: str) -> Sigmas:
    """Noise schedule of the mflux scheduler with this name."""

    def sigmas(steps: int, width: int, height: int) -> Sequence[float]:
        config = Config(
            model_config=pipeline.model_config,
            num_inference_steps=steps,
            width=width,
            height=height,
            scheduler=scheduler,
        )
        return cast(Sequence[float], config.scheduler.sigmas.tolist())

    return sigmas
