"""Tensors of tiny Stable Diffusion networks with random weights, under the names of both forms of a checkpoint.

Only NumPy: the values follow from the name of a tensor and a seed, so nothing of them has to be stored.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np

Family = Literal["sd1", "sd2", "sdxl", "sdxl_refiner"]
Floats = np.ndarray

VOCABULARY = 49408
POSITIONS = 77
SIZE_CHANNELS = 256
"""Width of the embedding of one number of SDXL's sizes."""
_POOL = 262_147
"""Random numbers that the tensors are cut from: a prime number, so that the rows of a tensor differ."""


@dataclass(frozen=True)
class ToyText:
    """Sizes of a text encoder. `layers` are those of a single file."""

    part: str
    """Its folder in the diffusers form."""
    prefix: str
    """Prefix of its names in a single file."""
    is_open_clip: bool
    width: int
    heads: int
    layers: int = 3
    projection: int | None = None
    activation: str = "gelu"


@dataclass(frozen=True)
class ToySizes:
    """Sizes of a checkpoint."""

    channels: tuple[int, ...]
    depths: tuple[int, ...]
    """Transformer blocks of each attention of a level."""
    heads: tuple[int, ...]
    context: int
    texts: tuple[ToyText, ...]
    added: int | None = None
    linear_projection: bool = True
    mid_depth: int = 1
    vae_channels: tuple[int, ...] = (32, 64, 64, 64)
    vae_groups: int = 32
    groups: int = 32


_CLIP_L = ToyText("text_encoder", "cond_stage_model.transformer.text_model.", False, 32, 1, activation="quick_gelu")
_OPEN_CLIP_H = ToyText("text_encoder", "cond_stage_model.model.", True, 64, 1)
_XL_CLIP_L = ToyText(
    "text_encoder", "conditioner.embedders.0.transformer.text_model.", False, 32, 1, activation="quick_gelu"
)
_XL_BIG_G = ToyText("text_encoder_2", "conditioner.embedders.1.model.", True, 64, 1, projection=64)
_REFINER_BIG_G = ToyText("text_encoder_2", "conditioner.embedders.0.model.", True, 64, 1, projection=64)

TOY_SIZES: dict[Family, ToySizes] = {
    "sd1": ToySizes((32, 64, 64, 64), (1, 1, 1, 0), (8, 8, 8, 8), 32, (_CLIP_L,), linear_projection=False),
    "sd2": ToySizes((32, 64, 64, 128), (1, 1, 1, 0), (1, 1, 1, 2), 64, (_OPEN_CLIP_H,)),
    "sdxl": ToySizes(
        (32, 64, 128), (0, 1, 2), (1, 1, 2), 96, (_XL_CLIP_L, _XL_BIG_G), added=64 + 6 * SIZE_CHANNELS, mid_depth=2
    ),
    "sdxl_refiner": ToySizes(
        (32, 64, 64, 128), (0, 1, 1, 0), (1, 1, 1, 2), 64, (_REFINER_BIG_G,), added=64 + 5 * SIZE_CHANNELS
    ),
}
"""Small sizes that agree with what is derived from a single file: eight heads in SD 1, else 64 channels a head."""
NARROW_VAE = (32, 32, 32, 64)
"""Channels of a VAE for tests that draw many images: it takes half the time."""


@dataclass(frozen=True)
class ToyTensor:
    """One tensor: where the diffusers form has it, and where a single file."""

    part: str
    name: str
    shape: tuple[int, ...]
    original: str
    third: int | None = None
    """Which third of the rows of the tensor in the single file it is."""
    change: Literal["", "transposed", "convolution"] = ""
    """How a single file stores it."""

    def values(self, seed: int) -> Floats:
        """Float32 values in the shape of the diffusers form."""
        return toy_values(f"{self.part}/{self.name}", self.shape, seed)

    def stored(self, values: Floats) -> Floats:
        """The values as a single file stores them."""
        if self.change == "transposed":
            return np.ascontiguousarray(values.T)
        return values[:, :, None, None] if self.change == "convolution" else values


@lru_cache(maxsize=4)
def _pool(seed: int) -> Floats:
    return np.tile(np.random.default_rng(seed).standard_normal(_POOL, dtype=np.float32), 2)


def toy_values(name: str, shape: tuple[int, ...], seed: int) -> Floats:
    """Float32 values of a tensor: of norms around 1 and 0, of other layers such that their outputs stay near 1."""
    count, start = int(np.prod(shape)), zlib.crc32(name.encode()) % _POOL
    values = np.resize(_pool(seed)[start : start + min(count, _POOL)], shape)
    if name.endswith(".bias"):
        return values * np.float32(0.05)
    if len(shape) == 1:
        return 1 + values * np.float32(0.1)
    if "embedding.weight" in name:
        return values * np.float32(0.3)
    return values / np.float32(np.sqrt(np.prod(shape[1:])))


@dataclass
class _Part:
    """Tensors of one network, collected layer by layer."""

    part: str
    prefix: str
    tensors: list[ToyTensor] = field(default_factory=list)

    def add(self, name: str, original: str, shape: tuple[int, ...], **how: object) -> None:
        self.tensors.append(ToyTensor(self.part, name, shape, self.prefix + original, **how))  # type: ignore[arg-type]

    def layer(self, name: str, original: str, *shape: int, bias: bool = True, change: str = "") -> None:
        """A convolution (out, in, height, width), a linear layer (out, in) or a norm (channels,)."""
        self.add(f"{name}.weight", f"{original}.weight", shape, change=change)
        if bias:
            self.add(f"{name}.bias", f"{original}.bias", shape[:1])


def toy_tensors(family: Family, sizes: ToySizes | None = None, *, in_channels: int = 4) -> Iterator[ToyTensor]:
    """All tensors of a checkpoint; the text encoders with all layers of a single file."""
    sizes = sizes or TOY_SIZES[family]
    yield from unet_tensors(sizes, in_channels)
    for text in sizes.texts:
        yield from (open_clip_tensors(text) if text.is_open_clip else clip_tensors(text))
    yield from vae_tensors(sizes.vae_channels)


def unet_tensors(sizes: ToySizes, in_channels: int = 4) -> list[ToyTensor]:
    unet = _Part("unet", "model.diffusion_model.")
    channels, time = sizes.channels, 4 * sizes.channels[0]
    unet.layer("time_embedding.linear_1", "time_embed.0", time, channels[0])
    unet.layer("time_embedding.linear_2", "time_embed.2", time, time)
    if sizes.added is not None:
        unet.layer("add_embedding.linear_1", "label_emb.0.0", time, sizes.added)
        unet.layer("add_embedding.linear_2", "label_emb.0.2", time, time)
    unet.layer("conv_in", "input_blocks.0.0", channels[0], in_channels, 3, 3)
    number, now, skips = 1, channels[0], [channels[0]]
    for level, width in enumerate(channels):
        for index in range(2):
            _resnet(unet, f"down_blocks.{level}.resnets.{index}", f"input_blocks.{number}.0", now, width, time)
            if depth := sizes.depths[level]:
                name = f"down_blocks.{level}.attentions.{index}"
                _attention(unet, name, f"input_blocks.{number}.1", width, depth, sizes)
            now, number = width, number + 1
            skips.append(now)
        if level < len(channels) - 1:
            unet.layer(f"down_blocks.{level}.downsamplers.0.conv", f"input_blocks.{number}.0.op", now, now, 3, 3)
            number += 1
            skips.append(now)
    _resnet(unet, "mid_block.resnets.0", "middle_block.0", now, now, time)
    _attention(unet, "mid_block.attentions.0", "middle_block.1", now, sizes.mid_depth, sizes)
    _resnet(unet, "mid_block.resnets.1", "middle_block.2", now, now, time)
    number = 0
    for block, width in enumerate(reversed(channels)):
        depth, last = sizes.depths[-1 - block], block == len(channels) - 1
        for index in range(3):
            name, original = f"up_blocks.{block}", f"output_blocks.{number}"
            _resnet(unet, f"{name}.resnets.{index}", f"{original}.0", now + skips.pop(), width, time)
            if depth:
                _attention(unet, f"{name}.attentions.{index}", f"{original}.1", width, depth, sizes)
            if index == 2 and not last:
                unet.layer(f"{name}.upsamplers.0.conv", f"{original}.{2 if depth else 1}.conv", width, width, 3, 3)
            now, number = width, number + 1
    unet.layer("conv_norm_out", "out.0", now)
    unet.layer("conv_out", "out.2", 4, now, 3, 3)
    return unet.tensors


def _resnet(unet: _Part, name: str, original: str, inputs: int, outputs: int, time: int) -> None:
    unet.layer(f"{name}.norm1", f"{original}.in_layers.0", inputs)
    unet.layer(f"{name}.conv1", f"{original}.in_layers.2", outputs, inputs, 3, 3)
    unet.layer(f"{name}.time_emb_proj", f"{original}.emb_layers.1", outputs, time)
    unet.layer(f"{name}.norm2", f"{original}.out_layers.0", outputs)
    unet.layer(f"{name}.conv2", f"{original}.out_layers.3", outputs, outputs, 3, 3)
    if inputs != outputs:
        unet.layer(f"{name}.conv_shortcut", f"{original}.skip_connection", outputs, inputs, 1, 1)


def _attention(unet: _Part, name: str, original: str, width: int, depth: int, sizes: ToySizes) -> None:
    kernel = () if sizes.linear_projection else (1, 1)
    unet.layer(f"{name}.norm", f"{original}.norm", width)
    unet.layer(f"{name}.proj_in", f"{original}.proj_in", width, width, *kernel)
    for index in range(depth):
        ours, theirs = (f"{place}.transformer_blocks.{index}" for place in (name, original))
        for attention, inputs in (("attn1", width), ("attn2", sizes.context)):
            for layer, size in (("to_q", width), ("to_k", inputs), ("to_v", inputs)):
                unet.layer(f"{ours}.{attention}.{layer}", f"{theirs}.{attention}.{layer}", width, size, bias=False)
            unet.layer(f"{ours}.{attention}.to_out.0", f"{theirs}.{attention}.to_out.0", width, width)
        unet.layer(f"{ours}.ff.net.0.proj", f"{theirs}.ff.net.0.proj", 8 * width, width)
        unet.layer(f"{ours}.ff.net.2", f"{theirs}.ff.net.2", width, 4 * width)
        for norm in ("norm1", "norm2", "norm3"):
            unet.layer(f"{ours}.{norm}", f"{theirs}.{norm}", width)
    unet.layer(f"{name}.proj_out", f"{original}.proj_out", width, width, *kernel)


def clip_tensors(sizes: ToyText) -> list[ToyTensor]:
    """A text encoder that a single file stores under the names of transformers."""
    text = _Part(sizes.part, sizes.prefix)
    for name in _text_tables(sizes, text):
        text.layer(f"text_model.{name}", name, sizes.width)
    for index in range(sizes.layers):
        for name, *shape in _text_layers(sizes.width):
            place = f"encoder.layers.{index}.{name}"
            text.layer(f"text_model.{place}", place, *shape)
    return text.tensors


def _text_tables(sizes: ToyText, text: _Part) -> tuple[str, ...]:
    """Add the tables of embeddings; the names of the single norms."""
    for name, rows in (("token_embedding", VOCABULARY), ("position_embedding", POSITIONS)):
        place = f"embeddings.{name}.weight"
        original = place if not sizes.is_open_clip else _OPEN_CLIP_TABLES[name]
        text.add(f"text_model.{place}", original, (rows, sizes.width))
    return ("final_layer_norm",)


_OPEN_CLIP_TABLES = {"token_embedding": "token_embedding.weight", "position_embedding": "positional_embedding"}


def _text_layers(width: int) -> tuple[tuple[str, *tuple[int, ...]], ...]:
    attention = ("q_proj", "k_proj", "v_proj", "out_proj")
    return (
        *((f"self_attn.{name}", width, width) for name in attention),
        ("layer_norm1", width),
        ("layer_norm2", width),
        ("mlp.fc1", 4 * width, width),
        ("mlp.fc2", width, 4 * width),
    )


_OPEN_CLIP_LAYERS = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def open_clip_tensors(sizes: ToyText) -> list[ToyTensor]:
    """A text encoder that a single file stores under the names of OpenCLIP."""
    text = _Part(sizes.part, sizes.prefix)
    for name in _text_tables(sizes, text):
        text.layer(f"text_model.{name}", "ln_final", sizes.width)
    for index in range(sizes.layers):
        for name, *shape in _text_layers(sizes.width):
            ours, theirs = f"text_model.encoder.layers.{index}.{name}", f"transformer.resblocks.{index}"
            if name in _OPEN_CLIP_LAYERS:
                text.layer(ours, f"{theirs}.{_OPEN_CLIP_LAYERS[name]}", *shape)
                continue
            third = ("q_proj", "k_proj", "v_proj").index(name.rpartition(".")[2])
            text.add(f"{ours}.weight", f"{theirs}.attn.in_proj_weight", tuple(shape), third=third)
            text.add(f"{ours}.bias", f"{theirs}.attn.in_proj_bias", tuple(shape[:1]), third=third)
    if sizes.projection is not None:
        shape = sizes.projection, sizes.width
        text.add("text_projection.weight", "text_projection", shape, change="transposed")
    return text.tensors


def vae_tensors(channels: tuple[int, ...]) -> list[ToyTensor]:
    vae = _Part("vae", "first_stage_model.")
    last = channels[-1]
    vae.layer("encoder.conv_in", "encoder.conv_in", channels[0], 3, 3, 3)
    now = channels[0]
    for level, width in enumerate(channels):
        for index in range(2):
            name, original = f"encoder.down_blocks.{level}.resnets.{index}", f"encoder.down.{level}.block.{index}"
            _vae_resnet(vae, name, original, now, width)
            now = width
        if level < len(channels) - 1:
            name, original = f"encoder.down_blocks.{level}.downsamplers.0.conv", f"encoder.down.{level}.downsample.conv"
            vae.layer(name, original, now, now, 3, 3)
    _vae_middle(vae, "encoder", last)
    vae.layer("encoder.conv_norm_out", "encoder.norm_out", last)
    vae.layer("encoder.conv_out", "encoder.conv_out", 8, last, 3, 3)
    vae.layer("quant_conv", "quant_conv", 8, 8, 1, 1)
    vae.layer("post_quant_conv", "post_quant_conv", 4, 4, 1, 1)
    vae.layer("decoder.conv_in", "decoder.conv_in", last, 4, 3, 3)
    _vae_middle(vae, "decoder", last)
    now = last
    for block, width in enumerate(reversed(channels)):
        level = len(channels) - 1 - block
        for index in range(3):
            name, original = f"decoder.up_blocks.{block}.resnets.{index}", f"decoder.up.{level}.block.{index}"
            _vae_resnet(vae, name, original, now, width)
            now = width
        if level > 0:
            name, original = f"decoder.up_blocks.{block}.upsamplers.0.conv", f"decoder.up.{level}.upsample.conv"
            vae.layer(name, original, now, now, 3, 3)
    vae.layer("decoder.conv_norm_out", "decoder.norm_out", now)
    vae.layer("decoder.conv_out", "decoder.conv_out", 3, now, 3, 3)
    return vae.tensors


def _vae_resnet(vae: _Part, name: str, original: str, inputs: int, outputs: int) -> None:
    vae.layer(f"{name}.norm1", f"{original}.norm1", inputs)
    vae.layer(f"{name}.conv1", f"{original}.conv1", outputs, inputs, 3, 3)
    vae.layer(f"{name}.norm2", f"{original}.norm2", outputs)
    vae.layer(f"{name}.conv2", f"{original}.conv2", outputs, outputs, 3, 3)
    if inputs != outputs:
        vae.layer(f"{name}.conv_shortcut", f"{original}.nin_shortcut", outputs, inputs, 1, 1)


def _vae_middle(vae: _Part, side: str, width: int) -> None:
    _vae_resnet(vae, f"{side}.mid_block.resnets.0", f"{side}.mid.block_1", width, width)
    _vae_resnet(vae, f"{side}.mid_block.resnets.1", f"{side}.mid.block_2", width, width)
    name, original = f"{side}.mid_block.attentions.0", f"{side}.mid.attn_1"
    vae.layer(f"{name}.group_norm", f"{original}.norm", width)
    for ours, theirs in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")):
        vae.layer(f"{name}.{ours}", f"{original}.{theirs}", width, width, change="convolution")
