"""Names of a VAE's layers: the original ones, diffusers', and diffusers' old ones of the attention.

Source: CompVis/stable-diffusion ldm/modules/diffusionmodules/model.py; diffusers 0.42 loaders/single_file_utils.py,
convert_ldm_vae_checkpoint, and models/modeling_utils.py, _convert_deprecated_attention_blocks.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from engine.checkpoints.sources import Source

PREFIX = "first_stage_model."
_ROOTS, _KINDS = frozenset({"encoder", "decoder", "quant_conv", "post_quant_conv"}), frozenset({"weight", "bias"})
_BLOCK = re.compile(r"(encoder|decoder)\.(down|up)\.([0-9]++)\.block\.([0-9]++)\.(.++)")
_SAMPLER = re.compile(r"(encoder|decoder)\.(down|up)\.([0-9]++)\.(?:down|up)sample\.conv\.(.++)")
_MIDDLE = re.compile(r"(encoder|decoder)\.mid\.(block_1|block_2|attn_1)\.(.++)")
_MIDDLES: Mapping[str, str] = {"block_1": "resnets.0", "block_2": "resnets.1", "attn_1": "attentions.0"}
_ATTENTION: Mapping[str, str] = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_OLD_ATTENTION: Mapping[str, str] = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def vae_sources(names: Collection[str]) -> dict[str, Source]:
    """Sources of a VAE's parameters, with or without `first_stage_model.` before their names.

    Other tensors are not parameters: files of VAEs also hold losses and averaged copies.
    """
    has_prefix = any(name.startswith(PREFIX) for name in names)
    prefix = PREFIX if has_prefix else ""
    bare = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    bare = [name for name in bare if name.partition(".")[0] in _ROOTS and name.rpartition(".")[2] in _KINDS]
    if any("_blocks." in name or ".mid_block." in name for name in bare):
        return {_renewed(name): Source(prefix + name) for name in bare}
    levels = 1 + max((int(found[3]) for name in bare if (found := _BLOCK.fullmatch(name)) is not None), default=0)
    return {_ours(name, levels): Source(prefix + name) for name in bare}


def _renewed(name: str) -> str:
    """Diffusers' name of today for a parameter of the attention."""
    before, _, kind = name.rpartition(".")
    attention, _, layer = before.rpartition(".")
    if not attention.endswith(".attentions.0"):
        return name
    return f"{attention}.{_OLD_ATTENTION.get(layer, layer)}.{kind}"


def _ours(name: str, levels: int) -> str:
    """Our name of an original one. The decoder's levels are counted from its end in the original."""
    if (block := _BLOCK.fullmatch(name)) is not None:
        inner = block[5].replace("nin_shortcut", "conv_shortcut")
        return f"{block[1]}.{_level(block[2], int(block[3]), levels)}.resnets.{int(block[4])}.{inner}"
    if (sampler := _SAMPLER.fullmatch(name)) is not None:
        level = _level(sampler[2], int(sampler[3]), levels)
        return f"{sampler[1]}.{level}.{sampler[2]}samplers.0.conv.{sampler[4]}"
    if (middle := _MIDDLE.fullmatch(name)) is not None:
        layer, _, kind = middle[3].rpartition(".")
        inner = _ATTENTION.get(layer, layer) if middle[2] == "attn_1" else layer
        return f"{middle[1]}.mid_block.{_MIDDLES[middle[2]]}.{inner}.{kind}"
    return name.replace(".norm_out.", ".conv_norm_out.")


def _level(way: str, level: int, levels: int) -> str:
    return f"down_blocks.{level}" if way == "down" else f"up_blocks.{levels - 1 - level}"
