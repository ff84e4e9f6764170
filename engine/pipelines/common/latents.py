"""Resizing of VAE latents, (1, channels, [1,] rows, columns). It knows no family."""

from __future__ import annotations

from math import ceil

import mlx.core as mx
import numpy as np


def shrink_latents(latent: mx.array, most_px: int, cell_px: int = 8) -> mx.array:
    """Latents averaged until they decode to at most `most_px`; each of them is `cell_px` x `cell_px` pixels."""
    height, width = latent.shape[-2:]
    pool = ceil(max(height, width) * cell_px / most_px)
    if pool <= 1:
        return latent
    rows, columns = ceil(height / pool), ceil(width / pool)
    plain = [(0, 0)] * (latent.ndim - 2)
    whole = mx.pad(latent, [*plain, (0, rows * pool - height), (0, columns * pool - width)], mode="edge")
    return whole.reshape(*latent.shape[:-2], rows, pool, columns, pool).mean(axis=(-3, -1))


def resize_latents(latent: mx.array, rows: int, columns: int) -> mx.array:
    """Latents resized by linear interpolation."""
    if latent.shape[-2:] == (rows, columns):
        return latent
    down, across = _linear(latent.shape[-2], rows), _linear(latent.shape[-1], columns)
    return (down @ latent.astype(mx.float32) @ across.T).astype(latent.dtype)


def _linear(before: int, after: int) -> mx.array:
    """Matrix, after x before, that interpolates linearly between the centres of cells."""
    positions = np.clip((np.arange(after) + 0.5) * before / after - 0.5, 0, before - 1)
    low = np.floor(positions).astype(int)
    high = np.minimum(low + 1, before - 1)
    matrix = np.zeros((after, before), dtype=np.float32)
    matrix[np.arange(after), low] += 1 - (positions - low)
    matrix[np.arange(after), high] += positions - low
    return mx.array(matrix)
