"""Stage 3: the VAE, trained on rendered scenes."""

import logging
from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import AutoencoderKLFlux2
from torch.nn import functional

from .basis import Basis
from .checkpoint import Budget, learning_rate, load_checkpoint, save_checkpoint
from .geometry import CELL_PX, NATIVE_PX, VAE
from .latents import render_pool
from .muon import ConvMuon

log = logging.getLogger(__name__)

POOL_IMAGES = 6000
CROP_PX = 64
CROP_BATCH = 8
FULL_BATCH = 4
FULL_SIZE_AFTER = 0.75
PEAK_RATE = 2e-3
MAX_NOISE = 0.35
"""Largest standard deviation of noise on latents, whose variance is 1 on average."""


def build_vae() -> AutoencoderKLFlux2:
    """A new VAE whose residual blocks start as the identity."""
    vae = AutoencoderKLFlux2(**VAE)
    for name, parameter in vae.named_parameters():
        if ".conv2." in name:
            torch.nn.init.zeros_(parameter)
    return vae.to(memory_format=torch.channels_last)


def to_signal(images: np.ndarray) -> torch.Tensor:
    """uint8 images N x H x W x 3 as floats N x 3 x H x W from -1 to 1."""
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1.0).contiguous(
        memory_format=torch.channels_last
    )


def _edges(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return image[..., 1:, :] - image[..., :-1, :], image[..., :, 1:] - image[..., :, :-1]


def reconstruction_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean absolute error of pixels and of their differences."""
    edges = sum(functional.l1_loss(a, b) for a, b in zip(_edges(output), _edges(target), strict=True))
    return functional.l1_loss(output, target) + 0.5 * functional.mse_loss(output, target) + edges


def encode(vae: AutoencoderKLFlux2, signal: torch.Tensor) -> torch.Tensor:
    """Mean latents, N x 32 x H/8 x W/8."""
    return vae.quant_conv(vae.encoder(signal)).chunk(2, dim=1)[0]


@torch.no_grad()
def latents_of(vae: AutoencoderKLFlux2, images: np.ndarray) -> np.ndarray:
    """Mean latents N x h x w x 32 of uint8 images."""
    batches = [encode(vae, to_signal(batch)) for batch in np.array_split(images, len(images) // 32)]
    return torch.cat(batches).permute(0, 2, 3, 1).numpy()


def decode(vae: AutoencoderKLFlux2, latents: torch.Tensor) -> torch.Tensor:
    return vae.decoder(vae.post_quant_conv(latents))


def _crop(images: np.ndarray, rng: Random) -> np.ndarray:
    x, y = (CELL_PX * rng.randrange((NATIVE_PX - CROP_PX) // CELL_PX + 1) for _ in range(2))
    return images[:, y : y + CROP_PX, x : x + CROP_PX]


@torch.no_grad()
def psnr(vae: AutoencoderKLFlux2, images: np.ndarray) -> float:
    """Reconstruction quality in decibels."""
    errors = []
    for batch in np.array_split(images, len(images) // 32):
        signal = to_signal(batch)
        errors.append(functional.mse_loss(decode(vae, encode(vae, signal)).clamp(-1, 1) / 2, signal / 2).item())
    return -10 * float(np.log10(np.mean(errors)))


def _noisy(latents: torch.Tensor) -> torch.Tensor:
    """Latents with a random amount of noise each, so that decoding tolerates imprecise latents."""
    return latents + torch.rand(len(latents), 1, 1, 1) * MAX_NOISE * torch.randn_like(latents)


def _optimizers(parameters: list[torch.nn.Parameter], rate: float) -> list[torch.optim.Optimizer]:
    filters = [p for p in parameters if p.ndim == 4 and min(p.shape[:2]) > 3]
    others = [p for p in parameters if p.ndim != 4 or min(p.shape[:2]) <= 3]
    return [ConvMuon(filters, rate), torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)]


def train_vae(work: Path, budget_seconds: float, seed: int) -> dict[str, float]:
    """Train the VAE until the budget is used; leaves `vae/` in the work folder and returns its measures.

    The encoder learns the latents of the basis, and the decoder learns from them: neither waits for the other.
    """
    torch.manual_seed(seed)
    vae = build_vae()
    basis = Basis.load(work / "basis.npz")
    parameters = [*vae.parameters()]
    optimizers = _optimizers(parameters, PEAK_RATE)
    step, spent, smooth = 0, 0.0, None
    if state := load_checkpoint(work / "vae.pt"):
        vae.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        step, spent = state["step"], state["spent"]
    images = render_pool(seed, POOL_IMAGES)
    rng = Random(seed + step)
    torch.manual_seed(seed + step)
    budget = Budget(budget_seconds, spent)
    while budget.fraction < 1.0:
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = PEAK_RATE * learning_rate(budget.fraction)
        full = budget.fraction > FULL_SIZE_AFTER
        batch = images[[rng.randrange(len(images)) for _ in range(FULL_BATCH if full else CROP_BATCH)]]
        batch = batch if full else _crop(batch, rng)
        signal, wanted = to_signal(batch), torch.from_numpy(basis.latents(batch)).permute(0, 3, 1, 2)
        with torch.autocast("cpu", torch.bfloat16):
            latents = encode(vae, signal).float()
            output = decode(vae, _noisy(wanted).contiguous(memory_format=torch.channels_last)).float()
        painting, reading = reconstruction_loss(output, signal), functional.l1_loss(latents, wanted)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        (painting + reading).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        step += 1
        now = torch.tensor([painting.item(), reading.item()])
        smooth = now if smooth is None else torch.lerp(smooth, now, 0.02)
        if step % 50 == 0:
            log.info("vae step %d %.0f s painting %.4f reading %.4f", step, budget.spent, *smooth)
        if step % 500 == 0:
            saved = [optimizer.state_dict() for optimizer in optimizers]
            state = {"model": vae.state_dict(), "optimizers": saved, "step": step}
            save_checkpoint(work / "vae.pt", {**state, "spent": budget.spent})
    vae.bn.running_mean.zero_()
    vae.bn.running_var.fill_(1.0)
    vae.eval().save_pretrained(work / "vae")
    quality = psnr(vae, render_pool(seed + 1_000_000, 128))
    return {"loss": float(smooth[0]), "psnr_db": quality, "steps": step, "seconds": budget.spent}
