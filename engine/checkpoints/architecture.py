"""Sizes of the networks of a Stable Diffusion checkpoint.

Sources: CompVis/stable-diffusion, Stability-AI/generative-models modules/diffusionmodules/openaimodel.py, model.py;
diffusers 0.42 models/unets/unet_2d_condition.py, models/autoencoders/vae.py; transformers models/clip.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Activation = Literal["quick_gelu", "gelu"]

SIZE_CHANNELS = 256
"""Channels of the embedding of one number of SDXL's sizes."""


@dataclass(frozen=True, slots=True)
class Level:
    """Level of a UNet, on the way down or up."""

    channels: int
    heads: int
    """Attention heads."""
    depths: tuple[int, ...]
    """Transformer blocks after each residual block; 0: no attention there."""
    resamples: bool
    """Whether its height and width are halved, or doubled on the way up, at its end."""


@dataclass(frozen=True, slots=True)
class Middle:
    """The deepest part of a UNet, between both ways."""

    channels: int
    heads: int
    resnets: int
    """Residual blocks: 2 with attention between them; some distilled models have 1 or none."""
    depth: int
    """Transformer blocks; 0: no attention."""


@dataclass(frozen=True, slots=True)
class UNetArchitecture:
    """Sizes of a UNet."""

    in_channels: int
    """4; 9 where a mask and the masked image's latents follow the latents."""
    out_channels: int
    time_channels: int
    """Channels of the embedding of timesteps after its linear layers."""
    context_channels: int
    """Channels of the text encoders' output."""
    added_channels: int | None
    """Channels of SDXL's pooled text and sizes together; None for models without them."""
    linear_projection: bool
    """Whether files store `proj_in` and `proj_out` as linear layers instead of 1x1 convolutions."""
    down: tuple[Level, ...]
    middle: Middle
    up: tuple[Level, ...]
    groups: int = 32
    """Groups of each GroupNorm."""

    @property
    def first_channels(self) -> int:
        """Channels after the first convolution."""
        return self.down[0].channels


@dataclass(frozen=True, slots=True)
class ClipArchitecture:
    """Sizes of CLIP's text encoder."""

    vocabulary: int
    positions: int
    """Longest sequence of tokens, 77."""
    channels: int
    layers: int
    heads: int
    feed_forward_channels: int
    activation: Activation
    projection_channels: int | None
    """Channels of the projected pooled output; None where it is not projected."""


@dataclass(frozen=True, slots=True)
class VaeArchitecture:
    """Sizes of a VAE."""

    channels: tuple[int, ...]
    """Of each level of the encoder; the decoder has the same, the last first."""
    encoder_resnets: int
    """Residual blocks of each level."""
    decoder_resnets: int
    latent_channels: int = 4
    groups: int = 32

    @property
    def pixels(self) -> int:
        """Pixels along each side for one latent."""
        return 1 << (len(self.channels) - 1)


@dataclass(frozen=True, slots=True)
class Architecture:
    """Sizes of a checkpoint's networks."""

    unet: UNetArchitecture
    text_encoders: tuple[ClipArchitecture, ...]
    vae: VaeArchitecture | None
