"""Files that are no checkpoint of Stable Diffusion, told by the names of their tensors, each with one sentence.

Sources: AUTOMATIC1111 1.10.1 modules/sd_models_config.py; diffusers 0.42 loaders/single_file_utils.py; ComfyUI
comfy/model_detection.py and supported_models.py.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

UNET = "model.diffusion_model."
"""Prefix of the UNet's tensors in a checkpoint."""
FIRST_LAYER = "input_blocks.0.0.weight"


@dataclass(frozen=True, slots=True)
class _Sign:
    """What one name of a tensor, without the UNet's prefix, has where a file is something else."""

    reason: str
    starts: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()

    def is_in(self, name: str) -> bool:
        return name.startswith(self.starts) or name.endswith(self.ends) or any(part in name for part in self.holds)


_SIGNS = (
    _Sign("It is Stable Diffusion 3, which is not drawn here.", starts=("joint_blocks.0.", "x_embedder.proj.weight")),
    _Sign(
        "It is a transformer of FLUX in one file; use the catalogue's models, such as flux1-dev or flux2-klein-4b.",
        starts=("double_blocks.0.",),
    ),
    _Sign(
        "It is a transformer of another family in one file; use the catalogue's models.",
        holds=("transformer_blocks.0.img_mlp", "transformer_blocks.0.attn.add_"),
    ),
    _Sign("It is Playground 2.5, whose noise is another one than Stable Diffusion's.", starts=("edm_mean", "edm_std")),
    _Sign("It is CosXL, whose noise is another one than Stable Diffusion's.", starts=("edm_vpred.",)),
    _Sign("It is Kolors, whose text encoder is not served here.", starts=("encoder_hid_proj.",)),
    _Sign("It is AltDiffusion, whose text encoder is not served here.", starts=("cond_stage_model.roberta.",)),
    _Sign(
        "It is Stable Diffusion unCLIP, which follows images in place of texts.",
        starts=("embedder.model.", "noise_augmentor."),
    ),
    _Sign("It draws videos.", holds=(".time_stack.",)),
    _Sign(
        "It is a latent consistency model that reads the guidance; use its LoRA instead.",
        starts=("time_embed.cond_proj.",),
    ),
    _Sign(
        "It is a ControlNet, which changes another checkpoint.",
        starts=("control_model.", "controlnet_", "input_hint_block."),
    ),
    _Sign(
        "It is a LoRA; put it into a folder of LoRAs.",
        starts=("lora_unet_", "lora_te", "lycoris_"),
        holds=(".lora_A.", ".lora_B.", ".lora_up.", ".lora_down."),
    ),
    _Sign(
        "It is a textual inversion; put it into a folder of embeddings.",
        starts=("emb_params", "clip_l", "clip_g", "string_to_param"),
    ),
    _Sign("Its weights are quantised for another program; use one in float16.", holds=(".quant_state.",)),
    _Sign(
        "Its weights are scaled numbers of 8 bits; use one in float16.",
        starts=("scaled_fp8",),
        ends=(".scale_weight", ".weight_scale"),
    ),
)
_VAE_STARTS = ("first_stage_model.", "decoder.", "encoder.conv_in.", "encoder.down")
_DIFFUSERS_STARTS = ("unet.", "down_blocks.0.", "conv_in.")


def refusal_of(names: Collection[str]) -> str | None:
    """Why a file with tensors of these names is no checkpoint that can be drawn with; None where nothing says so."""
    bare = {name.removeprefix(UNET) for name in names}
    for sign in _SIGNS:
        if any(sign.is_in(name) for name in bare):
            return sign.reason
    if UNET + FIRST_LAYER in names:
        return None
    if FIRST_LAYER in bare:
        return "It holds a UNet without text encoders; use the whole checkpoint."
    if any(name.startswith(_DIFFUSERS_STARTS) for name in names):
        return "It is a part of a diffusers folder; put the whole folder here, with its model_index.json."
    if any(name.startswith(_VAE_STARTS) for name in names):
        return "It is a VAE; put it into a folder of VAE files."
    return "It is no checkpoint of Stable Diffusion."
