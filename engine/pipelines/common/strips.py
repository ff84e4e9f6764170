"""Strip decoders for VAEs that mflux runs on the whole image at once: those of FLUX.1 and Qwen-Image.

Each layer is evaluated before the next begins, its convolutions strip by strip. Statistics and attention use the whole
image, so no seam shows: pixels equal those of the whole decode but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
from mflux.models.common.vae.block_decoder import VAEBlockDecoder
from mflux.models.flux.model.flux_vae.vae import VAE as FluxVAE
from mflux.models.qwen.model.qwen_vae.qwen_vae import QwenVAE
from mlx import nn

STRIP_ROWS = 128
QUERIES = 4096
"""Queries of an attention that are computed at once."""
Rows = Callable[[int, int], mx.array]
"""Function that returns rows [first, end) of an image: (1, rows, columns, channels)."""


def strip_decoder(vae: Any) -> Callable[[mx.array], mx.array] | None:
    """Replacement for `vae.decoder` that decodes in strips; None for an unknown VAE."""
    if isinstance(vae, QwenVAE):
        return QwenStrips(vae.decoder)
    return FluxStrips(vae.decoder) if isinstance(vae, FluxVAE) else None


class FluxStrips:
    """FLUX.1's decoder with mflux's own strips, which expect other names of its layers."""

    def __init__(self, decoder: Any) -> None:
        self._layers = SimpleNamespace(
            conv_in=decoder.conv_in.conv2d,
            mid_block=decoder.mid_block,
            up_blocks=[
                SimpleNamespace(resnets=block.resnets, upsamplers=getattr(block, "upsamplers", None))
                for block in decoder.up_blocks
            ],
            conv_norm_out=decoder.conv_norm_out.norm,
            conv_out=decoder.conv_out.conv2d,
        )

    def __call__(self, latents: mx.array) -> mx.array:
        """Pixels (1, 3, 8 rows, 8 columns) of latents (1, 16, rows, columns)."""
        unscaled = SimpleNamespace(scaling_factor=1.0, shift_factor=0.0, decoder=self._layers)
        return VAEBlockDecoder.decode(vae=unscaled, latent=latents, strips=True)


class QwenStrips:
    """Qwen-Image's decoder for one frame: only the last plane of its 3D convolutions meets anything but zeros."""

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder

    def __call__(self, latents: mx.array) -> mx.array:
        """Pixels (1, channels, 1, 8 rows, 8 columns) of latents (1, 16, 1, rows, columns)."""
        decoder = self._decoder
        if latents.shape[2] != 1:
            whole: mx.array = decoder(latents)
            return whole
        x = latents[:, :, 0].transpose(0, 2, 3, 1)
        x = convolve(_rows_of(x), x.shape[1], *_plane(decoder.conv_in))
        first, *others = decoder.mid_block.resnets
        x = _resnet(first, x)
        for attention, resnet in zip(decoder.mid_block.attentions, others, strict=True):
            x = _resnet(resnet, x if attention is None else _attend(attention, x))
        for number in range(4):
            block = getattr(decoder, f"up_block{number}")
            for resnet in block.resnets:
                x = _resnet(resnet, x)
            for upsampler in block.upsamplers or ():
                conv = upsampler.resample_conv
                x = convolve(double(x), 2 * x.shape[1], conv.weight, conv.bias)
        x = convolve(_normalize(decoder.norm_out, x), x.shape[1], *_plane(decoder.conv_out))
        return x.transpose(0, 3, 1, 2)[:, :, None]


def _plane(conv: Any) -> tuple[mx.array, mx.array]:
    """Weight (out, height, width, in) and bias of a causal 3D convolution for its newest frame."""
    return conv.conv3d.weight[:, -1], conv.conv3d.bias


def convolve(
    rows: Rows, height: int, weight: mx.array, bias: mx.array, plus: Rows = lambda first, end: mx.array(0)
) -> mx.array:
    """3x3 convolution of the image in `rows`, padded with zeros; `plus` is added to it."""
    parts = []
    for first in range(0, height, STRIP_ROWS):
        end = min(first + STRIP_ROWS, height)
        above, below = max(first - 1, 0), min(end + 1, height)
        edges = [(0, 0), (above - first + 1, end + 1 - below), (1, 1), (0, 0)]
        strip = mx.conv2d(mx.pad(rows(above, below), edges), weight) + bias
        added = plus(first, end)
        parts.append(strip + added.astype(strip.dtype))
        mx.eval(parts[-1])
    joined = mx.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
    mx.eval(joined)
    return joined


def _rows_of(x: mx.array) -> Rows:
    return lambda first, end: x[:, first:end]


def _normalize(norm: Any, x: mx.array) -> Rows:
    """Rows divided by their length over the channels, then SiLU."""
    return lambda first, end: nn.silu(_unit(norm, x[:, first:end]))


def _unit(norm: Any, x: mx.array) -> mx.array:
    length = mx.sqrt(mx.sum(x * x, axis=-1, keepdims=True))
    unit: mx.array = x / mx.maximum(length, mx.array(norm.eps, dtype=length.dtype))
    return unit * norm.scale * norm.weight.reshape(-1)


def double(x: mx.array) -> Rows:
    """Rows of the image at twice its size: each pixel becomes two by two."""

    def rows(first: int, end: int) -> mx.array:
        few = x[:, first // 2 : (end + 1) // 2]
        many = mx.repeat(mx.repeat(few, 2, axis=1), 2, axis=2)
        return many[:, first % 2 : first % 2 + end - first]

    return rows


def _resnet(block: Any, x: mx.array) -> mx.array:
    height = x.shape[1]
    between = convolve(_normalize(block.norm1, x), height, *_plane(block.conv1))

    def beside(first: int, end: int) -> mx.array:
        if block.skip_conv is None:
            return x[:, first:end]
        weight, bias = _plane(block.skip_conv)
        return mx.conv2d(x[:, first:end], weight) + bias

    return convolve(_normalize(block.norm2, between), height, *_plane(block.conv2), plus=beside)


def _attend(block: Any, x: mx.array) -> mx.array:
    """Attention of every position to all others, `QUERIES` of them at a time."""
    batch, height, width, channels = x.shape
    projected = block.to_qkv(_unit(block.norm, x)).reshape(batch, 1, height * width, 3 * channels)
    queries, keys, values = mx.split(projected, 3, axis=-1)
    mx.eval(queries, keys, values)
    parts = []
    for first in range(0, height * width, QUERIES):
        some = queries[:, :, first : first + QUERIES]
        parts.append(mx.fast.scaled_dot_product_attention(some, keys, values, scale=channels**-0.5))
        mx.eval(parts[-1])
    mixed = mx.concatenate(parts, axis=2).reshape(batch, height, width, channels)
    attended: mx.array = x + block.proj(mixed)
    mx.eval(attended)
    return attended
