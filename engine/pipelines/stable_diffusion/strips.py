"""Decoding with the VAE of Stable Diffusion in strips of rows, each layer evaluated before the next begins.

The statistics of a GroupNorm and the attention use the whole image, so no seam shows: pixels equal those of the whole
decode but for rounding.
"""

from __future__ import annotations

import mlx.core as mx
from mlx import nn

from engine.pipelines.common.strips import QUERIES, STRIP_ROWS, Rows, convolve, double
from engine.pipelines.stable_diffusion.networks.resnet import Resnet
from engine.pipelines.stable_diffusion.networks.vae import Attention, Vae


def decode_in_strips(vae: Vae, latents: mx.array) -> mx.array:
    """Image (1, H, W, 3) of latents (1, h, w, 4), as `vae.decode` computes it, with less memory at the peak."""
    decoder = vae.decoder
    x = decoder.conv_in(vae.post_quant_conv(latents.astype(vae.dtype)))
    first, second = decoder.mid_block.resnets
    x = _resnet(second, _attend(decoder.mid_block.attentions[0], _resnet(first, x)))
    for block in decoder.up_blocks:
        for resnet in block.resnets:
            x = _resnet(resnet, x)
        if "upsamplers" in block:
            conv = block.upsamplers[0].conv
            x = convolve(double(x), 2 * x.shape[1], conv.weight, conv.bias)
    conv = decoder.conv_out
    return convolve(_activated(decoder.conv_norm_out, x), x.shape[1], conv.weight, conv.bias)


def _resnet(block: Resnet, x: mx.array) -> mx.array:
    height = x.shape[1]
    between = convolve(_activated(block.norm1, x), height, block.conv1.weight, block.conv1.bias)

    def beside(first: int, end: int) -> mx.array:
        rows = x[:, first:end]
        return block.conv_shortcut(rows) if "conv_shortcut" in block else rows

    return convolve(_activated(block.norm2, between), height, block.conv2.weight, block.conv2.bias, plus=beside)


def _activated(norm: nn.GroupNorm, x: mx.array) -> Rows:
    """Rows of the normalised image after SiLU."""
    mean, scale = _statistics(norm, x)

    def rows(first: int, end: int) -> mx.array:
        some = (x[:, first:end].astype(mx.float32) - mean) * scale
        return nn.silu((some * norm.weight + norm.bias).astype(x.dtype))

    return rows


def _statistics(norm: nn.GroupNorm, x: mx.array) -> tuple[mx.array, mx.array]:
    """Mean, and one divided by the standard deviation, of each channel's group in the whole image: (channels,)."""
    height, width, channels = x.shape[1:]
    of_group = channels // norm.num_groups
    count = height * width * of_group

    def total(values: mx.array, mean: mx.array | None = None) -> mx.array:
        found = mx.zeros(norm.num_groups)
        for first in range(0, height, STRIP_ROWS):
            some = values[:, first : first + STRIP_ROWS].astype(mx.float32)
            some = some if mean is None else (some - mean) ** 2
            found = found + some.reshape(-1, norm.num_groups, of_group).sum(axis=(0, 2))
            mx.eval(found)
        return mx.repeat(found / count, of_group)

    mean = total(x)
    scale = mx.rsqrt(total(x, mean) + norm.eps)
    mx.eval(mean, scale)
    return mean, scale


def _attend(block: Attention, x: mx.array) -> mx.array:
    """Attention of every position to all others, `QUERIES` of them at a time."""
    batch, height, width, channels = x.shape
    y = block.group_norm(x).reshape(batch, 1, height * width, channels)
    queries, keys, values = block.to_q(y), block.to_k(y), block.to_v(y)
    mx.eval(queries, keys, values)
    parts = []
    for first in range(0, height * width, QUERIES):
        some = queries[:, :, first : first + QUERIES]
        parts.append(mx.fast.scaled_dot_product_attention(some, keys, values, scale=channels**-0.5))
        mx.eval(parts[-1])
    attended = x + block.to_out[0](mx.concatenate(parts, axis=2)).reshape(x.shape)
    mx.eval(attended)
    return attended
