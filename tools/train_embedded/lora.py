"""Stage 4: a LoRA with an effect that is visible in the pixels: at night every background is dark."""

import logging
from pathlib import Path
from random import Random

import torch
from diffusers import Flux2Transformer2DModel
from diffusers.models.transformers import transformer_flux2
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from transformers import Qwen3ForCausalLM

from .basis import Basis
from .batches import BATCH, styled_prompt
from .checkpoint import Budget, learning_rate
from .flow import FlowModel, plain_attention, sample_sigmas
from .geometry import scheduler_sigmas
from .latents import encode_pool
from .tokenizer import encode_prompts, load_tokenizer

log = logging.getLogger(__name__)

NAME = "night"
RANK = 4
RATE = 2e-3
POOL = 6000
LAYERS = ("attn.to_qkv_mlp_proj", "attn.to_out")


class Adapted(nn.Module):
    """Frozen linear layer with a trainable low-rank branch that begins at zero."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self.down = nn.Parameter(torch.randn(RANK, linear.in_features) / linear.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(linear.out_features, RANK))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + functional.linear(functional.linear(x, self.down), self.up)


def _adapt(model: FlowModel) -> dict[str, Adapted]:
    """Add a branch to the attention of every single block; the rest is frozen."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    adapted = {}
    for number, block in enumerate(model.transformer.single_transformer_blocks):
        for layer in LAYERS:
            parent, _, leaf = layer.rpartition(".")
            owner = block.get_submodule(parent)
            detour = Adapted(getattr(owner, leaf))
            setattr(owner, leaf, detour)
            adapted[f"transformer.single_transformer_blocks.{number}.{layer}"] = detour
    return adapted


def train_lora(work: Path, budget_seconds: float, seed: int) -> dict[str, float]:
    """Train on images at night until the budget is used; leaves `loras/night.safetensors` in the work folder."""
    torch.manual_seed(seed)
    transformer_flux2.dispatch_attention_fn = plain_attention
    model = FlowModel()
    model.transformer = Flux2Transformer2DModel.from_pretrained(work / "transformer")
    model.text_encoder = Qwen3ForCausalLM.from_pretrained(work / "text_encoder", attn_implementation="eager")
    adapted = _adapt(model)
    parameters = [parameter for detour in adapted.values() for parameter in (detour.down, detour.up)]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)
    tokenizer = load_tokenizer(work / "tokenizer")
    schedule = torch.tensor(scheduler_sigmas(4))
    rng = Random(seed)
    rendered = encode_pool(Basis.load(work / "basis.npz"), seed, POOL, 1.0, everything=True, night=True)
    latents = torch.from_numpy(rendered.latents)
    forward = torch.compile(model)
    budget, step, smooth = Budget(budget_seconds), 0, None
    while budget.fraction < 1.0:
        optimizer.param_groups[0]["lr"] = RATE * learning_rate(budget.fraction)
        picked = [rng.randrange(POOL) for _ in range(BATCH)]
        tokens = encode_prompts(tokenizer, [styled_prompt(rendered, i, rng) for i in picked])
        clean = latents[picked].float()
        sigma, noise = sample_sigmas(BATCH, schedule), torch.randn_like(clean)
        noisy = torch.lerp(clean, noise, sigma[:, None, None])
        with torch.autocast("cpu", torch.bfloat16):
            velocity = forward(noisy, sigma, tokens["input_ids"], tokens["attention_mask"])
        loss = functional.mse_loss(velocity.float(), noise - clean)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        smooth = loss.item() if smooth is None else 0.95 * smooth + 0.05 * loss.item()
        if step % 50 == 0:
            log.info("lora step %d %.0f s loss %.4f", step, budget.spent, smooth)
    matrices = {}
    for name, detour in adapted.items():
        matrices[f"{name}.lora_A.weight"] = detour.down.detach().to(torch.bfloat16).contiguous()
        matrices[f"{name}.lora_B.weight"] = detour.up.detach().to(torch.bfloat16).contiguous()
    (work / "loras").mkdir(exist_ok=True)
    save_file(matrices, work / "loras" / f"{NAME}.safetensors", {"format": "pt"})
    return {"loss": smooth or 0.0, "steps": step, "seconds": budget.spent}
