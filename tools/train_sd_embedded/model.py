"""The two trained parts that draw latents: CLIP's text encoder and the U-Net, at small sizes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel

from .geometry import LATENT_CHANNELS, TEXT_ENCODER, UNET
from .noise_levels import SIGMAS
from .tokens import CompactTokens

PEAK, HIDDEN_PEAK = 64.0, 8.0
"""Sizes of the constant channels before the U-Net's last norm, and in the last block's hidden channels."""

LEAST_GATE = 1.5
"""Size without noise of the channels that divide the features."""


def plain_attention(attention, hidden_states, encoder_hidden_states=None, *_, **__):
    """Attention processor of two matrix products, which on a CPU is faster than the fused kernel at this size."""
    context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
    heads = attention.heads

    def split(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)

    query, key, value = (
        split(layer(x))
        for layer, x in ((attention.to_q, hidden_states), (attention.to_k, context), (attention.to_v, context))
    )
    weights = ((query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)).softmax(-1)
    return attention.to_out[0]((weights @ value).transpose(1, 2).flatten(2))


class PlainAttention:
    """`plain_attention` as diffusers wants a processor."""

    def __call__(self, attention, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        return plain_attention(attention, hidden_states, encoder_hidden_states)


class OutputGate:
    """The last residual block of the U-Net and what follows it, constructed so that the prediction is
    `input + features / sqrt(1 + sigma^2)`.

    The noise to predict differs from the input by less and less as the noise grows, and what the difference leaves of
    the clean image is multiplied by sigma. A U-Net that has to learn such a small output precisely learns it slowly.

    Of the 8 groups of channels before the last norm, four have a copy of an input channel (with both signs, because
    SiLU(x) - SiLU(-x) is x) and two constant channels much larger than all others, so that the norm leaves the copy's
    size alone. The other four have two channels that grow with the noise as sqrt(1 + sigma^2), and so the norm divides
    the features beside them. These come from the time embedding through the last group of the block's hidden channels.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        self._unet = unet
        self._block = unet.up_blocks[-1].resnets[-1]
        channels, groups = UNET["block_out_channels"][0], UNET["norm_num_groups"]
        self._channels, self._width = channels, channels // groups
        starts = range(0, channels, self._width)
        self._copies, self._gates = [*starts][:LATENT_CHANNELS], [*starts][LATENT_CHANNELS:]
        self._hidden = channels - self._width

    def _rows(self) -> dict[str, list[int]]:
        """Constructed rows of each parameter."""
        copied = [start + place for start in self._copies for place in range(2)]
        fixed = [start + place for start in self._copies for place in range(4)]
        fixed += [start + place for start in self._gates for place in range(2)]
        hidden = [*range(self._hidden, self._channels)]
        return {
            "conv_in": copied,
            "block.conv1": hidden,
            "block.time_emb_proj": hidden,
            "block.norm2": hidden,
            "block.conv2": fixed,
            "block.conv_shortcut": fixed,
            "conv_norm_out": fixed,
        }

    def _module(self, name: str) -> nn.Module:
        return self._block.get_submodule(name[6:]) if name.startswith("block.") else self._unet.get_submodule(name)

    def _time_weights(self) -> tuple[torch.Tensor, float]:
        """Weights and bias that read sqrt(1 + sigma^2), at most 1, from the time embedding."""
        steps = torch.arange(0.0, 1000.0)
        features = functional.silu(self._unet.time_embedding(self._unet.time_proj(steps))).double()
        wanted = torch.from_numpy((1 + SIGMAS**2) ** 0.5 / (1 + SIGMAS[-1] ** 2) ** 0.5)
        known = torch.cat([features, torch.ones(len(steps), 1)], dim=1)
        known, wanted = known / wanted[:, None].sqrt(), wanted / wanted.sqrt()
        ridge = 1e-5 * torch.eye(known.shape[1]).double()
        solution = torch.linalg.solve(known.T @ known + ridge, known.T @ wanted)
        return solution[:-1].float(), float(solution[-1])

    @torch.no_grad()
    def construct(self) -> None:
        """Set the constructed rows; the features start without effect."""
        unet, block, spread = self._unet, self._block, (2 / self._width) ** 0.5
        for name, rows in self._rows().items():
            module = self._module(name)
            module.weight[rows] = 1.0 if "norm" in name else 0.0
            module.bias[rows] = 0.0
        nn.init.zeros_(unet.conv_out.weight)
        nn.init.zeros_(unet.conv_out.bias)
        skipped = block.conv_shortcut.in_channels - self._channels
        for channel, start in enumerate(self._copies):
            for place, sign in ((start, 1.0), (start + 1, -1.0)):
                unet.conv_in.weight[place, channel, 1, 1] = sign
                block.conv_shortcut.weight[place, skipped + place, 0, 0] = 1.0
                block.conv2.bias[place + 2] = sign * PEAK
                unet.conv_out.weight[channel, place, 1, 1] = sign * PEAK * spread
        weights, bias = self._time_weights()
        greatest = float((1 + SIGMAS[-1] ** 2) ** 0.5)
        first = self._hidden
        for place, sign in ((first, 1.0), (first + 1, -1.0)):
            block.time_emb_proj.weight[place] = sign * weights
            block.time_emb_proj.bias[place] = sign * bias
            block.conv1.bias[place + 2] = sign * HIDDEN_PEAK
            for start in self._gates:
                factor = sign * LEAST_GATE * greatest * HIDDEN_PEAK * spread
                block.conv2.weight[start, place, 1, 1] = factor
                block.conv2.weight[start + 1, place, 1, 1] = -factor

    def freeze(self) -> None:
        """Keep the constructed rows, and the time embedding that they read, from being trained."""
        for parameter in self._unet.time_embedding.parameters():
            parameter.requires_grad_(False)
        for name, rows in self._rows().items():
            for parameter in self._module(name).parameters():
                kept = torch.ones(len(parameter), *[1] * (parameter.ndim - 1))
                kept[rows] = 0.0
                parameter.register_hook(partial(torch.mul, kept))


@torch.no_grad()
def _prepare_unet(unet: UNet2DConditionModel) -> None:
    """Start with residual branches that add nothing."""
    for name, parameter in unet.named_parameters():
        if ".conv2." in name or ".proj_out." in name:
            nn.init.zeros_(parameter)
    OutputGate(unet).construct()


class Drawer(nn.Module):
    """Text encoder and U-Net; the text encoder has a row for each trained token only."""

    def __init__(self, tokens: CompactTokens) -> None:
        super().__init__()
        self.tokens = tokens
        settings = {**TEXT_ENCODER, "vocab_size": len(tokens), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
        self.text_encoder = CLIPTextModel(CLIPTextConfig(**settings, attn_implementation="eager"))
        self.unet = UNet2DConditionModel(**UNET).to(memory_format=torch.channels_last)
        self.unet.set_attn_processor(PlainAttention())
        _prepare_unet(self.unet)
        OutputGate(self.unet).freeze()
        text = getattr(self.text_encoder, "text_model", self.text_encoder)
        nn.init.normal_(text.embeddings.token_embedding.weight, std=0.3)
        nn.init.normal_(text.embeddings.position_embedding.weight, std=0.1)
        self._final = text.final_layer_norm

    def context(self, texts: list[str], clip_skip: int = 1) -> torch.Tensor:
        """Normed hidden states (N x 77 x d) of prompts, `clip_skip` - 1 layers before the last."""
        rows = torch.from_numpy(self.tokens.rows(texts))
        output = self.text_encoder(input_ids=rows, output_hidden_states=clip_skip > 1)
        if clip_skip == 1:
            return output.last_hidden_state
        return self._final(output.hidden_states[-clip_skip])

    def noise(self, scaled: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """The predicted noise in latents N x 4 x h x w of variance 1."""
        return self.unet(scaled, timesteps, encoder_hidden_states=context, return_dict=False)[0]


def full_text_encoder(model: Drawer) -> CLIPTextModel:
    """The text encoder with CLIP's whole vocabulary; every token that was not trained has the same row."""
    encoder = CLIPTextModel(CLIPTextConfig(**TEXT_ENCODER))
    state = {name: value.clone() for name, value in model.text_encoder.state_dict().items()}
    name = next(name for name in state if name.endswith("token_embedding.weight"))
    state[name] = torch.from_numpy(model.tokens.table(state[name].numpy()))
    encoder.load_state_dict(state)
    return encoder


def save_parts(model: Drawer, work: Path) -> None:
    """Write `unet/` and `text_encoder/`."""
    model.unet.save_pretrained(work / "unet")
    full_text_encoder(model).save_pretrained(work / "text_encoder")
