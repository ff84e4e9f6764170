"""Names of a UNet's layers in single files, where they are numbered in the order of the original program.

Source: CompVis/stable-diffusion ldm/modules/diffusionmodules/openaimodel.py; diffusers 0.42
loaders/single_file_utils.py, convert_ldm_unet_checkpoint.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from engine.checkpoints.kinds import NotACheckpoint
from engine.checkpoints.sources import Source, unknown_layer

_RESNET: Mapping[str, str] = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_DOWNSAMPLER: Mapping[str, str] = {"op": "conv"}
_SINGLE: Mapping[str, str] = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_DISORDERED = "Its UNet has layers in an order that is not Stable Diffusion's."

Blocks = dict[int, dict[int, set[str]]]
"""Names of the layers in each numbered module of each numbered block."""


@dataclass(frozen=True, slots=True)
class _Module:
    """Our name of a module, and those of its layers where they have others."""

    name: str
    layers: Mapping[str, str] | None = None


def unet_sources(names: Collection[str], prefix: str) -> dict[str, Source]:
    """Sources of the parameters of a UNet whose tensors have names with this prefix.

    Raises: NotACheckpoint.
    """
    bare = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    modules = dict(_modules(bare))
    return {_parameter(name, modules): Source(prefix + name) for name in bare}


def _parameter(name: str, modules: Mapping[str, _Module]) -> str:
    """Our name of the parameter `name`."""
    layer, _, kind = name.rpartition(".")
    if (single := _SINGLE.get(layer)) is not None:
        return f"{single}.{kind}"
    pieces = layer.split(".")
    for count in (3, 2):  # input_blocks.4.1, middle_block.1
        module = modules.get(".".join(pieces[:count]))
        if module is None:
            continue
        inner = ".".join(pieces[count:])
        ours = inner if module.layers is None else module.layers.get(inner)
        if ours:
            return f"{module.name}.{ours}.{kind}"
    raise unknown_layer("UNet", name)


def _modules(bare: Collection[str]) -> Iterator[tuple[str, _Module]]:
    yield from _down(_blocks(bare, "input_blocks"))
    yield "middle_block.0", _Module("mid_block.resnets.0", _RESNET)
    yield "middle_block.1", _Module("mid_block.attentions.0")
    yield "middle_block.2", _Module("mid_block.resnets.1", _RESNET)
    yield from _up(_blocks(bare, "output_blocks"))


def _blocks(bare: Collection[str], side: str) -> Blocks:
    """The blocks of one way, in their order. Raises: NotACheckpoint where one is missing."""
    found: Blocks = defaultdict(lambda: defaultdict(set))
    for name in bare:
        pieces = name.split(".")
        if pieces[0] == side and len(pieces) > 3 and pieces[1].isdecimal() and pieces[2].isdecimal():
            found[int(pieces[1])][int(pieces[2])].add(pieces[3])
    if not found or max(found) != len(found) - 1:
        raise NotACheckpoint(_DISORDERED)
    return dict(sorted(found.items()))


def _down(blocks: Blocks) -> Iterator[tuple[str, _Module]]:
    level = resnet = 0
    for number, modules in blocks.items():
        place, block = f"input_blocks.{number}", f"down_blocks.{level}"
        if number == 0:
            continue
        if "op" in modules.get(0, ()):
            yield f"{place}.0", _Module(f"{block}.downsamplers.0", _DOWNSAMPLER)
            level, resnet = level + 1, 0
            continue
        yield f"{place}.0", _Module(f"{block}.resnets.{resnet}", _RESNET)
        if 1 in modules:
            yield f"{place}.1", _Module(f"{block}.attentions.{resnet}")
        resnet += 1


def _up(blocks: Blocks) -> Iterator[tuple[str, _Module]]:
    level = resnet = 0
    for number, modules in blocks.items():
        place, block, doubles = f"output_blocks.{number}", f"up_blocks.{level}", False
        yield f"{place}.0", _Module(f"{block}.resnets.{resnet}", _RESNET)
        for index, layers in modules.items():
            if index == 0:
                continue
            doubles = doubles or layers == {"conv"}
            inner = "upsamplers.0" if layers == {"conv"} else f"attentions.{resnet}"
            yield f"{place}.{index}", _Module(f"{block}.{inner}")
        level, resnet = (level + 1, 0) if doubles else (level, resnet + 1)
