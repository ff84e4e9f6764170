"""The autoencoder: an encoder that computes the fixed latents exactly, and a decoder that learns to sharpen them.

An `AutoencoderKL` can compute a linear map: residual branches with zero weights keep their input, and
SiLU(x) - SiLU(-x) is x. Channels much larger than all others make the norm before the last convolution constant.
"""

from __future__ import annotations

import logging
from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import nn
from torch.nn import functional

from tools.train_embedded.checkpoint import Budget, learning_rate, load_checkpoint, save_checkpoint

from .cells import COLOURS_OF_LATENTS, LUMA, MATRIX, OFFSET, latents_of
from .data import render_images
from .geometry import CELL_PX, LATENT_CHANNELS, NATIVE_PX, SCALING_FACTOR, VAE
from .muon import optimizers_for

log = logging.getLogger(__name__)

ENCODER_PEAK, DECODER_PEAK = 64.0, 8.0
"""Size of the constant channels before the last norm."""

LOG_VARIANCE = -20.0
POOL_IMAGES = 3000
CROP_PX, CROP_BATCH, FULL_BATCH, FULL_SIZE_AFTER = 64, 8, 3, 0.8
PEAK_RATE = 2e-3
MAX_NOISE = 0.3
"""Largest standard deviation of noise on latents while the decoder learns."""


def _silence_branches(module: nn.Module) -> None:
    """Make residual branches zero, and shortcuts too; the trunk then keeps its input."""
    for name, parameter in module.named_parameters():
        if ".conv2." in name or ".to_out." in name or ".conv_shortcut." in name:
            nn.init.zeros_(parameter)


def _copy(weight: torch.Tensor, channels: int) -> None:
    """Set a 1x1 convolution to copy its first channels."""
    for channel in range(channels):
        weight[channel, channel, 0, 0] = 1.0


@torch.no_grad()
def construct_encoder(vae: AutoencoderKL) -> None:
    """Set the encoder to compute the latents of `cells`, divided by the scaling factor, with hardly any variance."""
    encoder, groups = vae.encoder, VAE["norm_num_groups"]
    for parameter in encoder.parameters():
        nn.init.zeros_(parameter)
    for module in encoder.modules():
        if isinstance(module, nn.GroupNorm | nn.LayerNorm):
            nn.init.ones_(module.weight)
    for colour in range(3):
        encoder.conv_in.weight[colour, colour, 1, 1] = 1.0
    for block in encoder.down_blocks:
        shortcut = block.resnets[0].conv_shortcut
        if shortcut is not None:
            _copy(shortcut.weight, 3)
        for sampler in block.downsamplers or ():
            for colour in range(3):
                sampler.conv.weight[colour, colour, :2, :2] = 0.25
    quarter = encoder.down_blocks[2].downsamplers[0].conv.weight
    quarter[3, :3, 1, 1] = torch.from_numpy(LUMA).float()
    quarter[3, :3, 0, 0] = -torch.from_numpy(LUMA).float()
    last = encoder.down_blocks[3].resnets[0].conv_shortcut
    width = last.out_channels // groups
    nn.init.zeros_(last.weight)
    peaks = encoder.mid_block.resnets[1].conv2.bias
    spread = ENCODER_PEAK * (2 / width) ** 0.5
    for channel in range(LATENT_CHANNELS):
        first = channel * width
        for place, sign in ((first, 1.0), (first + 1, -1.0)):
            last.weight[place, :4, 0, 0] = sign * torch.from_numpy(MATRIX[channel]).float()
            last.bias[place] = sign * OFFSET[channel]
            encoder.conv_out.weight[channel, place, 1, 1] = sign * spread / SCALING_FACTOR
            peaks[first + 2 if sign > 0 else first + 3] = sign * ENCODER_PEAK
    encoder.conv_out.bias[LATENT_CHANNELS:] = LOG_VARIANCE
    nn.init.zeros_(vae.quant_conv.weight)
    nn.init.zeros_(vae.quant_conv.bias)
    _copy(vae.quant_conv.weight, 2 * LATENT_CHANNELS)


@torch.no_grad()
def prepare_decoder(vae: AutoencoderKL) -> None:
    """Set the decoder to interpolate the cells' mean colours; from there it learns."""
    decoder, groups = vae.decoder, VAE["norm_num_groups"]
    _silence_branches(decoder)
    nn.init.zeros_(vae.post_quant_conv.weight)
    nn.init.zeros_(vae.post_quant_conv.bias)
    _copy(vae.post_quant_conv.weight, LATENT_CHANNELS)
    vae.post_quant_conv.weight *= SCALING_FACTOR
    decoder.conv_in.weight[:LATENT_CHANNELS] = 0.0
    decoder.conv_in.bias[:LATENT_CHANNELS] = 0.0
    for channel in range(LATENT_CHANNELS):
        decoder.conv_in.weight[channel, channel, 1, 1] = 1.0
    smooth = torch.tensor([0.25, 0.5, 0.25])
    for block in decoder.up_blocks[:3]:
        if (shortcut := block.resnets[0].conv_shortcut) is not None:
            nn.init.kaiming_uniform_(shortcut.weight, a=5**0.5)
            shortcut.weight[:LATENT_CHANNELS] = 0.0
            _copy(shortcut.weight, LATENT_CHANNELS)
        sampler = block.upsamplers[0].conv
        sampler.weight[:LATENT_CHANNELS] = 0.0
        sampler.bias[:LATENT_CHANNELS] = 0.0
        for channel in range(LATENT_CHANNELS):
            sampler.weight[channel, channel] = smooth[:, None] * smooth[None, :]
    last = decoder.up_blocks[3]
    shortcut, peaks = last.resnets[0].conv_shortcut, last.resnets[-1].conv2.bias
    nn.init.kaiming_uniform_(shortcut.weight, a=5**0.5)
    width = shortcut.out_channels // groups
    spread = DECODER_PEAK * (2 / width) ** 0.5
    nn.init.zeros_(decoder.conv_out.weight)
    nn.init.zeros_(decoder.conv_out.bias)
    for colour in range(3):
        row = COLOURS_OF_LATENTS[colour]
        first = colour * width
        shortcut.weight[first : first + width] = 0.0
        for place, sign in ((first, 1.0), (first + 1, -1.0)):
            shortcut.weight[place, :LATENT_CHANNELS, 0, 0] = sign * torch.from_numpy(row).float()
            shortcut.bias[place] = -sign * float(row @ OFFSET)
            decoder.conv_out.weight[colour, place, 1, 1] = sign * spread
            peaks[first + 2 if sign > 0 else first + 3] = sign * DECODER_PEAK


def build_vae() -> AutoencoderKL:
    """A new autoencoder, ready for the training of its decoder."""
    vae = AutoencoderKL(**VAE)
    construct_encoder(vae)
    prepare_decoder(vae)
    return vae.to(memory_format=torch.channels_last)


def to_signal(images: np.ndarray) -> torch.Tensor:
    """uint8 images N x H x W x 3 as floats N x 3 x H x W from -1 to 1."""
    signal = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    return signal.contiguous(memory_format=torch.channels_last)


def decode(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """Images N x 3 x H x W from -1 to 1 of latents as the U-Net sees them."""
    scaled = (latents / SCALING_FACTOR).contiguous(memory_format=torch.channels_last)
    return vae.decoder(vae.post_quant_conv(scaled))


@torch.no_grad()
def decoded_images(vae: AutoencoderKL, latents: torch.Tensor) -> np.ndarray:
    """uint8 images N x H x W x 3 of latents as the U-Net sees them."""
    pixels = torch.cat([decode(vae, some).clamp(-1, 1) for some in latents.split(16)])
    return ((pixels.permute(0, 2, 3, 1) + 1) * 127.5).round().byte().numpy()


def decoding_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean absolute error of pixels and of their differences, and mean squared error."""
    down, right = [(x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]) for x in (output, target)]
    edges = sum(functional.l1_loss(a, b) for a, b in zip(down, right, strict=True))
    return functional.l1_loss(output, target) + 0.5 * functional.mse_loss(output, target) + edges


def psnr(vae: AutoencoderKL, images: np.ndarray) -> float:
    """Quality of decoded images in decibels."""
    drawn = decoded_images(vae, torch.from_numpy(latents_of(images)))
    error = np.mean(((drawn.astype(np.float32) - images.astype(np.float32)) / 255) ** 2)
    return -10 * float(np.log10(error))


def _crop(images: np.ndarray, rng: Random) -> np.ndarray:
    x, y = (CELL_PX * rng.randrange((NATIVE_PX - CROP_PX) // CELL_PX + 1) for _ in range(2))
    return images[:, y : y + CROP_PX, x : x + CROP_PX]


def train_decoder(work: Path, budget_seconds: float, seed: int) -> dict[str, float]:
    """Train the decoder until the budget is used; leaves `vae/` in the work folder and returns its measures."""
    torch.manual_seed(seed)
    vae = build_vae()
    parameters = [*vae.post_quant_conv.parameters(), *vae.decoder.parameters()]
    optimizers = optimizers_for(dict(vae.decoder.named_parameters()), PEAK_RATE, PEAK_RATE)
    step, spent, smooth = 0, 0.0, None
    if state := load_checkpoint(work / "decoder.pt"):
        vae.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        step, spent = state["step"], state["spent"]
    images = render_images(seed, POOL_IMAGES)
    rng = Random(seed + step)
    torch.manual_seed(seed + step)
    budget = Budget(budget_seconds, spent)
    while budget.fraction < 1.0:
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = PEAK_RATE * learning_rate(budget.fraction, hold=0.4)
        full = budget.fraction > FULL_SIZE_AFTER
        batch = images[[rng.randrange(len(images)) for _ in range(FULL_BATCH if full else CROP_BATCH)]]
        batch = batch if full else _crop(batch, rng)
        latents = torch.from_numpy(latents_of(batch))
        noisy = latents + torch.rand(len(latents), 1, 1, 1) * MAX_NOISE * torch.randn_like(latents)
        loss = decoding_loss(decode(vae, noisy), to_signal(batch))
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        step += 1
        smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
        if step % 50 == 0:
            log.info("decoder step %d %.0f s loss %.4f", step, budget.spent, smooth)
        if step % 500 == 0:
            saved = [optimizer.state_dict() for optimizer in optimizers]
            state = {"model": vae.state_dict(), "optimizers": saved, "step": step, "spent": budget.spent}
            save_checkpoint(work / "decoder.pt", state)
    vae.eval().save_pretrained(work / "vae")
    quality = psnr(vae, render_images(seed + 1_000_000, 128))
    return {"loss": smooth or 0.0, "psnr_db": quality, "steps": step, "seconds": budget.spent}
