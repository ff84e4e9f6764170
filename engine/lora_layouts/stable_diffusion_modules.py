"""Modules of Stable Diffusion's networks that LoRAs can change, by their diffusers and transformers paths.

Each list is a function of a network's sizes. Paths begin with the network: `unet`, `text_encoder`, `text_encoder_2`.

Source: diffusers 0.42 models/unets/unet_2d_condition.py, unet_2d_blocks.py; transformers models/clip/modeling_clip.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from engine.lora_layouts.sheets import Module

UNET, TEXT_ENCODER, TEXT_ENCODER_2 = "unet", "text_encoder", "text_encoder_2"
Modules = Iterator[tuple[str, Module]]


@dataclass(frozen=True, slots=True)
class UNetSizes:
    """Sizes of a UNet. `channels` and `depths` have one number for each level: its width, and the transformer blocks of
    each of its attentions (0: no attention).
    """

    channels: tuple[int, ...]
    depths: tuple[int, ...]
    middle_depth: int
    context: int
    """Width of the text encoders' output."""
    added: int | None = None
    """Width of the pooled text and size embeddings; None where there are none."""
    inputs: int = 4
    """Channels of the latents, 9 with mask and masked image."""
    resnets: int = 2
    """Residual blocks of a level on the way down; one more on the way up."""


@dataclass(frozen=True, slots=True)
class TextSizes:
    """Sizes of a CLIP text encoder. `projected` is the width of its text projection, None without one."""

    width: int
    layers: int
    projected: int | None = None


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of the networks of a model, text encoders by their names."""

    unet: UNetSizes
    text_encoders: Mapping[str, TextSizes]


_SD1 = UNetSizes((320, 640, 1280, 1280), (1, 1, 1, 0), 1, 768)
_CLIP_L, _OPEN_CLIP_H, _BIG_G = TextSizes(768, 12), TextSizes(1024, 23), TextSizes(1280, 32, 1280)
STANDARD: Mapping[str, Sizes] = {
    "sd1": Sizes(_SD1, {TEXT_ENCODER: _CLIP_L}),
    "sd2": Sizes(UNetSizes(_SD1.channels, _SD1.depths, 1, 1024), {TEXT_ENCODER: _OPEN_CLIP_H}),
    "sdxl": Sizes(
        UNetSizes((320, 640, 1280), (0, 2, 10), 10, 2048, 2816), {TEXT_ENCODER: _CLIP_L, TEXT_ENCODER_2: _BIG_G}
    ),
    "sdxl_refiner": Sizes(UNetSizes((384, 768, 1536, 1536), (0, 4, 4, 0), 4, 1280, 2560), {TEXT_ENCODER_2: _BIG_G}),
}
"""Sizes of the published models, by family. SD 2 reads the last layer but one of its text encoder, which has 24."""


def modules_of(sizes: Sizes) -> dict[str, Module]:
    """All modules of a model that LoRAs can change, with their paths."""
    found = {f"{UNET}.{path}": module for path, module in _unet(sizes.unet)}
    for name, text in sizes.text_encoders.items():
        found |= {f"{name}.{path}": module for path, module in _text_encoder(text)}
    return found


def _unet(sizes: UNetSizes) -> Modules:
    channels, time = sizes.channels, 4 * sizes.channels[0]
    yield "conv_in", Module(channels[0], sizes.inputs, bias=True, kernel=3)
    yield from _two("time_embedding", channels[0], time)
    if sizes.added is not None:
        yield from _two("add_embedding", sizes.added, time)
    yield from _down(sizes, time)
    deepest = channels[-1]
    yield from _resnet("mid_block.resnets.0", deepest, deepest, time)
    if sizes.middle_depth:
        yield from _attention("mid_block.attentions.0", deepest, sizes.middle_depth, sizes.context)
    yield from _resnet("mid_block.resnets.1", deepest, deepest, time)
    yield from _up(sizes, time)
    yield "conv_norm_out", _norm(channels[0])
    yield "conv_out", Module(4, channels[0], bias=True, kernel=3)


def _down(sizes: UNetSizes, time: int) -> Modules:
    before = sizes.channels[0]
    for level, (width, depth) in enumerate(zip(sizes.channels, sizes.depths, strict=True)):
        block = f"down_blocks.{level}"
        for number in range(sizes.resnets):
            yield from _resnet(f"{block}.resnets.{number}", before, width, time)
            before = width
            if depth:
                yield from _attention(f"{block}.attentions.{number}", width, depth, sizes.context)
        if level < len(sizes.channels) - 1:
            yield f"{block}.downsamplers.0.conv", Module(width, width, bias=True, kernel=3)


def _up(sizes: UNetSizes, time: int) -> Modules:
    before = sizes.channels[-1]
    upwards = tuple(zip(sizes.channels, sizes.depths, strict=True))[::-1]
    for level, (width, depth) in enumerate(upwards):
        block = f"up_blocks.{level}"
        skipped_last = upwards[min(level + 1, len(upwards) - 1)][0]
        for number in range(sizes.resnets + 1):
            skipped = skipped_last if number == sizes.resnets else width
            yield from _resnet(f"{block}.resnets.{number}", before + skipped, width, time)
            before = width
            if depth:
                yield from _attention(f"{block}.attentions.{number}", width, depth, sizes.context)
        if level < len(upwards) - 1:
            yield f"{block}.upsamplers.0.conv", Module(width, width, bias=True, kernel=3)


def _two(name: str, inputs: int, outputs: int) -> Modules:
    yield f"{name}.linear_1", Module(outputs, inputs, bias=True)
    yield f"{name}.linear_2", Module(outputs, outputs, bias=True)


def _resnet(path: str, inputs: int, outputs: int, time: int) -> Modules:
    yield f"{path}.norm1", _norm(inputs)
    yield f"{path}.conv1", Module(outputs, inputs, bias=True, kernel=3)
    yield f"{path}.time_emb_proj", Module(outputs, time, bias=True)
    yield f"{path}.norm2", _norm(outputs)
    yield f"{path}.conv2", Module(outputs, outputs, bias=True, kernel=3)
    if inputs != outputs:
        yield f"{path}.conv_shortcut", Module(outputs, inputs, bias=True)


def _attention(path: str, width: int, depth: int, context: int) -> Modules:
    yield f"{path}.norm", _norm(width)
    yield f"{path}.proj_in", Module(width, width, bias=True)
    for number in range(depth):
        block = f"{path}.transformer_blocks.{number}"
        for norm in ("norm1", "norm2", "norm3"):
            yield f"{block}.{norm}", _norm(width)
        for attention, source in (("attn1", width), ("attn2", context)):
            yield f"{block}.{attention}.to_q", Module(width, width)
            yield f"{block}.{attention}.to_k", Module(width, source)
            yield f"{block}.{attention}.to_v", Module(width, source)
            yield f"{block}.{attention}.to_out.0", Module(width, width, bias=True)
        yield f"{block}.ff.net.0.proj", Module(8 * width, width, bias=True)
        yield f"{block}.ff.net.2", Module(width, 4 * width, bias=True)
    yield f"{path}.proj_out", Module(width, width, bias=True)


def _text_encoder(sizes: TextSizes) -> Modules:
    width = sizes.width
    for number in range(sizes.layers):
        layer = f"text_model.encoder.layers.{number}"
        for one in ("q", "k", "v", "out"):
            yield f"{layer}.self_attn.{one}_proj", Module(width, width, bias=True)
        yield f"{layer}.layer_norm1", _norm(width)
        yield f"{layer}.layer_norm2", _norm(width)
        yield f"{layer}.mlp.fc1", Module(4 * width, width, bias=True)
        yield f"{layer}.mlp.fc2", Module(width, 4 * width, bias=True)
    yield "text_model.final_layer_norm", _norm(width)
    if sizes.projected is not None:
        yield "text_projection", Module(sizes.projected, width)


def _norm(width: int) -> Module:
    return Module(width, None, bias=True)
