"""Files that are no checkpoint of Stable Diffusion, told by the names of their tensors, each with one sentence.

Sources: AUTOMATIC1111 1.10.1 modules/sd_models_config.py; diffusers 0.42 loaders/single_file_utils.py; ComfyUI
comfy/model_detection.py and supported_models.py.
"""

from __future__ import annotations

import re
from collections.abc import Collection

UNET = "model.diffusion_model."
"""Prefix of the UNet's tensors in a checkpoint."""

_BY_NAME = (
    (
        r"joint_blocks\.0\.|x_embedder\.proj\.weight\Z",
        "It is Stable Diffusion 3, which is not drawn here.",
    ),
    (
        r"double_blocks\.0\.",
        "It is a transformer of FLUX in one file; use the catalogue's models, such as flux1-dev or flux2-klein-4b.",
    ),
    (
        r"transformer_blocks\.0\.(?:img_mlp|txt_mlp|add_[qkv]_proj|attn\.add_[qkv]_proj)",
        "It is a transformer of another family in one file; use the catalogue's models.",
    ),
    (r"edm_(?:mean|std)\Z", "It is Playground 2.5, whose noise is another one than Stable Diffusion's."),
    (r"edm_vpred\.sigma_max\Z", "It is CosXL, whose noise is another one than Stable Diffusion's."),
    (r"encoder_hid_proj\.", "It is Kolors, whose text encoder is not served here."),
    (r"cond_stage_model\.roberta\.", "It is AltDiffusion, whose text encoder is not served here."),
    (
        r"(?:embedder\.model|noise_augmentor)\.",
        "It is Stable Diffusion unCLIP, which follows images in place of texts.",
    ),
    (r"input_blocks\.\d+\.\d+\.(?:time_stack|time_mixer)\.", "It draws videos."),
    (r"(?:control_model|controlnet_\w+|input_hint_block)\.", "It is a ControlNet, which changes another checkpoint."),
    (r"(?:lora_unet_|lora_te|lycoris_).+\Z|.+\.lora_(?:A|B|up|down)\.", "It is a LoRA; put it into a folder of LoRAs."),
    (r"(?:emb_params|clip_[lg]|string_to_param.*)\Z", "It is a textual inversion; put it into a folder of embeddings."),
    (r".+\.quant_state\.", "Its weights are quantised for another program; use one in float16."),
    (
        r".+\.(?:scale_weight|weight_scale|scale_input)\Z|scaled_fp8\Z",
        "Its weights are scaled 8-bit numbers; use float16.",
    ),
)
_PATTERNS = tuple((re.compile(pattern), reason) for pattern, reason in _BY_NAME)
_VAE = re.compile(r"(?:first_stage_model\.)?(?:decoder|encoder)\.(?:conv_in|mid_block|up_blocks|up|down)\.")
_DIFFUSERS_UNET = re.compile(r"(?:unet\.)?(?:down_blocks\.\d+\.|conv_in\.weight\Z)")

FIRST_LAYER = "input_blocks.0.0.weight"


def refusal_of(names: Collection[str]) -> str | None:
    """Why a file with tensors of these names is no checkpoint that can be drawn with; None where nothing says so."""
    bare = {name.removeprefix(UNET) for name in names}
    for pattern, reason in _PATTERNS:
        if any(pattern.match(name) for name in bare):
            return reason
    if UNET + FIRST_LAYER in names:
        return None
    if FIRST_LAYER in bare:
        return "It holds a UNet without text encoders; use the whole checkpoint."
    if any(_DIFFUSERS_UNET.match(name) for name in names):
        return "It is a part of a diffusers folder; put the whole folder here, with its model_index.json."
    if any(_VAE.match(name) for name in names):
        return "It is a VAE; put it into a folder of VAE files."
    return "It is no checkpoint of Stable Diffusion."
