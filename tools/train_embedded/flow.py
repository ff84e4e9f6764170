"""Stage 3: text encoder and transformer, trained together on the velocity of noised latents."""

import logging
from pathlib import Path
from random import Random

import torch
from diffusers import Flux2Transformer2DModel
from diffusers.models.transformers import transformer_flux2
from torch import nn
from torch.nn import functional
from transformers import Qwen3Config, Qwen3ForCausalLM

from .checkpoint import Average, Budget, learning_rate, load_checkpoint, save_checkpoint
from .geometry import LATENT_GRID, LATENT_TOKENS, TEXT_ENCODER, TEXT_LAYERS, TEXT_TOKENS, TRANSFORMER, scheduler_sigmas
from .latents import load_dataset
from .scenes import Style, prompt
from .tokenizer import encode_prompts, load_tokenizer

log = logging.getLogger(__name__)

BATCH = 32
MATRIX_RATE = 0.02
OTHER_RATE = 1e-3
CONTEXT_RATE = 3e-4
BLANK_SHARE = 0.06
SCHEDULE_SHARE = 0.92
SCHEDULE_WEIGHTS = (0.49, 0.17, 0.17, 0.17)
LOOSE_SHARE = 0.1
"""Share of samples whose noise is independent of the picture, as it is when drawing starts from a picture."""

GUIDANCE_AFTER = 1.1
GUIDANCE = 0.4
"""From this share of the budget on, targets move away from the blank prompt's prediction, which works into the
weights what a guidance of about 1 / (1 - GUIDANCE) would do while drawing."""


def _plain_attention(query, key, value, **_):
    """Attention as two matrix products, which on a CPU is faster than the fused kernel at this size."""
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    weights = (query @ key.transpose(-1, -2)) * query.shape[-1] ** -0.5
    return (weights.softmax(-1) @ value).transpose(1, 2)


class Painter(nn.Module):
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
        self.register_buffer("image_ids", image_ids.reshape(-1, 4), persistent=False)
        self.register_buffer("text_ids", text_ids, persistent=False)

    def embed(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Prompt embeddings: raw outputs of the chosen layers, side by side."""
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

    def forward(self, noisy: torch.Tensor, sigma: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.transformer(
            hidden_states=noisy,
            encoder_hidden_states=self.embed(ids, mask),
            timestep=sigma,
            img_ids=self.image_ids,
            txt_ids=self.text_ids,
            guidance=None,
            return_dict=False,
        )[0]


def style_directions() -> torch.Tensor:
    """Orthonormal directions in the noise, one for each number of a style.

    Each is the diagonal contrast of a 2x2 patch in one latent channel, summed over the picture: pictures themselves
    hardly contain it, so it can be read from a noised picture too.
    """
    directions = torch.zeros(Style.LENGTH, LATENT_TOKENS, TRANSFORMER["in_channels"])
    for axis in range(Style.LENGTH):
        directions[axis, :, 4 * axis : 4 * axis + 4] = torch.tensor([1.0, -1.0, -1.0, 1.0])
    return nn.functional.normalize(directions.flatten(1))


def couple(noise: torch.Tensor, styles: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """Noise that stands for the styles: its components along the directions are their normal quantiles.

    Styles are uniform, so the noise stays standard normal; but as it now decides what the prompt leaves open, the model
    has one picture to aim at from the first step on, which four steps need.
    """
    flat = noise.flatten(1)
    wanted = torch.special.ndtri(styles.clamp(1e-4, 1 - 1e-4))
    return (flat + (wanted - flat @ directions.T) @ directions).view_as(noise)


def _optimizers(model: Painter) -> list[torch.optim.Optimizer]:
    outer = ("embed_tokens", "x_embedder", "proj_out", "norm_out", "timestep_embedder")
    reader, painter, context, others = [], [], [], []
    for name, parameter in model.named_parameters():
        if "context_embedder" in name:
            context.append(parameter)
        elif parameter.ndim != 2 or any(part in name for part in outer):
            others.append(parameter)
        else:
            (reader if name.startswith("text_encoder") else painter).append(parameter)
    matrices = [{"params": painter, "lr": MATRIX_RATE}, {"params": reader, "lr": MATRIX_RATE / 2}]
    rest = [{"params": others, "lr": OTHER_RATE}, {"params": context, "lr": CONTEXT_RATE}]
    return [
        torch.optim.Muon(matrices, lr=MATRIX_RATE, momentum=0.95, weight_decay=0.1),
        torch.optim.AdamW(rest, lr=OTHER_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _sample_sigmas(count: int, schedule: torch.Tensor) -> torch.Tensor:
    on_schedule = schedule[torch.multinomial(torch.tensor(SCHEDULE_WEIGHTS), count, replacement=True)]
    uniform = torch.rand(count).clamp(1e-3, 1.0)
    shifted = 3.0 * uniform / (1.0 + 2.0 * uniform)
    return torch.where(torch.rand(count) < SCHEDULE_SHARE, on_schedule, shifted)


def _initialise(model: Painter) -> None:
    """Quiet start: residual branches and the output begin at zero."""
    for name, parameter in model.transformer.named_parameters():
        if "modulation" in name or name.startswith(("proj_out", "norm_out.linear")):
            nn.init.zeros_(parameter)
    nn.init.normal_(model.text_encoder.model.embed_tokens.weight, std=0.5)


def save_parts(model: Painter, average: Average, work: Path) -> None:
    """Writes `transformer/` and `text_encoder/` with the averaged weights."""
    current = {name: value.detach().clone() for name, value in model.named_parameters()}
    average.copy_to(model)
    model.transformer.save_pretrained(work / "transformer")
    model.text_encoder.save_pretrained(work / "text_encoder")
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(current[name])


def train_flow(work: Path, budget_seconds: float, seed: int, compiled: bool = True) -> dict[str, float]:
    """Trains until the budget is used; leaves `transformer/` and `text_encoder/` in the work folder."""
    torch.manual_seed(seed)
    transformer_flux2.dispatch_attention_fn = _plain_attention
    model = Painter()
    _initialise(model)
    average = Average(model, 0.995)
    optimizers = _optimizers(model)
    peaks = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    step, spent = 0, 0.0
    if state := load_checkpoint(work / "flow.pt"):
        model.load_state_dict(state["model"])
        average.shadow = state["average"]
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        step, spent = state["step"], state["spent"]
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    latents, styles, scenes = load_dataset(work)
    directions = style_directions()
    tokenizer = load_tokenizer(work / "tokenizer")
    blank_tokens = encode_prompts(tokenizer, [" "] * BATCH)
    blank = blank_tokens["input_ids"], blank_tokens["attention_mask"]
    schedule = torch.tensor(scheduler_sigmas(4))
    rng = Random(seed + step)
    torch.manual_seed(seed + step)
    forward = torch.compile(model) if compiled else model
    budget = Budget(budget_seconds, spent)
    smooth, order = None, []
    while budget.fraction < 1.0:
        for group, peak in zip(groups, peaks, strict=True):
            group["lr"] = peak * learning_rate(budget.fraction)
        if len(order) < BATCH:
            order = rng.sample(range(len(scenes)), len(scenes))
        picked, order = order[:BATCH], order[BATCH:]
        texts = [" " if rng.random() < BLANK_SHARE else prompt(scenes[i], rng) for i in picked]
        tokens = encode_prompts(tokenizer, texts)
        clean = latents[picked].float()
        sigma = _sample_sigmas(len(clean), schedule)
        free = torch.randn_like(clean)
        loose = (sigma < 1.0) & (torch.rand(len(clean)) < LOOSE_SHARE)
        noise = torch.where(loose[:, None, None], free, couple(free, styles[picked], directions))
        noisy = torch.lerp(clean, noise, sigma[:, None, None])
        with torch.autocast("cpu", torch.bfloat16):
            velocity = forward(noisy, sigma, tokens["input_ids"], tokens["attention_mask"])
        target = noise - clean
        if budget.fraction > GUIDANCE_AFTER:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                unprompted = forward(noisy, sigma, *blank)
            prompted = torch.tensor([text != " " for text in texts]).float()[:, None, None]
            target = target + GUIDANCE * prompted * (velocity.detach() - unprompted).float()
        loss = functional.mse_loss(velocity.float(), target)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        step += 1
        average.update(model, step)
        smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
        if step % 50 == 0:
            log.info("flow step %d %.0f s loss %.4f, %d samples", step, budget.spent, smooth, step * BATCH)
        if step % 500 == 0:
            save_parts(model, average, work)
            saved = [optimizer.state_dict() for optimizer in optimizers]
            save_checkpoint(
                work / "flow.pt",
                {"model": model.state_dict(), "average": average.shadow, "optimizers": saved, "step": step,
                 "spent": budget.spent},
            )  # fmt: skip
    save_parts(model, average, work)
    result = {"loss": smooth or 0.0, "steps": step, "samples": step * BATCH, "seconds": budget.spent}
    log.info("flow done %s", result)
    return result
