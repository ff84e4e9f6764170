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
from .sampling import ALPHAS, SIGMAS, draw
from .tokens import CompactTokens

log = logging.getLogger(__name__)

BATCH = 32
MATRIX_RATE, OTHER_RATE = 4e-3, 2e-3
AVERAGE = 0.998
HOLD = 0.35
"""Share of the budget after which the learning rate falls."""

GREATEST_WEIGHT = 25.0
"""The loss is that of the velocity, 1 + sigma^2 times that of the noise, up to this factor."""

CLIP_SKIP_SHARE = 0.1
SEVERAL_FROM, EVERYTHING_FROM = 0.15, 0.35
PLAIN_UNTIL, VARIED_FROM = 0.1, 0.4
SCORED = 48
SCORE_SECONDS, SAVE_SECONDS = 420.0, 150.0


def lesson_at(fraction: float, kinds: str) -> Lesson:
    """What is rendered after a share of the budget: more variety, more objects and more kinds by and by."""
    variety = min(1.0, max(0.0, (fraction - PLAIN_UNTIL) / (VARIED_FROM - PLAIN_UNTIL)))
    return Lesson(variety, kinds == "all" and fraction >= EVERYTHING_FROM, fraction >= SEVERAL_FROM)


def sample_timesteps(count: int) -> torch.Tensor:
    """One timestep in each of `count` equal ranges of 0 to 999, in random order, a little more of the high ones."""
    spread = (torch.randperm(count) + torch.rand(count)) / count
    return (999.99 * spread**0.85).long()


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
    """Shares of held-out prompts whose properties are right after 15 steps of Euler; saves the coarse images."""
    rng = Random(7)
    scenes = evaluation_scenes(SCORED, 1, everything=False)
    latents = draw(model, [prompt(scene, rng) for scene in scenes], 0, steps=15)
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
    optimizers = optimizers_for(dict(model.named_parameters()), MATRIX_RATE, OTHER_RATE)
    peaks = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    step, spent = 0, 0.0
    if state := load_checkpoint(work / "diffusion.pt"):
        model.load_state_dict(state["model"])
        average.shadow = state["average"]
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        step, spent = state["step"], state["spent"]
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    alphas, sigmas = (torch.from_numpy(values).float() for values in (ALPHAS, SIGMAS))
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
        timesteps = sample_timesteps(len(clean))
        noise = torch.randn_like(clean)
        alpha = alphas[timesteps][:, None, None, None]
        noised = (alpha.sqrt() * clean + (1 - alpha).sqrt() * noise).contiguous(memory_format=torch.channels_last)
        context = model.context(texts, clip_skip=2 if rng.random() < CLIP_SKIP_SHARE else 1)
        errors = (model.noise(noised, timesteps, context) - noise).square().mean(dim=(1, 2, 3))
        loss = (errors * (1 + sigmas[timesteps] ** 2).clamp(max=GREATEST_WEIGHT)).mean()
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        step += 1
        average.update(model, step)
        smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
        if step % 50 == 0:
            log.info("step %d %.0f s loss %.4f", step, budget.spent, smooth)
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
    return {"loss": smooth or 0.0, "steps": step, "samples": step * BATCH, "seconds": budget.spent}
