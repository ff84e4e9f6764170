"""Rows of the LoRA table that mflux's mappings lack: from layer names of public layouts to modules of mflux's model.

In a layer's name dots are underscores, and `#` is the number of its block. Several modules are rows of one matrix, in
this order. A `swapped` module has its two halves exchanged (BFL's shift and scale are diffusers' scale and shift).

Source: BFL's and diffusers' checkpoints of each model; XLabs' flux processors; OneTrainer's and kohya's key names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """Modules that one layer of a file stands for."""

    modules: tuple[str, ...]
    swapped: bool = False


Rows = Mapping[str, Row]


def _rows(modules_of: Mapping[str, str | tuple[str, ...]]) -> Iterator[tuple[str, Row]]:
    for layer, modules in modules_of.items():
        yield layer, Row((modules,) if isinstance(modules, str) else modules)


def _swapped_rows(modules_of: Mapping[str, str]) -> Iterator[tuple[str, Row]]:
    for layer, module in modules_of.items():
        yield layer, Row((module,), swapped=True)


_DOUBLE, _SINGLE = "transformer_blocks.#", "single_transformer_blocks.#"
_IMAGE = tuple(f"{_DOUBLE}.attn.to_{one}" for one in "qkv")
_TEXT = tuple(f"{_DOUBLE}.attn.add_{one}_proj" for one in "qkv")


def _flux_norms() -> dict[str, str]:
    """BFL's norms of queries and keys, whose weight some files call `scale`."""
    found = {}
    for end in ("", "_scale"):
        for kind, short in (("query", "q"), ("key", "k")):
            found[f"double_blocks_#_img_attn_norm_{kind}_norm{end}"] = f"{_DOUBLE}.attn.norm_{short}"
            found[f"double_blocks_#_txt_attn_norm_{kind}_norm{end}"] = f"{_DOUBLE}.attn.norm_added_{short}"
            found[f"single_blocks_#_norm_{kind}_norm{end}"] = f"{_SINGLE}.attn.norm_{short}"
    return found


def _xlabs(image_out: str, text_out: str) -> dict[str, str | tuple[str, ...]]:
    """XLabs' processors of double blocks: 1 is the image's, 2 the text's. Only `key_of` removes `processor`."""
    found: dict[str, str | tuple[str, ...]] = {}
    for begin in ("double_blocks_#", "double_blocks_#_processor"):
        found[f"{begin}_qkv_lora1"], found[f"{begin}_qkv_lora2"] = _IMAGE, _TEXT
        found[f"{begin}_proj_lora1"], found[f"{begin}_proj_lora2"] = image_out, text_out
    return found


_SINGLE_QKV = tuple(f"{_SINGLE}.attn.to_{one}" for one in "qkv")
_FLUX1: dict[str, str | tuple[str, ...]] = {
    **_xlabs(f"{_DOUBLE}.attn.to_out.0", f"{_DOUBLE}.attn.to_add_out"),
    **_flux_norms(),
    "single_blocks_#_qkv": _SINGLE_QKV,
    "single_blocks_#_proj": f"{_SINGLE}.proj_out",
    "single_blocks_#_processor_qkv_lora": _SINGLE_QKV,
    "single_blocks_#_processor_proj_lora": f"{_SINGLE}.proj_out",
    "transformer_blocks_#_attn_to_out": f"{_DOUBLE}.attn.to_out.0",
    "transformer_blocks_#_attn_to_qkv": _IMAGE,
    "transformer_blocks_#_attn_add_qkv_proj": _TEXT,
    "transformer_blocks_#_attn_to_added_qkv": _TEXT,
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in_in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in_out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in_in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in_out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in_in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in_out_layer": "time_text_embed.guidance_embedder.linear_2",
    "final_layer_linear": "proj_out",
}
_FLUX2: dict[str, str | tuple[str, ...]] = {
    **_xlabs(f"{_DOUBLE}.attn.to_out", f"{_DOUBLE}.attn.to_add_out"),
    **_flux_norms(),
    "transformer_blocks_#_ff_net_0_proj": f"{_DOUBLE}.ff.linear_in",
    "transformer_blocks_#_ff_net_2": f"{_DOUBLE}.ff.linear_out",
    "transformer_blocks_#_ff_context_net_0_proj": f"{_DOUBLE}.ff_context.linear_in",
    "transformer_blocks_#_ff_context_net_2": f"{_DOUBLE}.ff_context.linear_out",
    "single_transformer_blocks_#_attn_to_out_0": f"{_SINGLE}.attn.to_out",
    "time_guidance_embed_timestep_embedder_linear_1": "time_guidance_embed.linear_1",
    "time_guidance_embed_timestep_embedder_linear_2": "time_guidance_embed.linear_2",
}
_QWEN: dict[str, str | tuple[str, ...]] = {
    "transformer_blocks_#_attn_to_qkv": _IMAGE,
    "transformer_blocks_#_attn_add_qkv_proj": _TEXT,
    "transformer_blocks_#_attn_to_out": f"{_DOUBLE}.attn.attn_to_out.0",
    "transformer_blocks_#_img_mod_1": f"{_DOUBLE}.img_mod_linear",
    "transformer_blocks_#_txt_mod_1": f"{_DOUBLE}.txt_mod_linear",
    "time_text_embed_linear_1": "time_text_embed.timestep_embedder.linear_1",
    "time_text_embed_linear_2": "time_text_embed.timestep_embedder.linear_2",
}
_Z_IMAGE_BLOCKS = ("layers", "noise_refiner", "context_refiner")


def _z_image() -> dict[str, str | tuple[str, ...]]:
    found: dict[str, str | tuple[str, ...]] = {
        "cap_embedder_linear": "cap_embedder.1",
        "all_x_embedder_2_1": "all_x_embedder.2-1",
        "all_final_layer_2_1_linear": "all_final_layer.2-1.linear",
        "all_final_layer_2_1_adaLN_modulation_1": "all_final_layer.2-1.adaLN_modulation.0",
    }
    for kind in _Z_IMAGE_BLOCKS:
        qkv = tuple(f"{kind}.#.attention.to_{one}" for one in "qkv")
        for name in ("qkv", "to_qkv"):
            found[f"{kind}_#_attention_{name}"] = qkv
        for name in ("out", "to_out"):
            found[f"{kind}_#_attention_{name}"] = f"{kind}.#.attention.to_out.0"
        found[f"{kind}_#_adaLN_modulation_1"] = f"{kind}.#.adaLN_modulation.0"
        found[f"{kind}_#_feed_forward_w13"] = (f"{kind}.#.feed_forward.w1", f"{kind}.#.feed_forward.w3")
    return found


FINAL = {"final_layer_adaLN_modulation_1": "norm_out.linear"}
ROWS: Mapping[str, Rows] = {
    "flux1": {**dict(_rows(_FLUX1)), **dict(_swapped_rows(FINAL))},
    "flux2": {**dict(_rows(_FLUX2)), **dict(_swapped_rows(FINAL))},
    "qwen": dict(_rows(_QWEN)),
    "z_image": dict(_rows(_z_image())),
}
"""Rows by architecture."""
