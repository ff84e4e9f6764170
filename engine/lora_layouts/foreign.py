"""Families of LoRAs, recognised by the names of their tensors: those of Stable Diffusion, and those that fit no model
here. Pure string work.

Source: key names of kohya-ss sd-scripts and musubi-tuner, diffusers and ComfyUI for each family.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Shape = tuple[int, ...]

_UNET = ("down_blocks_", "mid_block_", "up_blocks_", "input_blocks_", "middle_block_", "output_blocks_")
_UNET_PARTS = ("attentions_", "resnets_", "transformer_blocks_", "proj_in", "proj_out", "emb_layers", "samplers_")
MARKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("HunyuanVideo", ("individual_token_refiner", "_img_mlp_fc1", "_txt_mlp_fc1", "_img_mlp_fc2", "_txt_mlp_fc2")),
    ("Stable Diffusion 3", ("joint_blocks_", "_x_block_attn", "_context_block_attn")),
    ("AuraFlow", ("joint_transformer_blocks_",)),
    ("HiDream", ("double_stream_blocks_", "single_stream_blocks_")),
    ("Chroma", ("distilled_guidance_layer",)),
    ("LTX-Video", ("audio_attn1", "patchify_proj")),
    ("Kandinsky 5", ("visual_transformer_blocks_",)),
    ("Stable Cascade", ("_kv_mapper_", "clip_txt_pooled_mapper")),
    ("Mochi", ("_attn_qkv_x", "_attn_qkv_y", "_attn_proj_y")),
    ("Wan", ("_cross_attn_k_img", "_cross_attn_v_img", "text_embedding_0", "time_projection_1")),
)
"""Substrings of tensor names, dots as underscores, that only this family has."""
_WAN = (
    *(f"{kind}_attn_{one}" for kind in ("self", "cross") for one in "qkvo"),
    "ffn_0",
    "ffn_2",
)
_LANGUAGE = tuple(f"_self_attn_{one}_proj." for one in "qkvo")
_DOWN = ("_down_weight", "_lora_A_weight", "_lora_A_default_weight", "_hada_w1_b")
SD1, SD2, SDXL, REFINER = "Stable Diffusion 1.5", "Stable Diffusion 2", "SDXL", "the SDXL refiner"
ANY_STABLE_DIFFUSION = "Stable Diffusion (1.5, 2 or XL)"
NAMES_OF_STABLE_DIFFUSION: Mapping[str, frozenset[str]] = {
    SD1: frozenset({"sd1"}),
    SD2: frozenset({"sd2"}),
    SDXL: frozenset({"sdxl"}),
    REFINER: frozenset({"sdxl_refiner"}),
    ANY_STABLE_DIFFUSION: frozenset({"sd1", "sd2", "sdxl", "sdxl_refiner"}),
}
"""Families of models by the names that `family_of` has for them."""
_CROSS = {768: SD1, 1024: SD2, 2048: SDXL, 1280: REFINER}
"""Families by the inputs of their cross-attention's keys and values."""


def family_of(shapes: Mapping[str, Shape], layers: Iterable[str]) -> str | None:
    """Family of a file by its `layers`, names of tensors without their parts; None where it is none of these.

    Those of Stable Diffusion are the keys of `NAMES_OF_STABLE_DIFFUSION`; all others fit no model here.
    """
    names = [f"{layer.replace('.', '_')}." for layer in layers]
    if any(_is_unet(name) for name in names):
        return _unet(shapes, names)
    for family, marks in MARKS:
        if any(mark in name for name in names for mark in marks):
            return family
    if any(_is_wan(name) for name in names):
        return "Wan"
    if any("transformer_blocks_" in name and ("_attn1_to_" in name or "_attn2_to_" in name) for name in names):
        return "a model whose blocks have attn1 and attn2, such as LTX-Video or PixArt"
    if any("model_layers_" in name and name.endswith(_LANGUAGE) for name in names):
        return "a language model"
    return None


def _is_unet(name: str) -> bool:
    return any(block in name for block in _UNET) and any(part in name for part in _UNET_PARTS)


def _unet(shapes: Mapping[str, Shape], names: list[str]) -> str:
    for tensor, shape in shapes.items():
        name = tensor.replace(".", "_")
        if (
            name.endswith(_DOWN)
            and ("attn2_to_k" in name or "attn2_to_v" in name)
            and len(shape) > 1
            and shape[1] in _CROSS
        ):
            return _CROSS[shape[1]]
    deep = any("lora_te2_" in name or "_transformer_blocks_1_" in name for name in names)
    return SDXL if deep else ANY_STABLE_DIFFUSION


def _is_wan(name: str) -> bool:
    """Whether this is a block of Wan, whose attention has `q` where others have `q_proj` or `to_q`."""
    before, found, rest = name.rpartition("blocks_")
    if not found or before.endswith(("transformer_", "llm_adapter_")):
        return False
    number, _, part = rest.partition("_")
    return number.isdecimal() and part.rstrip(".") in _WAN
