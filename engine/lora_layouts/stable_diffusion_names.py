"""Names of LoRA files for the modules of Stable Diffusion's networks: diffusers', and those of the original (LDM) UNet.

Names have underscores for dots, which makes them ambiguous; so every name is made from the paths that a model has.

Source: kohya-ss sd-scripts networks/lora.py, library/sdxl_model_util.py (LDM names of SDXL); diffusers
loaders/lora_conversion_utils.py; ComfyUI comfy/lora.py (`clip_l`, `clip_g`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from engine.lora_layouts.rows import Row
from engine.lora_layouts.stable_diffusion_modules import TEXT_ENCODER, TEXT_ENCODER_2, UNET

_TEXT_NAMES: Mapping[str, tuple[str, ...]] = {
    TEXT_ENCODER: ("lora_te1_", "text_encoder_", "te1_", "clip_l_", "text_encoders_clip_l_transformer_"),
    TEXT_ENCODER_2: ("lora_te2_", "text_encoder_2_", "te2_", "clip_g_", "text_encoders_clip_g_transformer_"),
}
_ONLY_TEXT_NAMES = ("lora_te_", "te_", "clip_h_", "text_encoders_clip_h_transformer_")
"""Further names of a text encoder that is the only one."""
_OLD_ATTENTION = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}
"""Names of diffusers before 0.20 for a text encoder's attention."""
_RESNET = {
    "norm1": "in_layers_0",
    "conv1": "in_layers_2",
    "time_emb_proj": "emb_layers_1",
    "norm2": "out_layers_0",
    "conv2": "out_layers_3",
    "conv_shortcut": "skip_connection",
}
_OUTSIDE_BLOCKS = {
    "conv_in": "input_blocks_0_0",
    "time_embedding.linear_1": "time_embed_0",
    "time_embedding.linear_2": "time_embed_2",
    "add_embedding.linear_1": "label_emb_0_0",
    "add_embedding.linear_2": "label_emb_0_2",
    "conv_norm_out": "out_0",
    "conv_out": "out_2",
}


def rows_of(paths: Iterable[str]) -> dict[str, Row]:
    """Rows for all names of these modules; paths begin with their network."""
    by_network: dict[str, list[str]] = {}
    for path in paths:
        network, _, rest = path.partition(".")
        by_network.setdefault(network, []).append(rest)
    found: dict[str, Row] = {}
    encoders = [network for network in by_network if network in _TEXT_NAMES]
    for network in encoders:
        prefixes = (*_TEXT_NAMES[network], *(_ONLY_TEXT_NAMES if len(encoders) == 1 else ()))
        for path in by_network[network]:
            row = Row((f"{network}.{path}",))
            found |= {f"{prefix}{name}": row for name in _text_names(path) for prefix in prefixes}
    unet = by_network.get(UNET, [])
    blocks = _ldm_blocks(unet)
    for path in unet:
        row = Row((f"{UNET}.{path}",))
        found |= dict.fromkeys((*_diffusers_names(path), _ldm_name(path, blocks)), row)
    return found


def _text_names(path: str) -> Iterator[str]:
    """Names of a text encoder's module, with and without `text_model`, which transformers 5 leaves out."""
    rest = path.removeprefix("text_model.")
    *_, holder, last = ("", *rest.split("."))
    ends = [rest]
    if holder == "self_attn" and last in _OLD_ATTENTION:
        ends.append(rest.removesuffix(last) + _OLD_ATTENTION[last])
    for end in ends:
        name = end.replace(".", "_")
        yield name
        yield f"text_model_{name}"


def _diffusers_names(path: str) -> Iterator[str]:
    """Diffusers' names of a UNet's module; older files have `to_out` for `to_out.0`."""
    name = path.replace(".", "_")
    yield name
    if name.endswith("_to_out_0"):
        yield name.removesuffix("_0")


def _ldm_blocks(paths: Iterable[str]) -> dict[str, str]:
    """LDM names of a UNet's blocks by their diffusers paths.

    LDM counts residual blocks and samplers through all levels; an attention and an upsampler are in the block of the
    residual block before them.
    """
    blocks = {_block_of(path) for path in paths}
    found: dict[str, str] = {}
    count = 1
    for level in _levels(blocks, "down_blocks"):
        for number in _numbers(blocks, f"{level}.resnets."):
            found[f"{level}.resnets.{number}"] = f"input_blocks_{count}_0"
            found[f"{level}.attentions.{number}"] = f"input_blocks_{count}_1"
            count += 1
        if f"{level}.downsamplers.0" in blocks:
            found[f"{level}.downsamplers.0"] = f"input_blocks_{count}_0"
            count += 1
    between = int("mid_block.attentions.0" in blocks)
    found["mid_block.resnets.0"], found["mid_block.attentions.0"] = "middle_block_0", "middle_block_1"
    found["mid_block.resnets.1"] = f"middle_block_{1 + between}"
    count = 0
    for level in _levels(blocks, "up_blocks"):
        place = 1
        for number in _numbers(blocks, f"{level}.resnets."):
            found[f"{level}.resnets.{number}"] = f"output_blocks_{count}_0"
            found[f"{level}.attentions.{number}"] = f"output_blocks_{count}_1"
            place = 1 + int(f"{level}.attentions.{number}" in blocks)
            count += 1
        found[f"{level}.upsamplers.0"] = f"output_blocks_{count - 1}_{place}"
    return found


def _levels(blocks: Iterable[str], name: str) -> list[str]:
    levels = {int(block.split(".")[1]) for block in blocks if block.startswith(f"{name}.")}
    return [f"{name}.{level}" for level in sorted(levels)]


def _numbers(blocks: Iterable[str], begin: str) -> list[int]:
    return sorted(int(block.removeprefix(begin)) for block in blocks if block.startswith(begin))


def _ldm_name(path: str, blocks: Mapping[str, str]) -> str:
    """LDM's name of a UNet's module; that of diffusers where LDM has none."""
    if path in _OUTSIDE_BLOCKS:
        return _OUTSIDE_BLOCKS[path]
    block = _block_of(path)
    if block not in blocks:
        return path.replace(".", "_")
    inner = path.removeprefix(f"{block}.")
    if ".resnets." in block:
        inner = _RESNET.get(inner, inner)
    elif ".downsamplers." in block:
        inner = "op"
    return f"{blocks[block]}_{inner.replace('.', '_')}"


def _block_of(path: str) -> str:
    """Path of the residual block, attention or sampler that a module belongs to."""
    segments = path.split(".")
    return ".".join(segments[: 3 if segments[0] == "mid_block" else 4])
