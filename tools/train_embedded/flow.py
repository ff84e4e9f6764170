"""Stage 1: text encoder and transformer, trained together on the velocity of noised latents."""

import logging
from collections import Counter
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import Flux2Transformer2DModel
from diffusers.models.transformers import transformer_flux2
from PIL import Image
from torch import nn
from torch.nn import functional
from transformers import Qwen3Config, Qwen3ForCausalLM

from engine.embedded.style import style_numbers, with_style

from .basis import Basis
from .batches import BATCH, Supply, misled
from .checkpoint import Average, Budget, learning_rate, load_checkpoint, save_checkpoint
from .geometry import LATENT_GRID, LATENT_TOKENS, TEXT_ENCODER, TEXT_LAYERS, TEXT_TOKENS, TRANSFORMER, scheduler_sigmas
from .judging import edit_cases, evaluation_scenes, icon_scenes, judge, ranked_icons
from .scenes import Style, prompt, render
from .tokenizer import encode_prompts, load_tokenizer

log = logging.getLogger(__name__)

MATRIX_RATE = 0.02
OTHER_RATE = 1e-3
WEIGHT_DECAY = 0.02
ORTHOGONALISING_STEPS = 3
SCHEDULE_SHARE = 0.8
SCHEDULE_WEIGHTS = (0.4, 0.2, 0.2, 0.2)
HOLD = 0.45
"""Share of the budget after which the learning rate falls; outlines become right in that time."""

PLAIN_UNTIL, VARIED_FROM = 0.22, 0.42
"""Shares of the budget between which styles grow from all alike to their full variety. A model that sees everything at
once first learns the blur of all places and sizes, and outlines only much later.
"""

EVERYTHING_FROM = 0.1
"""Share of the budget from which on all kinds are rendered, if they are wanted, not only the first ones."""

SCORED = 96
REFERENCE_TIME = 10
"""First coordinate of the first reference image's tokens, as the pipeline sets it; the second has twice that."""


def plain_attention(query, key, value, **_):
    """Attention as two matrix products, which on a CPU is faster than the fused kernel at this size."""
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    weights = (query @ key.transpose(-1, -2)) * query.shape[-1] ** -0.5
    return (weights.softmax(-1) @ value).transpose(1, 2)


class FlowModel(nn.Module):
    """The trained pair: prompt encoder and transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.text_encoder = Qwen3ForCausalLM(Qwen3Config(**TEXT_ENCODER, attn_implementation="eager"))
        self.transformer = Flux2Transformer2DModel(**TRANSFORMER)
        grid = torch.arange(LATENT_GRID)
        image_ids = torch.zeros(LATENT_GRID, LATENT_GRID, 4)
        image_ids[..., 1] = grid[:, None]
        image_ids[..., 2] = grid[None, :]
        text_ids = torch.zeros(TEXT_TOKENS, 4)
        text_ids[:, 3] = torch.arange(TEXT_TOKENS)
        image_ids = image_ids.reshape(-1, 4)
        self.register_buffer("image_ids", image_ids, persistent=False)
        self.register_buffer("text_ids", text_ids, persistent=False)

    def embed(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Prompt embeddings: raw outputs of the chosen layers, concatenated."""
        encoder = self.text_encoder.model
        hidden = encoder.embed_tokens(ids)
        length = ids.shape[1]
        blocked = torch.full((length, length), -1e9).triu(1) + (1 - mask)[:, None, None, :] * -1e9
        positions = torch.arange(length)[None]
        rotary = encoder.rotary_emb(hidden, positions)
        outputs = [hidden]
        for layer in encoder.layers:
            hidden = layer(hidden, attention_mask=blocked.to(hidden.dtype), position_embeddings=rotary)
            outputs.append(hidden)
        return torch.cat([outputs[i] for i in TEXT_LAYERS], dim=-1)

    def forward(
        self,
        noisy: torch.Tensor,
        sigma: torch.Tensor,
        ids: torch.Tensor,
        mask: torch.Tensor,
        references: torch.Tensor | None = None,
    ) -> torch.Tensor:
        image_ids = self.image_ids
        if references is not None:
            noisy = torch.cat([noisy, references], dim=1)
            count = references.shape[1] // LATENT_TOKENS
            image_ids = torch.cat([image_ids, *(self._reference_ids(number) for number in range(1, count + 1))])
        velocity = self.transformer(
            hidden_states=noisy,
            encoder_hidden_states=self.embed(ids, mask),
            timestep=sigma,
            img_ids=image_ids,
            txt_ids=self.text_ids,
            guidance=None,
            return_dict=False,
        )[0]
        return velocity[:, :LATENT_TOKENS]

    def _reference_ids(self, number: int) -> torch.Tensor:
        """Coordinates of the reference image with this number, counted from 1."""
        ids = self.image_ids.clone()
        ids[:, 0] = REFERENCE_TIME * number
        return ids


def optimizers_of(model: FlowModel) -> list[torch.optim.Optimizer]:
    outer = ("embed_tokens", "x_embedder", "proj_out", "norm_out", "timestep_embedder", "context_embedder")
    reader, transformer_parts, others = [], [], []
    for name, parameter in model.named_parameters():
        if parameter.ndim != 2 or any(part in name for part in outer):
            others.append(parameter)
        else:
            (reader if name.startswith("text_encoder") else transformer_parts).append(parameter)
    matrices = [{"params": transformer_parts, "lr": MATRIX_RATE}, {"params": reader, "lr": MATRIX_RATE / 2}]
    muon = torch.optim.Muon(matrices, momentum=0.95, weight_decay=WEIGHT_DECAY, ns_steps=ORTHOGONALISING_STEPS)
    return [muon, torch.optim.AdamW(others, lr=OTHER_RATE, betas=(0.9, 0.98), weight_decay=0.0)]


def descend(model: nn.Module, optimizers: list[torch.optim.Optimizer], loss: torch.Tensor) -> None:
    """One step of all optimizers on the loss."""
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()


def sample_sigmas(count: int, schedule: torch.Tensor) -> torch.Tensor:
    """Noise levels for training: mostly those of four steps, the first of them most often."""
    on_schedule = schedule[torch.multinomial(torch.tensor(SCHEDULE_WEIGHTS), count, replacement=True)]
    uniform = torch.rand(count).clamp(1e-3, 1.0)
    shifted = 3.0 * uniform / (1.0 + 2.0 * uniform)
    return torch.where(torch.rand(count) < SCHEDULE_SHARE, on_schedule, shifted)


def _initialise(model: FlowModel) -> None:
    """Initialise residual branches and the output to zero."""
    for name, parameter in model.transformer.named_parameters():
        if "modulation" in name or name.startswith(("proj_out", "norm_out.linear")):
            nn.init.zeros_(parameter)
    nn.init.normal_(model.text_encoder.model.embed_tokens.weight, std=0.5)


class AveragedWeights:
    """Context in which a model has the averaged weights."""

    def __init__(self, model: FlowModel, average: Average) -> None:
        self._model, self._average = model, average

    def __enter__(self) -> None:
        self._current = {name: value.detach().clone() for name, value in self._model.named_parameters()}
        self._average.copy_to(self._model)

    @torch.no_grad()
    def __exit__(self, *_) -> None:
        for name, value in self._model.named_parameters():
            value.copy_(self._current[name])


def save_parts(model: FlowModel, work: Path) -> None:
    """Write `transformer/` and `text_encoder/`."""
    model.transformer.save_pretrained(work / "transformer")
    model.text_encoder.save_pretrained(work / "text_encoder")


@torch.no_grad()
def draw(
    forward,
    tokenizer,
    prompts: list[str],
    basis: Basis,
    seed: int,
    references: torch.Tensor | None = None,
    steps: int = 4,
) -> np.ndarray:
    """Images of prompts, N x H x W x 3, by four Euler steps, decoded linearly."""
    noisy = torch.randn(len(prompts), LATENT_TOKENS, 128, generator=torch.Generator().manual_seed(seed))
    tokens = encode_prompts(tokenizer, prompts)
    sigmas = [*scheduler_sigmas(4), 0.0]
    for sigma, following in pairwise(sigmas):
        with torch.autocast("cpu", torch.bfloat16):
            at = torch.full((len(prompts),), sigma)
            velocity = forward(noisy, at, tokens["input_ids"], tokens["attention_mask"], references)
        noisy = noisy + (following - sigma) * velocity.float()
    return basis.decode(noisy.numpy())


def score(forward, tokenizer, basis: Basis, everything: bool, sheet: Path) -> dict[str, float]:
    """Shares of held-out prompts whose background, colour, outline, ... are right; saves the images."""
    rng = Random(7)
    icons = icon_scenes(1, each=1)[: SCORED // 3] if everything else []
    scenes = [*evaluation_scenes(SCORED - len(icons), 1, everything), *icons]
    texts = [with_style(prompt(scene, rng), style_numbers(number)) for number, scene in enumerate(scenes)]
    batches = range(0, SCORED, BATCH)
    images = np.concatenate([draw(forward, tokenizer, texts[i : i + BATCH], basis, i) for i in batches])
    right, asked = Counter(), Counter()
    for scene, image in zip(scenes, images, strict=True):
        verdict = judge(scene, Image.fromarray(image))
        if "shape" in verdict:
            verdict["all of it"] = all(verdict.values())
        else:
            ranked = ranked_icons(scene, Image.fromarray(image))
            verdict = {"icon": ranked[:1] == [scene.groups[0].kind], "icon of 3": scene.groups[0].kind in ranked[:3]}
        asked.update(verdict.keys())
        right.update(name for name, holds in verdict.items() if holds)
    if everything:
        edits = edit_cases(BATCH, 1)
        before = np.stack([np.asarray(render(edit.before, Style.sample(rng))) for edit in edits])
        references = torch.from_numpy(basis.encode(before)).float()
        changed = draw(forward, tokenizer, [edit.words for edit in edits], basis, 0, references)
        images = np.concatenate([images, before, changed])
        verdicts = [judge(edit.after, Image.fromarray(image)) for edit, image in zip(edits, changed, strict=True)]
        asked["edit"], right["edit"] = len(edits), sum(all(verdict.values()) for verdict in verdicts)
    rows = images.reshape(-1, 16, *images.shape[1:])
    Image.fromarray(np.concatenate([np.concatenate(list(row), axis=1) for row in rows])).save(sheet)
    return {name: right[name] / asked[name] for name in asked}


def train_flow(work: Path, budget_seconds: float, seed: int, kinds: str = "first") -> dict[str, float]:
    """Train until the budget is used, on the first kinds or all; leaves both parts in the work folder."""
    torch.manual_seed(seed)
    transformer_flux2.dispatch_attention_fn = plain_attention
    model = FlowModel()
    _initialise(model)
    average = Average(model, 0.995)
    optimizers = optimizers_of(model)
    peaks = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    step, spent = 0, 0.0
    if state := load_checkpoint(work / "flow.pt"):
        model.load_state_dict(state["model"])
        average.shadow = state["average"]
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        step, spent = state["step"], state["spent"]
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    basis = Basis.load(work / "basis.npz")
    tokenizer = load_tokenizer(work / "tokenizer")
    schedule = torch.tensor(scheduler_sigmas(4))
    rng = Random(seed + step)
    torch.manual_seed(seed + step)
    forward = torch.compile(model)
    budget = Budget(budget_seconds, spent)
    supply, smooth = Supply(basis, seed, rng), None
    while budget.fraction < 1.0:
        for group, peak in zip(groups, peaks, strict=True):
            group["lr"] = peak * learning_rate(budget.fraction, hold=HOLD)
        variety = min(1.0, max(0.0, (budget.fraction - PLAIN_UNTIL) / (VARIED_FROM - PLAIN_UNTIL)))
        everything = kinds == "all" and budget.fraction >= EVERYTHING_FROM
        batch = supply.batch(step, variety, everything)
        clean = batch.clean
        sigma = sample_sigmas(len(clean), schedule)
        tokens = encode_prompts(tokenizer, misled(batch.texts, sigma, rng))
        noise = torch.randn_like(clean)
        noisy = torch.lerp(clean, noise, sigma[:, None, None])
        with torch.autocast("cpu", torch.bfloat16):
            velocity = forward(noisy, sigma, tokens["input_ids"], tokens["attention_mask"], batch.references)
        loss = functional.mse_loss(velocity.float(), noise - clean)
        descend(model, optimizers, loss)
        step += 1
        average.update(model, step)
        smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
        if step % 100 == 0:
            log.info("flow step %d %.0f s variety %.2f loss %.4f", step, budget.spent, variety, smooth)
        if step % 500 == 0:
            with AveragedWeights(model, average):
                save_parts(model, work)
                shares = score(forward, tokenizer, basis, everything, work / "sheet.png")
            log.info("right: %s", ", ".join(f"{name} {share:.0%}" for name, share in shares.items()))
            saved = [optimizer.state_dict() for optimizer in optimizers]
            save_checkpoint(
                work / "flow.pt",
                {"model": model.state_dict(), "average": average.shadow, "optimizers": saved, "step": step,
                 "spent": budget.spent},
            )  # fmt: skip
    with AveragedWeights(model, average):
        save_parts(model, work)
    result = {"loss": smooth or 0.0, "steps": step, "samples": step * BATCH, "seconds": budget.spent}
    log.info("flow done %s", result)
    return result
