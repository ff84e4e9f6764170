"""From the names and shapes of a network's parameters to its sizes.

What shapes do not tell (attention heads, groups of norms, activations) is read from a diffusers folder's configuration,
and for a single file follows from what all published models have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast, get_args

from engine.checkpoints.architecture import (
    Activation,
    ClipArchitecture,
    Level,
    Middle,
    UNetArchitecture,
    VaeArchitecture,
)
from engine.checkpoints.kinds import NotACheckpoint
from engine.checkpoints.sources import Shape, missing_layer

Shapes = Mapping[str, Shape]
"""Shapes by the parameter's name in diffusers and transformers."""
Config = Mapping[str, Any]

HEAD_CHANNELS = 64
"""Channels of an attention head, but in SD 1's UNet."""
SD1_HEADS = 8
MOST_CHANNELS = 2**16
MOST_DEPTH = 64
"""Limits of a width, and of the number of layers of a kind that follow each other."""
_FIXED: Mapping[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "center_input_sample": (False,),
    "class_embed_type": (None,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "downsample_padding": (1,),
    "dual_cross_attention": (False,),
    "encoder_hid_dim_type": (None,),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "mid_block_scale_factor": (1,),
    "norm_eps": (1e-5,),
    "only_cross_attention": (False,),
    "resnet_time_scale_shift": ("default",),
    "time_cond_proj_dim": (None,),
    "time_embedding_type": ("positional",),
    "timestep_post_act": (None,),
}
"""Values that a UNet's configuration may have, where it states them: all that Stable Diffusion has."""


def unet_architecture(shapes: Shapes, config: Config | None = None) -> UNetArchitecture:
    """Sizes of a UNet; of a single file without `config`. Raises: NotACheckpoint."""
    _check(config, _FIXED, "UNet")
    size = _Reader(shapes, "UNet")
    down = _count(lambda level: f"down_blocks.{level}.resnets.0.conv1.weight" in shapes)
    up = _count(lambda level: f"up_blocks.{level}.resnets.0.conv1.weight" in shapes)
    if not 0 < down == up:
        raise missing_layer("UNet", "down_blocks.0.resnets.0" if down == 0 else f"up_blocks.{up}.resnets.0")
    widths = [size(f"down_blocks.{level}.resnets.0.conv1.weight", 0) for level in range(down)]
    is_linear = _is_linear(shapes, config)
    heads = _heads(widths, is_linear, config)
    for number, count in zip(widths, heads, strict=True):
        if count > number or number % count:
            raise NotACheckpoint("Its UNet has attention heads that do not divide its channels.")
    groups = _whole(config, "norm_num_groups", 32, "UNet")
    added = "add_embedding.linear_1.weight"
    return UNetArchitecture(
        in_channels=size("conv_in.weight", 1),
        out_channels=size("conv_out.weight", 0),
        time_channels=size("time_embedding.linear_1.weight", 0),
        context_channels=_context_channels(shapes),
        added_channels=size(added, 1) if added in shapes else None,
        linear_projection=is_linear,
        down=tuple(_level(shapes, f"down_blocks.{i}", widths[i], heads[i], "down") for i in range(down)),
        middle=_middle(shapes, widths[-1], heads[-1]),
        up=tuple(_level(shapes, f"up_blocks.{i}", widths[-1 - i], heads[-1 - i], "up") for i in range(up)),
        groups=_dividing(groups, widths, "UNet"),
    )


def _is_linear(shapes: Shapes, config: Config | None) -> bool:
    """Whether files store the projections of attentions as linear layers."""
    if config is not None:
        return config.get("use_linear_projection") is True
    return any(name.endswith(".proj_in.weight") and len(shape) == 2 for name, shape in shapes.items())


def _context_channels(shapes: Shapes) -> int:
    found = {shape[-1] for name, shape in shapes.items() if name.endswith(".attn2.to_k.weight") and len(shape) == 2}
    if len(found) != 1:
        raise NotACheckpoint("Its UNet has no cross attention, or several that read texts of different widths.")
    return found.pop()


def _level(shapes: Shapes, block: str, channels: int, heads: int, way: str) -> Level:
    resnets = _count(lambda index: f"{block}.resnets.{index}.conv1.weight" in shapes)
    return Level(
        channels=channels,
        heads=heads,
        depths=tuple(_depth(shapes, f"{block}.attentions.{index}") for index in range(resnets)),
        resamples=f"{block}.{way}samplers.0.conv.weight" in shapes,
    )


def _middle(shapes: Shapes, channels: int, heads: int) -> Middle:
    resnets = _count(lambda index: f"mid_block.resnets.{index}.conv1.weight" in shapes)
    depth = _depth(shapes, "mid_block.attentions.0")
    if depth and resnets == 0:
        raise missing_layer("UNet", "mid_block.resnets.0")
    return Middle(channels, heads, resnets, depth)


def _depth(shapes: Shapes, attention: str) -> int:
    return _count(lambda index: f"{attention}.transformer_blocks.{index}.attn1.to_q.weight" in shapes)


def _heads(widths: list[int], is_linear: bool, config: Config | None) -> list[int]:
    """Attention heads of each level. In diffusers' configuration `attention_head_dim` is their number."""
    if config is None:
        return [max(1, width // HEAD_CHANNELS) if is_linear else SD1_HEADS for width in widths]
    stated = config.get("num_attention_heads") or config.get("attention_head_dim", 8)
    heads = stated if isinstance(stated, list) else [stated] * len(widths)
    if len(heads) != len(widths) or not all(type(one) is int and 0 < one <= MOST_CHANNELS for one in heads):
        raise NotACheckpoint("The configuration of its UNet has unusable attention heads.")
    return heads


def clip_architecture(shapes: Shapes, config: Config | None = None, *, is_open_clip: bool = False) -> ClipArchitecture:
    """Sizes of a text encoder; of a single file without `config`. Raises: NotACheckpoint."""
    name = "text encoder"
    _check(config, {"layer_norm_eps": (1e-5,), "hidden_act": get_args(Activation)}, name)
    size = _Reader(shapes, name)
    layers = _count(lambda index: f"text_model.encoder.layers.{index}.mlp.fc1.weight" in shapes)
    if layers == 0:
        raise missing_layer(name, "text_model.encoder.layers.0")
    channels = size("text_model.embeddings.token_embedding.weight", 1)
    heads = _whole(config, "num_attention_heads", max(1, channels // HEAD_CHANNELS), name)
    if channels % heads:
        raise NotACheckpoint("Its text encoder has attention heads that do not divide its channels.")
    usual = "gelu" if is_open_clip else "quick_gelu"
    projection = "text_projection.weight"
    return ClipArchitecture(
        vocabulary=size("text_model.embeddings.token_embedding.weight", 0, most=2**20),
        positions=size("text_model.embeddings.position_embedding.weight", 0),
        channels=channels,
        layers=layers,
        heads=heads,
        feed_forward_channels=size("text_model.encoder.layers.0.mlp.fc1.weight", 0),
        activation=cast(Activation, (config or {}).get("hidden_act", usual)),
        projection_channels=size(projection, 0) if projection in shapes else None,
    )


def vae_architecture(shapes: Shapes, config: Config | None = None) -> VaeArchitecture:
    """Sizes of a VAE; of a single file without `config`. Raises: NotACheckpoint."""
    _check(config, {"act_fn": ("silu", "swish"), "mid_block_add_attention": (True,)}, "VAE")
    size = _Reader(shapes, "VAE")
    levels = _count(lambda level: f"encoder.down_blocks.{level}.resnets.0.conv1.weight" in shapes)
    if levels == 0:
        raise missing_layer("VAE", "encoder.down_blocks.0.resnets.0")
    channels = tuple(size(f"encoder.down_blocks.{level}.resnets.0.conv1.weight", 0) for level in range(levels))
    return VaeArchitecture(
        channels=channels,
        encoder_resnets=_count(lambda index: f"encoder.down_blocks.0.resnets.{index}.conv1.weight" in shapes),
        decoder_resnets=_count(lambda index: f"decoder.up_blocks.0.resnets.{index}.conv1.weight" in shapes),
        latent_channels=size("decoder.conv_in.weight", 1),
        groups=_dividing(_whole(config, "norm_num_groups", 32, "VAE"), channels, "VAE"),
    )


class _Reader:
    """Sizes of the parameters of a network."""

    def __init__(self, shapes: Shapes, network: str) -> None:
        self._shapes, self._network = shapes, network

    def __call__(self, name: str, axis: int, *, most: int = MOST_CHANNELS) -> int:
        """Size of a parameter along an axis. Raises: NotACheckpoint."""
        shape = self._shapes.get(name)
        if shape is None:
            raise missing_layer(self._network, name)
        if axis >= len(shape) or not 0 < shape[axis] <= most:
            raise NotACheckpoint(f"Its {self._network} has a size that Stable Diffusion has not: {name}.")
        return shape[axis]


def _count(is_there: Callable[[int], bool]) -> int:
    """How many numbers from 0 on are there. Raises: NotACheckpoint for more than a network has."""
    number = 0
    while is_there(number):
        number += 1
        if number > MOST_DEPTH:
            raise NotACheckpoint("It has more layers than Stable Diffusion.")
    return number


def _whole(config: Config | None, key: str, default: int, network: str) -> int:
    """A positive whole number of a configuration. Raises: NotACheckpoint."""
    number = (config or {}).get(key, default)
    if type(number) is not int or not 0 < number <= MOST_CHANNELS:
        raise NotACheckpoint(f"The configuration of its {network} has an unusable {key}.")
    return number


def _dividing(groups: int, widths: list[int] | tuple[int, ...], network: str) -> int:
    """The number of groups, if it divides all widths. Raises: NotACheckpoint."""
    if any(width % groups for width in widths):
        raise NotACheckpoint(f"Its {network} has norms whose groups do not divide its channels.")
    return groups


def _check(config: Config | None, allowed: Mapping[str, tuple[Any, ...]], network: str) -> None:
    """Raises: NotACheckpoint where a configuration states what no network here can do."""
    for key, values in allowed.items():
        if config is not None and key in config and config[key] not in values:
            raise NotACheckpoint(f"The configuration of its {network} has a {key} that is not supported.")
