"""The latent space, fixed before anything is trained: mean colours of 8x8 pixel cells.

A learned space would spread an image over its channels, and a small U-Net would have to predict all of them equally
well. Here three channels hold the mean colour of a cell and the fourth tells where in the cell it changes.
"""

from __future__ import annotations

import numpy as np

from .geometry import CELL_PX, LATENT_CHANNELS

Floats = np.ndarray

LUMA = np.ones(3) / 3

MIX = np.array(
    [
        [1 / 3, 1 / 3, 1 / 3, 0.0],
        [0.5, 0.0, -0.5, 0.0],
        [0.25, -0.5, 0.25, 0.0],
        [0.0, 0.0, 0.0, 0.5],
    ]
)
"""Rows: brightness, red against blue, both against green, and the change of brightness from top left to bottom right;
of the columns mean red, green, blue and that change, in pixel values from -1 to 1.
"""

MEANS = np.array([0.23, 0.03, 0.03, 0.0])
SCALES = np.array([1.9, 2.2, 4.0, 6.0])
"""Means of MIX's rows over rendered images, and factors that make their deviations about 1 (the last one: 0.4)."""

MATRIX = SCALES[:, None] * MIX
OFFSET = -SCALES * MEANS
"""Latents of a cell: MATRIX @ (red, green, blue, change) + OFFSET."""

COLOURS_OF_LATENTS = np.linalg.inv(MATRIX)


def measures(images: Floats) -> Floats:
    """Mean red, green and blue of each cell, and the brightness of its bottom right quarter less that of its top left.

    `images` are N x H x W x 3 from -1 to 1; the result is N x H/8 x W/8 x 4.
    """
    n, height, width, _ = images.shape
    half = CELL_PX // 2
    quarters = images.reshape(n, height // CELL_PX, 2, half, width // CELL_PX, 2, half, 3).mean(axis=(3, 6))
    means = quarters.mean(axis=(2, 4))
    change = (quarters[:, :, 1, :, 1] - quarters[:, :, 0, :, 0]) @ LUMA
    return np.concatenate([means, change[..., None]], axis=-1)


def latents_of(images: Floats) -> Floats:
    """Latents N x 4 x H/8 x W/8, as the U-Net sees them, of uint8 images N x H x W x 3."""
    values = measures(images.astype(np.float32) / 127.5 - 1.0) @ MATRIX.T + OFFSET
    return values.transpose(0, 3, 1, 2).astype(np.float32)


def coarse_images(latents: Floats) -> Floats:
    """uint8 images N x 8h x 8w x 3 of latents N x 4 x h x w, each cell in its mean colour."""
    colours = (latents.transpose(0, 2, 3, 1) - OFFSET) @ COLOURS_OF_LATENTS.T
    pixels = ((colours[..., :3].clip(-1, 1) + 1) * 127.5).round().astype(np.uint8)
    return pixels.repeat(CELL_PX, axis=1).repeat(CELL_PX, axis=2)


assert MATRIX.shape == (LATENT_CHANNELS, LATENT_CHANNELS)
