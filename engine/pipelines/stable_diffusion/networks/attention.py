"""Attention of the UNet: transformer blocks that read the image, and the text beside it."""

from __future__ import annotations

import mlx.core as mx
from mlx import nn

from engine.pipelines.stable_diffusion.networks.attend import attend
from engine.pipelines.stable_diffusion.networks.resnet import group_norm

NORM_EPSILON = 1e-6
"""Of the norm before the blocks; all other norms of the UNet have 1e-5."""


class Attention(nn.Module):
    """Attention of several heads. `context_channels`: of what keys and values are computed from."""

    def __init__(self, channels: int, context_channels: int, heads: int) -> None:
        super().__init__()
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(context_channels, channels, bias=False)
        self.to_v = nn.Linear(context_channels, channels, bias=False)
        self.to_out = [nn.Linear(channels, channels)]
        self.heads = heads

    def __call__(self, x: mx.array, context: mx.array) -> mx.array:
        """`x` (B, n, channels) and `context` (B, m, context channels): (B, n, channels)."""
        q, k, v = (self._split(y) for y in (self.to_q(x), self.to_k(context), self.to_v(context)))
        return self.to_out[0](attend(q, k, v).transpose(0, 2, 1, 3).reshape(x.shape))

    def _split(self, x: mx.array) -> mx.array:
        """(B, n, channels) as (B, heads, n, channels of a head)."""
        batch, count, channels = x.shape
        return x.reshape(batch, count, self.heads, channels // self.heads).transpose(0, 2, 1, 3)


class GatedGelu(nn.Module):
    """Linear layer whose second half gates the first."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.proj = nn.Linear(inputs, 2 * outputs)

    def __call__(self, x: mx.array) -> mx.array:
        value, gate = mx.split(self.proj(x), 2, axis=-1)
        return value * nn.gelu(gate)


class FeedForward(nn.Module):
    """Two linear layers; between them are four times the channels. The layer 1 of `net` is the dropout of training."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = [GatedGelu(channels, 4 * channels), nn.Identity(), nn.Linear(4 * channels, channels)]

    def __call__(self, x: mx.array) -> mx.array:
        return self.net[2](self.net[0](x))


class TransformerBlock(nn.Module):
    """Attention to the image itself, attention to the text, feed-forward."""

    def __init__(self, channels: int, context_channels: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = Attention(channels, channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = Attention(channels, context_channels, heads)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)

    def __call__(self, x: mx.array, context: mx.array) -> mx.array:
        y = self.norm1(x)
        x = x + self.attn1(y, y)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class Transformer(nn.Module):
    """Transformer blocks on the pixels of an image."""

    def __init__(self, channels: int, context_channels: int, *, heads: int, depth: int, groups: int) -> None:
        super().__init__()
        self.norm = group_norm(groups, channels, NORM_EPSILON)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = [TransformerBlock(channels, context_channels, heads) for _ in range(depth)]
        self.proj_out = nn.Linear(channels, channels)

    def __call__(self, x: mx.array, context: mx.array) -> mx.array:
        """`x` (B, h, w, channels) and the text (B, n, context channels): (B, h, w, channels)."""
        batch, height, width, channels = x.shape
        y = self.proj_in(self.norm(x).reshape(batch, height * width, channels))
        for block in self.transformer_blocks:
            y = block(y, context)
        return x + self.proj_out(y).reshape(x.shape)
