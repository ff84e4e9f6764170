"""Training of the text encoder and the U-Net together, on the noise in noised latents."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image

from tools.train_embedded.checkpoint import Average, Budget, learning_rate, load_checkpoint, save_checkpoint
from tools.train_embedded.judging import evaluation_scenes, judge
from tools.train_embedded.scenes import Scene, prompt

from .cells import coarse_images
from .data import Lesson, Supply
from .model import Drawer, save_parts
from .muon import optimizers_for
from .noise_levels import SIGMAS
from .sampling import draw
from .tokens import CompactTokens

log = logging.getLogger(__name__)

BATCH = 32
MATRIX_RATE, OTHER_RATE = 4e-3, 2e-3
AVERAGE = 0.998
HOLD = 0.35
"""Share of the budget after which the learning rate falls."""

GREATEST_WEIGHT = 60.0
"""The loss is that of the velocity, 1 + sigma^2 times that of the noise, up to this factor."""

PURE, PURE_FROM = 4, 980
"""Samples of a batch that are noise alone, and the least of their timesteps. A sampler starts so; the noised images of
these timesteps still show their background, and from them a prompt's meaning is learned slowly.
"""

CLIP_SKIP_SHARE = 0.1
SEVERAL_FROM, EVERYTHING_FROM = 0.25, 0.7
PLAIN_UNTIL, VARIED_FROM = 0.2, 0.5
FEW_PLACES = 0.35
SCORED = 24
SCORE_SECONDS, SAVE_SECONDS = 540.0, 150.0


def lesson_at(fraction: float, kinds: str) -> Lesson:
    """What is rendered after a share of the budget: single shapes in few places or, with all kinds, more by and by."""
    variety = min(1.0, max(0.0, (fraction - PLAIN_UNTIL) / (VARIED_FROM - PLAIN_UNTIL)))
    if kinds == "first":
        return Lesson(FEW_PLACES * variety, everything=False, several=False)
    return Lesson(variety, fraction >= EVERYTHING_FROM, fraction >= SEVERAL_FROM)


def sample_timesteps(count: int) -> torch.Tensor:
    """One timestep in each of `count` equal ranges, in random order, more of the high ones."""
    spread = (torch.randperm(count) + torch.rand(count)) / count
    return (999.99 * spread**0.8).long()


def noised_batch(clean: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noised latents of variance 1, their timesteps, the noise to predict and the weight of each sample's error.

    The first `PURE` samples are noise alone; their prediction, subtracted, still has to leave the clean latents.
    """
    timesteps = torch.cat([torch.randint(PURE_FROM, 1000, (PURE,)), sample_timesteps(len(clean) - PURE)])
    sigma = torch.from_numpy(SIGMAS).float()[timesteps]
    shown = (torch.arange(len(clean)) >= PURE).float()
    weight = torch.where(shown > 0, (1 + sigma**2).clamp(max=GREATEST_WEIGHT), 1 + sigma**2)
    sigma, shown = sigma[:, None, None, None], shown[:, None, None, None]
    noise = torch.randn_like(clean)
    noised = (shown * clean + sigma * noise) / (1 + sigma**2).sqrt()
    return noised.contiguous(memory_format=torch.channels_last), timesteps, noise - (1 - shown) * clean / sigma, weight


def verdicts(scenes: list[Scene], images: np.ndarray) -> dict[str, tuple[int, int]]:
    """How many images are right and how many were asked for, by property."""
    right, asked = Counter[str](), Counter[str]()
    for scene, image in zip(scenes, images, strict=True):
        verdict = judge(scene, Image.fromarray(image))
        verdict["everything"] = all(verdict.values())
        asked.update(verdict.keys())
        right.update(name for name, holds in verdict.items() if holds)
    return {name: (right[name], asked[name]) for name in asked}


def sheet_of(images: np.ndarray, columns: int = 8) -> Image.Image:
    """Images side by side in rows."""
    rows = [np.concatenate(list(images[i : i + columns]), axis=1) for i in range(0, len(images), columns)]
    return Image.fromarray(np.concatenate(rows))


class Averaged:
    """Context in which a model has the averaged weights."""

    def __init__(self, model: Drawer, average: Average) -> None:
        self._model, self._average = model, average

    def __enter__(self) -> None:
        self._current = {name: value.detach().clone() for name, value in self._model.named_parameters()}
        self._average.copy_to(self._model)

    @torch.no_grad()
    def __exit__(self, *_) -> None:
        for name, value in self._model.named_parameters():
            value.copy_(self._current[name])


def score(model: Drawer, sheet: Path) -> dict[str, float]:
    """Shares of held-out prompts whose properties are right after 12 steps of Euler; saves the coarse images."""
    rng = Random(7)
    scenes = evaluation_scenes(SCORED, 1, everything=False)
    latents = draw(model, [prompt(scene, rng) for scene in scenes], 0, steps=12)
    images = coarse_images(latents.numpy())
    sheet_of(images).save(sheet)
    return {name: right / asked for name, (right, asked) in verdicts(scenes, images).items()}


def train_diffusion(
    work: Path, budget_seconds: float, seed: int, kinds: str, tokens: CompactTokens
) -> dict[str, float]:
    """Train until the budget is used; leaves `unet/` and `text_encoder/` in the work folder."""
    torch.manual_seed(seed)
    model = Drawer(tokens)
    average = Average(model, AVERAGE)
    optimizers = optimizers_for({n: p for n, p in model.named_parameters() if p.requires_grad}, MATRIX_RATE, OTHER_RATE)
    peaks = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    step, spent = 0, 0.0
    if state := load_checkpoint(work / "diffusion.pt"):
        model.load_state_dict(state["model"])
        average.shadow = state["average"]
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        step, spent = state["step"], state["spent"]
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    rng = Random(seed + step)
    torch.manual_seed(seed + step)
    budget, supply, smooth = Budget(budget_seconds, spent), Supply(seed, BATCH), None
    saved_at, scored_at = budget.spent, budget.spent

    def save() -> None:
        states = [optimizer.state_dict() for optimizer in optimizers]
        state = {"model": model.state_dict(), "average": average.shadow, "optimizers": states, "step": step}
        save_checkpoint(work / "diffusion.pt", {**state, "spent": budget.spent})

    while budget.fraction < 1.0:
        for group, peak in zip(groups, peaks, strict=True):
            group["lr"] = peak * learning_rate(budget.fraction, hold=HOLD)
        clean, texts = supply.batch(step, lesson_at(budget.fraction, kinds))
        noised, timesteps, noise, weight = noised_batch(clean)
        context = model.context(texts, clip_skip=2 if rng.random() < CLIP_SKIP_SHARE else 1)
        errors = weight * (model.noise(noised, timesteps, context) - noise).square().mean(dim=(1, 2, 3))
        loss = errors.mean()
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        step += 1
        average.update(model, step)
        now = torch.stack([errors[PURE:].mean(), errors[:PURE].mean()]).detach()
        smooth = now if smooth is None else torch.lerp(smooth, now, 0.02)
        if step % 50 == 0:
            log.info("step %d %.0f s loss %.4f, of noise alone %.4f", step, budget.spent, *smooth.tolist())
        if budget.spent - saved_at > SAVE_SECONDS:
            save()
            saved_at = budget.spent
        if budget.spent - scored_at > SCORE_SECONDS:
            with Averaged(model, average):
                save_parts(model, work)
                shares = score(model, work / f"sheet-{step:06}.png")
            log.info("right: %s", ", ".join(f"{name} {share:.0%}" for name, share in shares.items()))
            scored_at = budget.spent
    save()
    with Averaged(model, average):
        save_parts(model, work)
    losses = smooth.tolist() if smooth is not None else (0.0, 0.0)
    return {
        "loss": losses[0],
        "loss_of_noise_alone": losses[1],
        "steps": step,
        "samples": step * BATCH,
        "seconds": budget.spent,
    }
