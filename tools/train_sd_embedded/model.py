"""The two trained parts that draw latents: CLIP's text encoder and the U-Net, at small sizes."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from .geometry import LATENT_CHANNELS, TEXT_ENCODER, UNET
from .tokens import CompactTokens

PEAK = 8.0
"""Size of the constant channels before the U-Net's last norm."""


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


@torch.no_grad()
def _prepare_unet(unet: UNet2DConditionModel) -> None:
    """Start with the noise that the input itself is, and with residual branches that add nothing.

    With much noise the input is nearly all noise, and a U-Net that has to learn even to copy it learns what to draw
    only afterwards. Channels that are larger than all others keep the last norm from changing the copy's size.
    """
    for name, parameter in unet.named_parameters():
        if ".conv2." in name or ".proj_out." in name:
            nn.init.zeros_(parameter)
    width = UNET["block_out_channels"][0] // UNET["norm_num_groups"]
    last = unet.up_blocks[-1].resnets[-1]
    skipped = last.conv_shortcut.in_channels - UNET["block_out_channels"][0]
    spread = PEAK * (2 / width) ** 0.5
    nn.init.zeros_(unet.conv_out.weight)
    nn.init.zeros_(unet.conv_out.bias)
    for channel in range(LATENT_CHANNELS):
        first = channel * width
        for place, sign in ((first, 1.0), (first + 1, -1.0)):
            unet.conv_in.weight[place] = 0.0
            unet.conv_in.bias[place] = 0.0
            unet.conv_in.weight[place, channel, 1, 1] = sign
            last.conv_shortcut.weight[place] = 0.0
            last.conv_shortcut.bias[place] = 0.0
            last.conv_shortcut.weight[place, skipped + place, 0, 0] = 1.0
            unet.conv_out.weight[channel, place, 1, 1] = sign * spread
        for place, sign in ((first + 2, 1.0), (first + 3, -1.0)):
            last.conv_shortcut.weight[place] = 0.0
            last.conv_shortcut.bias[place] = 0.0
            last.conv2.bias[place] = sign * PEAK


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
