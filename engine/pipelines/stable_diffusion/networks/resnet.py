"""Layers that the UNet and the VAE have in common: residual block, halving and doubling of images."""

from __future__ import annotations

import mlx.core as mx
from mlx import nn


def group_norm(groups: int, channels: int, epsilon: float) -> nn.GroupNorm:
    """GroupNorm over the channels of a group, as PyTorch counts them."""
    return nn.GroupNorm(groups, channels, eps=epsilon, pytorch_compatible=True)


class Resnet(nn.Module):
    """Residual block of two convolutions. `time_channels`: of the embedding that is added between them, if any."""

    def __init__(
        self, inputs: int, outputs: int, *, groups: int, epsilon: float, time_channels: int | None = None
    ) -> None:
        super().__init__()
        self.norm1 = group_norm(groups, inputs, epsilon)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        if time_channels is not None:
            self.time_emb_proj = nn.Linear(time_channels, outputs)
        self.norm2 = group_norm(groups, outputs, epsilon)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        if inputs != outputs:
            self.conv_shortcut = nn.Linear(inputs, outputs)

    def __call__(self, x: mx.array, time: mx.array | None = None) -> mx.array:
        """`x` (B, h, w, inputs) and the activated embedding of the time (B, time channels): (B, h, w, outputs)."""
        h = self.conv1(nn.silu(self.norm1(x)))
        if time is not None:
            h = h + self.time_emb_proj(time)[:, None, None, :]
        h = self.conv2(nn.silu(self.norm2(h)))
        return h + (self.conv_shortcut(x) if "conv_shortcut" in self else x)


class Downsampler(nn.Module):
    """Convolution that halves height and width. `pads_end`: with zeros at the right and the bottom only."""

    def __init__(self, channels: int, *, pads_end: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=0 if pads_end else 1)
        self.pads_end = pads_end

    def __call__(self, x: mx.array) -> mx.array:
        return self.conv(mx.pad(x, [(0, 0), (0, 1), (0, 1), (0, 0)]) if self.pads_end else x)


class Upsampler(nn.Module):
    """Doubles height and width by repeating, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def __call__(self, x: mx.array) -> mx.array:
        batch, height, width, channels = x.shape
        doubled = mx.broadcast_to(x[:, :, None, :, None, :], (batch, height, 2, width, 2, channels))
        return self.conv(doubled.reshape(batch, 2 * height, 2 * width, channels))
