"""Masks of latents, and the further input channels of inpainting models.

Source: A1111 1.10.1 modules/processing.py, StableDiffusionProcessingImg2Img.init and
StableDiffusionProcessing.inpainting_image_conditioning, by what they compute.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from PIL import Image

Encode = Callable[[Image.Image | np.ndarray], mx.array]
"""Scaled latents (1, h, w, 4) of an image, or of pixels (H, W, 3) from -1 to 1."""


@dataclass(frozen=True, slots=True)
class LatentMask:
    """Part of an image that is repainted. `repaint` (1, h, w, 1) is 1 there and 0 elsewhere, `kept` are the latents
    (1, h, w, 4) that stay.
    """

    repaint: mx.array
    kept: mx.array

    def blend(self, latents: mx.array) -> mx.array:
        """The latents where the image is repainted, the kept ones elsewhere."""
        return latents * self.repaint + self.kept * (1 - self.repaint)


def latent_mask(mask: Image.Image, columns: int, rows: int) -> mx.array:
    """Mask (1, rows, columns, 1) of latents: resized as Pillow does by default, then rounded."""
    small = np.asarray(mask.convert("L").resize((columns, rows)), dtype=np.float32) / 255
    return mx.array(np.around(small)[None, :, :, None])


def masked_image_channels(
    image: Image.Image | None, mask: Image.Image | None, size: tuple[int, int], encode: Encode
) -> mx.array:
    """Further channels (1, h, w, 5) of an inpainting model for an image of `size` (width, height): the mask, and the
    latents of the image without its repainted part, which is grey. Without a mask or an image all of it is repainted.
    """
    width, height = size
    if image is None:
        pixels = np.zeros((height, width, 3), dtype=np.float32)
        hole = np.ones((height, width), dtype=np.float32)
    else:
        pixels = np.asarray(image.convert("RGB"), dtype=np.float32) / 127.5 - 1
        hole = np.ones((height, width), dtype=np.float32)
        if mask is not None:
            hole = np.around(np.asarray(mask.convert("L"), dtype=np.float32) / 255)
        pixels = pixels * (1 - hole[:, :, None])
    latents = encode(pixels)
    rows, columns = latents.shape[1:3]
    nearest = hole[np.arange(rows) * height // rows][:, np.arange(columns) * width // columns]
    return mx.concatenate([mx.array(nearest[None, :, :, None]), latents.astype(mx.float32)], axis=-1)
