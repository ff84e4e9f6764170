"""The VAE of Stable Diffusion, of any sizes.

Source: CompVis/stable-diffusion ldm/modules/diffusionmodules/model.py; diffusers 0.42 models/autoencoders/vae.py.
"""

from __future__ import annotations

from itertools import pairwise

import mlx.core as mx
from mlx import nn

from engine.checkpoints.architecture import VaeArchitecture
from engine.pipelines.stable_diffusion.networks.attend import attend
from engine.pipelines.stable_diffusion.networks.resnet import Downsampler, Resnet, Upsampler, group_norm

EPSILON = 1e-6
COLOURS = 3


class Vae(nn.Module):
    """From images to latents and back. `dtype` is that of its parameters, in which it computes: float16 overflows in
    SDXL's.
    """

    def __init__(self, architecture: VaeArchitecture, dtype: mx.Dtype = mx.float32) -> None:
        super().__init__()
        self.architecture, self.dtype = architecture, dtype
        latents = architecture.latent_channels
        self.encoder = Encoder(architecture)
        self.decoder = Decoder(architecture)
        self.quant_conv = nn.Linear(2 * latents, 2 * latents)
        self.post_quant_conv = nn.Linear(latents, latents)

    def encode(self, image: mx.array) -> mx.array:
        """Mean (B, H/8, W/8, 4) of the latents of an image (B, H, W, 3) in -1 to 1; they are not scaled."""
        moments = self.quant_conv(self.encoder(image.astype(self.dtype)))
        return moments[..., : self.architecture.latent_channels]

    def decode(self, latents: mx.array) -> mx.array:
        """Image (B, H, W, 3), roughly in -1 to 1, of latents (B, H/8, W/8, 4) that are not scaled."""
        return self.decoder(self.post_quant_conv(latents.astype(self.dtype)))


class Encoder(nn.Module):
    """From an image to mean and logarithm of the variance of its latents."""

    def __init__(self, architecture: VaeArchitecture) -> None:
        super().__init__()
        channels, groups = architecture.channels, architecture.groups
        self.conv_in = nn.Conv2d(COLOURS, channels[0], 3, padding=1)
        self.down_blocks = []
        for index, width in enumerate(channels):
            before, is_last = channels[max(index - 1, 0)], index == len(channels) - 1
            widths = [before, *[width] * architecture.encoder_resnets]
            self.down_blocks.append(Block(widths, groups, down=not is_last))
        self.mid_block = MiddleBlock(channels[-1], groups)
        self.conv_norm_out = group_norm(groups, channels[-1], EPSILON)
        self.conv_out = nn.Conv2d(channels[-1], 2 * architecture.latent_channels, 3, padding=1)

    def __call__(self, x: mx.array) -> mx.array:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(nn.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    """From latents to an image."""

    def __init__(self, architecture: VaeArchitecture) -> None:
        super().__init__()
        channels, groups = architecture.channels[::-1], architecture.groups
        self.conv_in = nn.Conv2d(architecture.latent_channels, channels[0], 3, padding=1)
        self.mid_block = MiddleBlock(channels[0], groups)
        self.up_blocks = []
        for index, width in enumerate(channels):
            before, is_last = channels[max(index - 1, 0)], index == len(channels) - 1
            widths = [before, *[width] * architecture.decoder_resnets]
            self.up_blocks.append(Block(widths, groups, up=not is_last))
        self.conv_norm_out = group_norm(groups, channels[-1], EPSILON)
        self.conv_out = nn.Conv2d(channels[-1], COLOURS, 3, padding=1)

    def __call__(self, x: mx.array) -> mx.array:
        x = self.mid_block(self.conv_in(x))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(nn.silu(self.conv_norm_out(x)))


class Block(nn.Module):
    """Residual blocks from each of `widths` to the next; then the image is halved, doubled, or neither."""

    def __init__(self, widths: list[int], groups: int, *, down: bool = False, up: bool = False) -> None:
        super().__init__()
        self.resnets = [Resnet(inputs, outputs, groups=groups, epsilon=EPSILON) for inputs, outputs in pairwise(widths)]
        if down:
            self.downsamplers = [Downsampler(widths[-1], pads_end=True)]
        if up:
            self.upsamplers = [Upsampler(widths[-1])]

    def __call__(self, x: mx.array) -> mx.array:
        for resnet in self.resnets:
            x = resnet(x)
        if "downsamplers" in self:
            return self.downsamplers[0](x)
        return self.upsamplers[0](x) if "upsamplers" in self else x


class MiddleBlock(nn.Module):
    """Two residual blocks with attention between them."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.resnets = [Resnet(channels, channels, groups=groups, epsilon=EPSILON) for _ in range(2)]
        self.attentions = [Attention(channels, groups)]

    def __call__(self, x: mx.array) -> mx.array:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class Attention(nn.Module):
    """Attention of every pixel to all others, with one head."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = group_norm(groups, channels, EPSILON)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = [nn.Linear(channels, channels)]

    def __call__(self, x: mx.array) -> mx.array:
        batch, height, width, channels = x.shape
        y = self.group_norm(x).reshape(batch, 1, height * width, channels)
        y = attend(self.to_q(y), self.to_k(y), self.to_v(y))
        return x + self.to_out[0](y).reshape(x.shape)
