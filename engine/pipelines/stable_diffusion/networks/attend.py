"""Attention whose memory is bounded: where MLX holds all products of queries and keys, some queries at a time."""

from __future__ import annotations

import mlx.core as mx

MOST_PRODUCTS = 2**27
"""Products of queries and keys that are held at once: 0.25 GB in float16, 0.5 GB in float32."""
FUSED_CHANNELS = (64, 80, 128)
"""Channels of a head for which a GPU holds no products.

Source: MLX 0.32 mlx/backend/metal/scaled_dot_product_attention.cpp.
"""


def attend(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
    """Attention (B, heads, n, channels of a head) of queries of this shape to keys and values (B, heads, m, channels).

    Where the queries are taken apart, each part is evaluated before the next one.
    """
    scale = q.shape[-1] ** -0.5
    rows = rows_at_once(q.shape, k.shape[2])
    if rows >= q.shape[2]:
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale)
    parts = []
    for first in range(0, q.shape[2], rows):
        parts.append(mx.fast.scaled_dot_product_attention(q[:, :, first : first + rows], k, v, scale=scale))
        mx.eval(parts[-1])
    return mx.concatenate(parts, axis=2)


def rows_at_once(queries: tuple[int, ...], keys: int) -> int:
    """Queries of each head that attend at once, for queries of the shape (B, heads, n, channels of a head)."""
    batch, heads, count, channels = queries
    if channels in FUSED_CHANNELS and mx.default_device().type == mx.DeviceType.gpu:
        return count
    parts = -(-batch * heads * count * keys // MOST_PRODUCTS)
    return -(-count // parts)
