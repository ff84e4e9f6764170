"""Headers of checkpoints as users have them, with the few tensors that tell the families apart."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.safetensors import Tensor

Shapes = Mapping[str, tuple[int, ...]]

UNET = "model.diffusion_model."
VAE: Shapes = {
    "first_stage_model.encoder.conv_in.weight": (8, 3, 3, 3),
    "first_stage_model.decoder.conv_in.weight": (8, 4, 3, 3),
}
_CLIP = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
_SD1: Shapes = {f"{UNET}input_blocks.0.0.weight": (8, 4, 3, 3), f"{UNET}time_embed.0.weight": (8, 64), **VAE}
_V_BIAS = f"{UNET}output_blocks.11.1.transformer_blocks.0.norm1.bias"
SD1: Shapes = {**_SD1, _CLIP: (20, 768)}
SD2: Shapes = {
    **_SD1,
    "cond_stage_model.model.token_embedding.weight": (20, 1024),
    "cond_stage_model.model.transformer.resblocks.0.ln_1.weight": (1024,),
    _V_BIAS: (4,),
}
SDXL: Shapes = {
    **_SD1,
    f"{UNET}label_emb.0.0.weight": (8, 2816),
    "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight": (20, 768),
    "conditioner.embedders.1.model.token_embedding.weight": (20, 1280),
}
REFINER: Shapes = {
    **_SD1,
    f"{UNET}label_emb.0.0.weight": (8, 2560),
    "conditioner.embedders.0.model.token_embedding.weight": (20, 1280),
}
V_BIAS = _V_BIAS


def tensors_of(shapes: Shapes, dtype: str = "F32") -> dict[str, Tensor]:
    """Entries of a header in float32, one behind the other."""
    tensors: dict[str, Tensor] = {}
    begin = 0
    for name, shape in shapes.items():
        size = 4 * Tensor(dtype, shape, 0, 0).elements
        tensors[name] = Tensor(dtype, shape, begin, begin + size)
        begin += size
    return tensors


def write_header(file: Path, shapes: Shapes, *, data: bytes | None = None, **metadata: str) -> Path:
    """Write a file with these tensors in float32: zeros, or the first bytes of `data`."""
    tensors = tensors_of(shapes)
    entries: dict[str, Any] = {
        name: {"dtype": one.dtype, "shape": one.shape, "data_offsets": [one.begin, one.end]}
        for name, one in tensors.items()
    }
    header = json.dumps({"__metadata__": metadata, **entries} if metadata else entries).encode()
    size = max(one.end for one in tensors.values())
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(len(header).to_bytes(8, "little") + header + (data or b"").ljust(size, b"\0")[:size])
    return file


def write_folder(
    folder: Path, kind: str = "StableDiffusionPipeline", *, unet: Any = None, scheduler: Any = None
) -> Path:
    """Write a diffusers folder of few tensors; `unet` and `scheduler` are added to its configurations."""
    is_xl = "XL" in kind
    encoders = ["text_encoder", "text_encoder_2"] if is_xl else ["text_encoder"]
    index = {"_class_name": kind, "vae": ["diffusers", "AutoencoderKL"], "unet": ["diffusers", "UNet2DConditionModel"]}
    index |= {name: ["transformers", "CLIPTextModel"] for name in encoders}
    added = {"addition_embed_type": "text_time"} if is_xl else {}
    configs: dict[str, Any] = {
        "model_index.json": index,
        "unet/config.json": {"in_channels": 4, **added, **(unet or {})},
        "scheduler/scheduler_config.json": {"beta_start": 0.00085, "beta_end": 0.012, **(scheduler or {})},
        **{f"{name}/config.json": {"hidden_size": 768 if name == "text_encoder" else 1280} for name in encoders},
    }
    for name, config in configs.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(config), encoding="utf-8")
    write_header(folder / "unet" / "diffusion_pytorch_model.fp16.safetensors", {"conv_in.weight": (8, 4, 3, 3)})
    write_header(folder / "vae" / "diffusion_pytorch_model.fp16.safetensors", {"decoder.conv_in.weight": (8, 4, 3, 3)})
    for name in encoders:
        write_header(folder / name / "model.fp16.safetensors", {"text_model.final_layer_norm.weight": (768,)})
    return folder
