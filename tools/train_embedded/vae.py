"""Stages 1 and 4: the autoencoder, trained on rendered scenes."""

import logging
import os
from multiprocessing import Pool
from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import AutoencoderKLFlux2
from torch.nn import functional

from .checkpoint import Budget, learning_rate, load_checkpoint, save_checkpoint
from .geometry import NATIVE_PX, VAE
from .muon import ConvMuon
from .scenes import Style, render, sample_scene

log = logging.getLogger(__name__)

POOL_IMAGES = 6000
CROP_PX = 64
CROP_BATCH = 8
FULL_BATCH = 4
FULL_SIZE_AFTER = 0.75
PEAK_RATE = 2e-3
DECODER_RATE = 2e-3
LATENT_PENALTY = 1e-4
MAX_NOISE = 0.45


def build_vae() -> AutoencoderKLFlux2:
    """A fresh autoencoder whose residual blocks start as the identity."""
    vae = AutoencoderKLFlux2(**VAE)
    for name, parameter in vae.named_parameters():
        if ".conv2." in name:
            torch.nn.init.zeros_(parameter)
    return vae.to(memory_format=torch.channels_last)


def _render_one(seed: int) -> np.ndarray:
    rng = Random(seed)
    return np.asarray(render(sample_scene(rng), Style.sample(rng)))


def render_pool(seed: int, count: int) -> torch.Tensor:
    """Random pictures as one uint8 tensor, N x 3 x H x W."""
    with Pool(os.cpu_count()) as pool:
        pictures = pool.map(_render_one, range(seed, seed + count), chunksize=64)
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def to_signal(pictures: torch.Tensor) -> torch.Tensor:
    """uint8 pictures as floats from -1 to 1."""
    return (pictures.float() / 127.5 - 1.0).contiguous(memory_format=torch.channels_last)


def _edges(picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return picture[..., 1:, :] - picture[..., :-1, :], picture[..., :, 1:] - picture[..., :, :-1]


def reconstruction_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean absolute error of pixels and of their differences."""
    edges = sum(functional.l1_loss(a, b) for a, b in zip(_edges(output), _edges(target), strict=True))
    return functional.l1_loss(output, target) + 0.5 * functional.mse_loss(output, target) + edges


def encode(vae: AutoencoderKLFlux2, signal: torch.Tensor) -> torch.Tensor:
    """Mean latents, B x 32 x H/8 x W/8."""
    return vae.quant_conv(vae.encoder(signal)).chunk(2, dim=1)[0]


def decode(vae: AutoencoderKLFlux2, latents: torch.Tensor) -> torch.Tensor:
    return vae.decoder(vae.post_quant_conv(latents))


def patchify(latents: torch.Tensor) -> torch.Tensor:
    """Packs 2x2 neighbours into channels: B x 32 x 2h x 2w to B x 128 x h x w."""
    b, c, h, w = latents.shape
    return latents.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(b, 4 * c, h // 2, w // 2)


def _crop(pictures: torch.Tensor, rng: Random) -> torch.Tensor:
    x, y = (rng.randrange(NATIVE_PX - CROP_PX + 1) for _ in range(2))
    return pictures[:, :, y : y + CROP_PX, x : x + CROP_PX]


@torch.no_grad()
def measure_latents(vae: AutoencoderKLFlux2, pictures: torch.Tensor) -> None:
    """Sets the running statistics by which packed latents are normalised."""
    packed = torch.cat([patchify(encode(vae, to_signal(batch))) for batch in pictures.split(32)])
    vae.bn.running_mean.copy_(packed.mean((0, 2, 3)))
    vae.bn.running_var.copy_(packed.var((0, 2, 3)))


@torch.no_grad()
def psnr(vae: AutoencoderKLFlux2, pictures: torch.Tensor) -> float:
    """Reconstruction quality in decibels."""
    errors = []
    for batch in pictures.split(32):
        signal = to_signal(batch)
        errors.append(functional.mse_loss(decode(vae, encode(vae, signal)).clamp(-1, 1) / 2, signal / 2).item())
    return -10 * float(np.log10(np.mean(errors)))


def _noisy(latents: torch.Tensor) -> torch.Tensor:
    """Latents with a random amount of noise each, so that decoding forgives what drawing leaves unfinished."""
    strength = torch.rand(len(latents), 1, 1, 1) * MAX_NOISE * latents.detach().std()
    return latents + strength * torch.randn_like(latents)


def _optimizers(parameters: list[torch.nn.Parameter], rate: float) -> list[torch.optim.Optimizer]:
    filters = [p for p in parameters if p.ndim == 4 and min(p.shape[:2]) > 3]
    others = [p for p in parameters if p.ndim != 4 or min(p.shape[:2]) <= 3]
    return [ConvMuon(filters, rate), torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)]


def _fit(vae: AutoencoderKLFlux2, checkpoint: Path, budget_seconds: float, seed: int, decoder_only: bool) -> dict:
    """The training loop of both stages, continued from its checkpoint where there is one."""
    trained = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()] if decoder_only else [*vae.parameters()]
    peak = DECODER_RATE if decoder_only else PEAK_RATE
    optimizers = _optimizers(trained, peak)
    step, spent, smooth = 0, 0.0, None
    if state := load_checkpoint(checkpoint):
        vae.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        step, spent = state["step"], state["spent"]
    pictures = render_pool(seed + 1_000 * decoder_only, POOL_IMAGES)
    rng = Random(seed + step)
    torch.manual_seed(seed + step)
    budget = Budget(budget_seconds, spent)
    while budget.fraction < 1.0:
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = peak * learning_rate(budget.fraction)
        full = budget.fraction > FULL_SIZE_AFTER
        batch = pictures[[rng.randrange(len(pictures)) for _ in range(FULL_BATCH if full else CROP_BATCH)]]
        signal = to_signal(batch if full else _crop(batch, rng))
        with torch.autocast("cpu", torch.bfloat16):
            with torch.set_grad_enabled(not decoder_only):
                latents = encode(vae, signal).float()
            output = decode(vae, _noisy(latents)).float()
        loss = reconstruction_loss(output, signal) + LATENT_PENALTY * latents.pow(2).mean()
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        step += 1
        smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
        if step % 50 == 0:
            log.info("%s step %d %.0f s loss %.4f", checkpoint.stem, step, budget.spent, smooth)
        if step % 500 == 0:
            saved = [optimizer.state_dict() for optimizer in optimizers]
            state = {"model": vae.state_dict(), "optimizers": saved, "step": step}
            save_checkpoint(checkpoint, {**state, "spent": budget.spent})
    unseen = render_pool(seed + 1_000_000, 128)
    return {"loss": smooth or 0.0, "psnr_db": psnr(vae, unseen), "steps": step, "seconds": budget.spent}


def train_vae(work: Path, budget_seconds: float, seed: int) -> dict[str, float]:
    """Trains the autoencoder until the budget is used; leaves `vae/` in the work folder and returns its measures."""
    torch.manual_seed(seed)
    vae = build_vae()
    result = _fit(vae, work / "vae.pt", budget_seconds, seed, decoder_only=False)
    measure_latents(vae.eval(), render_pool(seed, 1000))
    vae.save_pretrained(work / "vae")
    return result


def train_decoder(work: Path, budget_seconds: float, seed: int) -> dict[str, float]:
    """Sharpens the decoder with the latents left as they are."""
    vae = AutoencoderKLFlux2.from_pretrained(work / "vae").to(memory_format=torch.channels_last)
    result = _fit(vae, work / "decoder.pt", budget_seconds, seed, decoder_only=True)
    vae.save_pretrained(work / "vae")
    return result
