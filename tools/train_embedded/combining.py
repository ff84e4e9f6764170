"""Stage 2: further training of the flow, to combine things of two reference images."""

import logging
from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import Flux2Transformer2DModel
from diffusers.models.transformers import transformer_flux2
from PIL import Image
from torch.nn import functional
from transformers import Qwen3ForCausalLM

from .basis import Basis
from .batches import BATCH, Batch, Supply, misled
from .checkpoint import Average, Budget, learning_rate, load_checkpoint, save_checkpoint
from .flow import (
    AveragedWeights,
    FlowModel,
    descend,
    draw,
    optimizers_of,
    plain_attention,
    sample_sigmas,
    save_parts,
    score,
)
from .geometry import scheduler_sigmas
from .judging import judge, pair_cases
from .latents import Pairs, paint_pairs
from .scenes import Style, render
from .tokenizer import encode_prompts, load_tokenizer

log = logging.getLogger(__name__)

RATE_SHARE = 0.5
"""Factor on the flow's first learning rates: the model should keep what it knows."""

PAIRS_OF_TEN = 4
"""Batches of ten that consist of pairs; of the others one in eight consists of changes."""

KEPT = 0.8
"""Share of each weight's change that is kept at the end: a model between before and after generates pairs nearly as
well, and everything else as before.
"""

POOL = 3200
SCORED = 64


class _PairSupply:
    """Renderer of pools of pairs, which are handed out once each."""

    def __init__(self, basis: Basis, seed: int, rng: Random) -> None:
        self._basis, self._seed, self._rng = basis, seed, rng
        self._pairs: Pairs | None = None
        self._order: list[int] = []

    def batch(self, step: int) -> Batch:
        if len(self._order) < BATCH:
            self._pairs = paint_pairs(self._basis, self._seed * 100_000 + step, POOL)
            self._order = self._rng.sample(range(POOL), POOL)
        pairs = self._pairs
        assert pairs is not None
        picked, self._order = self._order[:BATCH], self._order[BATCH:]
        clean, references = (torch.from_numpy(side[picked]).float() for side in (pairs.after, pairs.references))
        return Batch([pairs.words[i] for i in picked], clean, references)


def score_pairs(forward, tokenizer, basis: Basis, sheet: Path) -> float:
    """Share of held-out pairs that are completely right; saves the images: first, second, generated."""
    rng, right, rows = Random(7), 0, []
    cases = pair_cases(SCORED, 1)
    for start in range(0, SCORED, BATCH):
        some = cases[start : start + BATCH]
        shown = [
            np.stack([np.asarray(render(scene, Style.sample(rng))) for scene in scenes])
            for scenes in ([case.first for case in some], [case.second for case in some])
        ]
        references = torch.from_numpy(np.concatenate([basis.encode(side) for side in shown], axis=1)).float()
        drawn = draw(forward, tokenizer, [case.words for case in some], basis, start, references)
        right += sum(
            all(judge(case.after, Image.fromarray(image)).values()) for case, image in zip(some, drawn, strict=True)
        )
        rows += [np.concatenate(column, axis=0) for column in zip(*shown, drawn, strict=True)]
    strips = [np.concatenate(rows[i : i + 16], axis=1) for i in range(0, len(rows), 16)]
    Image.fromarray(np.concatenate(strips)).save(sheet)
    return right / SCORED


def train_pairs(work: Path, budget_seconds: float, seed: int) -> dict[str, float]:
    """Train the parts in the work folder on pairs of images, besides their former data, until the budget is used; the
    result stays there.
    """
    torch.manual_seed(seed)
    transformer_flux2.dispatch_attention_fn = plain_attention
    model = FlowModel()
    model.transformer = Flux2Transformer2DModel.from_pretrained(work / "transformer", torch_dtype=torch.float32)
    model.text_encoder = Qwen3ForCausalLM.from_pretrained(
        work / "text_encoder", attn_implementation="eager", dtype=torch.float32
    )
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    average = Average(model, 0.99)
    optimizers = optimizers_of(model)
    step, spent = 0, 0.0
    if state := load_checkpoint(work / "pairs.pt"):
        model.load_state_dict(state["model"])
        before, average.shadow = state["before"], state["average"]
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        step, spent = state["step"], state["spent"]
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    peaks = [group.setdefault("peak", group["lr"]) for group in groups]
    basis = Basis.load(work / "basis.npz")
    tokenizer = load_tokenizer(work / "tokenizer")
    schedule = torch.tensor(scheduler_sigmas(4))
    rng = Random(seed + step)
    torch.manual_seed(seed + step)
    budget = Budget(budget_seconds, spent)
    supply, pairs, smooth = Supply(basis, seed, rng), _PairSupply(basis, seed, rng), None
    while budget.fraction < 1.0:
        for group, peak in zip(groups, peaks, strict=True):
            group["lr"] = RATE_SHARE * peak * learning_rate(budget.fraction, hold=0.4)
        paired = step % 10 < PAIRS_OF_TEN
        batch = pairs.batch(step) if paired else supply.batch(step, 1.0, everything=True)
        sigma = sample_sigmas(len(batch.clean), schedule)
        tokens = encode_prompts(tokenizer, batch.texts if paired else misled(batch.texts, sigma, rng))
        noise = torch.randn_like(batch.clean)
        noisy = torch.lerp(batch.clean, noise, sigma[:, None, None])
        velocity = model(noisy, sigma, tokens["input_ids"], tokens["attention_mask"], batch.references)
        loss = functional.mse_loss(velocity, noise - batch.clean)
        descend(model, optimizers, loss)
        step += 1
        average.update(model, step)
        if paired:
            smooth = loss.item() if smooth is None else 0.95 * smooth + 0.05 * loss.item()
        if step % 10 == 0:
            log.info("pairs step %d %.0f s loss %.4f", step, budget.spent, smooth)
        if step % 100 == 0:
            with AveragedWeights(model, average), torch.no_grad():
                save_parts(model, work)
                right = score_pairs(model, tokenizer, basis, work / "pairs.png")
                shares = score(model, tokenizer, basis, True, work / "sheet.png")
            log.info("pairs right %.0f%%; %s", 100 * right, ", ".join(f"{k} {v:.0%}" for k, v in shares.items()))
            saved = [optimizer.state_dict() for optimizer in optimizers]
            save_checkpoint(
                work / "pairs.pt",
                {"model": model.state_dict(), "before": before, "average": average.shadow, "optimizers": saved,
                 "step": step, "spent": budget.spent},
            )  # fmt: skip
    average.shadow = {name: torch.lerp(before[name], value, KEPT) for name, value in average.shadow.items()}
    with AveragedWeights(model, average):
        save_parts(model, work)
    return {"loss": smooth or 0.0, "steps": step, "samples": step * BATCH, "seconds": budget.spent, "kept": KEPT}
