"""The UNet of Stable Diffusion, of any sizes.

Sources: CompVis/stable-diffusion and Stability-AI/generative-models `modules/diffusionmodules/openaimodel.py`;
AUTOMATIC1111 1.10.1 modules/sd_hijack_unet.py, for images whose sides cannot be halved evenly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import mlx.core as mx
from mlx import nn

from engine.checkpoints.architecture import SIZE_CHANNELS, Level, Middle, UNetArchitecture
from engine.pipelines.stable_diffusion.networks.attention import Transformer
from engine.pipelines.stable_diffusion.networks.resnet import Downsampler, Resnet, Upsampler, group_norm

EPSILON = 1e-5
LONGEST_PERIOD = 10_000


class UNet(nn.Module):
    """Predicts the noise (or v) in latents. `dtype` is that of its parameters, in which it computes."""

    def __init__(self, architecture: UNetArchitecture, dtype: mx.Dtype = mx.float32) -> None:
        super().__init__()
        self.architecture, self.dtype = architecture, dtype
        first, time = architecture.first_channels, architecture.time_channels
        self.conv_in = nn.Conv2d(architecture.in_channels, first, 3, padding=1)
        self.time_embedding = TwoLayers(first, time)
        if architecture.added_channels is not None:
            self.add_embedding = TwoLayers(architecture.added_channels, time)
        skips = [first]
        self.down_blocks = [DownBlock(architecture, level, skips) for level in architecture.down]
        self.mid_block = MiddleBlock(architecture, architecture.middle)
        below = architecture.middle.channels
        self.up_blocks = []
        for level in architecture.up:
            self.up_blocks.append(UpBlock(architecture, level, below, skips))
            below = level.channels
        self.conv_norm_out = group_norm(architecture.groups, below, EPSILON)
        self.conv_out = nn.Conv2d(below, architecture.out_channels, 3, padding=1)

    def __call__(
        self, latents: mx.array, timesteps: mx.array, context: mx.array, added: mx.array | None = None
    ) -> mx.array:
        """Prediction (B, h, w, 4) in the precision of the latents.

        `latents` (B, h, w, 4 or 9); `timesteps` (B,), 0 to 999, not necessarily whole; `context` (B, n, context
        channels): the encoded text; `added` (B, added channels), for SDXL only: the pooled text, then `embed_sizes`.
        Sides of any length: where a side is not even, its doubled half loses its last row before the skip joins it.
        """
        time = self.time_embedding(embed(timesteps, self.architecture.first_channels).astype(self.dtype))
        if added is not None:
            time = time + self.add_embedding(added.astype(self.dtype))
        time, context = nn.silu(time), context.astype(self.dtype)
        x = self.conv_in(latents.astype(self.dtype))
        skips = [x]
        for down in self.down_blocks:
            x = down(x, time, context, skips)
        x = self.mid_block(x, time, context)
        for up in self.up_blocks:
            x = up(x, time, context, skips)
        return self.conv_out(nn.silu(self.conv_norm_out(x))).astype(latents.dtype)


class TwoLayers(nn.Module):
    """Two linear layers with SiLU between them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(inputs, outputs)
        self.linear_2 = nn.Linear(outputs, outputs)

    def __call__(self, x: mx.array) -> mx.array:
        return self.linear_2(nn.silu(self.linear_1(x)))


class Block(nn.Module):
    """Residual blocks, some of them with attention after them. Where a level has no attention, neither has its block:
    the names of diffusers count only blocks that have it.
    """

    def __init__(self, architecture: UNetArchitecture, level: Level, inputs: Sequence[int]) -> None:
        super().__init__()
        self.depths = level.depths
        self.resnets = [resnet(architecture, count, level.channels) for count in inputs]
        if any(level.depths):
            self.attentions = [transformer(architecture, level, depth) for depth in level.depths]

    def step(self, index: int, x: mx.array, time: mx.array, context: mx.array) -> mx.array:
        x = self.resnets[index](x, time)
        return self.attentions[index](x, context) if self.depths[index] else x


class DownBlock(Block):
    """Level of the UNet on the way down. It appends the channels of its outputs to `skips`."""

    def __init__(self, architecture: UNetArchitecture, level: Level, skips: list[int]) -> None:
        count = len(level.depths)
        super().__init__(architecture, level, [skips[-1], *[level.channels] * (count - 1)][:count])
        skips.extend([level.channels] * (count + level.resamples))
        if level.resamples:
            self.downsamplers = [Downsampler(level.channels)]

    def __call__(self, x: mx.array, time: mx.array, context: mx.array, skips: list[mx.array]) -> mx.array:
        """The level's output. All outputs that the way up reads are appended to `skips`."""
        for index in range(len(self.resnets)):
            x = self.step(index, x, time, context)
            skips.append(x)
        if "downsamplers" in self:
            x = self.downsamplers[0](x)
            skips.append(x)
        return x


class MiddleBlock(nn.Module):
    """The deepest part of the UNet."""

    def __init__(self, architecture: UNetArchitecture, middle: Middle) -> None:
        super().__init__()
        self.resnets = [resnet(architecture, middle.channels, middle.channels) for _ in range(middle.resnets)]
        if middle.depth:
            self.attentions = [transformer(architecture, middle, middle.depth)]

    def __call__(self, x: mx.array, time: mx.array, context: mx.array) -> mx.array:
        for index, block in enumerate(self.resnets):
            x = block(x, time)
            if index == 0 and "attentions" in self:
                x = self.attentions[0](x, context)
        return x


class UpBlock(Block):
    """Level of the UNet on the way up. It takes the channels of what it reads from the end of `skips`."""

    def __init__(self, architecture: UNetArchitecture, level: Level, below: int, skips: list[int]) -> None:
        count = len(level.depths)
        before = [below, *[level.channels] * (count - 1)][:count]
        super().__init__(architecture, level, [channels + skips.pop() for channels in before])
        if level.resamples:
            self.upsamplers = [Upsampler(level.channels)]

    def __call__(self, x: mx.array, time: mx.array, context: mx.array, skips: list[mx.array]) -> mx.array:
        for index in range(len(self.resnets)):
            skip = skips.pop()
            x = mx.concatenate([x[:, : skip.shape[1], : skip.shape[2]], skip], axis=-1)
            x = self.step(index, x, time, context)
        return self.upsamplers[0](x) if "upsamplers" in self else x


def resnet(architecture: UNetArchitecture, inputs: int, outputs: int) -> Resnet:
    """Residual block of a UNet."""
    return Resnet(
        inputs, outputs, groups=architecture.groups, epsilon=EPSILON, time_channels=architecture.time_channels
    )


def transformer(architecture: UNetArchitecture, level: Level | Middle, depth: int) -> Transformer | nn.Identity:
    """Attention of a UNet's level; nothing for a depth of 0."""
    if depth == 0:
        return nn.Identity()
    return Transformer(
        level.channels, architecture.context_channels, heads=level.heads, depth=depth, groups=architecture.groups
    )


def embed(numbers: mx.array, channels: int) -> mx.array:
    """Embedding (n, channels) in float32 of numbers (n,): cosines, then sines, of geometrically growing periods."""
    half = channels // 2
    frequencies = mx.exp(mx.arange(half, dtype=mx.float32) * (-math.log(LONGEST_PERIOD) / half))
    angles = numbers.astype(mx.float32)[:, None] * frequencies[None]
    return mx.concatenate([mx.cos(angles), mx.sin(angles)], axis=-1)


def embed_sizes(sizes: Sequence[float]) -> mx.array:
    """Embedding (1, 256·n) in float32 of SDXL's n numbers: height, width, top, left of the crop, and then target height
    and target width, or the refiner's aesthetic score.
    """
    return embed(mx.array(list(sizes), dtype=mx.float32), SIZE_CHANNELS).reshape(1, -1)
