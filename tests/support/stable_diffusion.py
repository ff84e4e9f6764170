"""Tiny Stable Diffusion checkpoints with random weights, as files that a user could have. NumPy only.

The two forms of one family and seed are the same model.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tests.support.stable_diffusion_tensors import (
    TOY_SIZES,
    Family,
    ToySizes,
    ToyTensor,
    ToyText,
    toy_tensors,
    vae_tensors,
)

Form = Literal["file", "folder"]
Dtype = Literal["float16", "float32", "bfloat16", "float8"]

_NAMES = {"float16": "F16", "float32": "F32", "bfloat16": "BF16", "float8": "F8_E4M3"}
_NUMPY_NAMES = {"int64": "I64", "float64": "F64"}
_PIPELINES = {
    "sd1": "StableDiffusionPipeline",
    "sd2": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sdxl_refiner": "StableDiffusionXLImg2ImgPipeline",
}
_INPAINTING = {"StableDiffusionPipeline": "StableDiffusionInpaintPipeline"}
V_BIAS = "output_blocks.11.1.transformer_blocks.0.norm1.bias"
"""Tensor whose spread tells SD 2 with v-prediction from SD 2 with epsilon-prediction: above 0.09 it is v."""


def toy_checkpoint(
    folder: Path,
    family: Family,
    *,
    form: Form = "file",
    dtype: Dtype = "float16",
    inpainting: bool = False,
    v: bool = False,
    seed: int = 0,
    name: str | None = None,
    has_vae: bool = True,
    unet_only: bool = False,
    sizes: ToySizes | None = None,
) -> Path:
    """Write a checkpoint below `folder`; the path of its `.safetensors` file, or of its own folder.

    `v`: with v-prediction. `name`: of the file or folder, without suffix; else one from the family. `has_vae` and
    `unet_only`: what a single file holds; a folder always holds everything. `sizes`: None for those of the family.
    """
    sizes = sizes or TOY_SIZES[family]
    stem = name or "-".join([family, *(["inpainting"] if inpainting else []), *(["v"] if v else [])])
    tensors = list(toy_tensors(family, sizes, in_channels=9 if inpainting else 4))
    if form == "folder":
        return _write_folder(folder / stem, family, sizes, tensors, dtype, inpainting=inpainting, v=v, seed=seed)
    parts = {"unet"} if unet_only else {tensor.part for tensor in tensors} - (set() if has_vae else {"vae"})
    path = folder / f"{stem}.safetensors"
    arrays = original_arrays([tensor for tensor in tensors if tensor.part in parts], seed)
    if family == "sd2":
        bias = arrays[f"model.diffusion_model.{V_BIAS}"]
        arrays[f"model.diffusion_model.{V_BIAS}"] = bias * np.float32(4 if v else 1)
    if not unet_only:
        arrays |= _by_the_way(family)
    if v and family == "sdxl":
        arrays |= {"v_pred": np.zeros(0, np.float32)}
    metadata = {"format": "pt"} | ({"modelspec.prediction_type": "v"} if v else {})
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(path, arrays, dtype, metadata)
    return path


def toy_vae(
    folder: Path, *, prefix: bool = False, seed: int = 1, name: str = "toy.vae", dtype: Dtype = "float32"
) -> Path:
    """Write a VAE file with the original names, with or without `first_stage_model.` before them; its path."""
    arrays = original_arrays(vae_tensors(TOY_SIZES["sd1"].vae_channels), seed)
    if not prefix:
        arrays = {name.removeprefix("first_stage_model."): array for name, array in arrays.items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(path := folder / f"{name}.safetensors", arrays, dtype)
    return path


def original_arrays(tensors: Iterable[ToyTensor], seed: int) -> dict[str, np.ndarray]:
    """Float32 arrays under the names of a single file."""
    arrays: dict[str, np.ndarray] = {}
    fused: dict[str, list[np.ndarray]] = defaultdict(list)
    for tensor in tensors:
        values = tensor.stored(tensor.values(seed))
        if tensor.third is None:
            arrays[tensor.original] = values
        else:
            fused[tensor.original].append(values)
    return arrays | {name: np.concatenate(thirds) for name, thirds in fused.items()}


def folder_arrays(tensors: Iterable[ToyTensor], seed: int) -> dict[str, dict[str, np.ndarray]]:
    """Float32 arrays under the names of the diffusers form, by part."""
    parts: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    for tensor in tensors:
        parts[tensor.part][tensor.name] = tensor.values(seed)
    return dict(parts)


def _by_the_way(family: Family) -> dict[str, np.ndarray]:
    """What checkpoints hold besides, which nothing may read."""
    arrays: dict[str, np.ndarray] = {
        "alphas_cumprod": np.linspace(0.999, 0.005, 1000, dtype=np.float32),
        "model_ema.decay": np.zeros(1, np.float32),
    }
    for text in TOY_SIZES[family].texts:
        if text.is_open_clip:
            arrays[f"{text.prefix}logit_scale"] = np.ones(1, np.float32)
        else:
            arrays[f"{text.prefix}embeddings.position_ids"] = np.arange(77, dtype=np.int64)[None]
    return arrays


def _write_folder(
    folder: Path,
    family: Family,
    sizes: ToySizes,
    tensors: list[ToyTensor],
    dtype: Dtype,
    *,
    inpainting: bool,
    v: bool,
    seed: int,
) -> Path:
    if family == "sd2":  # a folder of SD 2 leaves out the last layer, which nothing reads
        unread = f".layers.{sizes.texts[0].layers - 1}."
        tensors = [tensor for tensor in tensors if unread not in tensor.name]
    configs = {
        "unet": unet_config(sizes, in_channels=9 if inpainting else 4),
        "vae": vae_config(sizes, scaling_factor=0.13025 if family.startswith("sdxl") else 0.18215),
        **{text.part: text_config(text, less_layers=1 if family == "sd2" else 0) for text in sizes.texts},
    }
    for part, arrays in folder_arrays(tensors, seed).items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / part / "config.json").write_text(json.dumps(configs[part]), encoding="utf-8")
        stem = "model" if part.startswith("text_encoder") else "diffusion_pytorch_model"
        write_safetensors(folder / part / f"{stem}.safetensors", arrays, dtype, {"format": "pt"})
    (folder / "scheduler").mkdir()
    scheduler = scheduler_config("v_prediction" if v else "epsilon")
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler), encoding="utf-8")
    (folder / "model_index.json").write_text(json.dumps(_model_index(family, inpainting)), encoding="utf-8")
    return folder


def _model_index(family: Family, inpainting: bool) -> dict[str, Any]:
    pipeline = _PIPELINES[family]
    encoders = {text.part: ["transformers", "CLIPTextModel"] for text in TOY_SIZES[family].texts}
    if family.startswith("sdxl"):
        absent = {"text_encoder": [None, None], "tokenizer": [None, None]} if family == "sdxl_refiner" else {}
        encoders = absent | encoders | {"text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]}
    if inpainting:
        pipeline = _INPAINTING.get(pipeline, "StableDiffusionXLInpaintPipeline")
    return {
        "_class_name": pipeline,
        "_diffusers_version": "0.21.0",
        **encoders,
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "safety_checker": [None, None],
    }


def unet_config(sizes: ToySizes, in_channels: int = 4) -> dict[str, Any]:
    """`config.json` of diffusers' UNet2DConditionModel."""
    down = ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in sizes.depths]
    up = ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(sizes.depths)]
    depths = [*(depth or 1 for depth in sizes.depths[:-1]), sizes.mid_depth]
    added = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": sizes.added,
    }
    return {
        "_class_name": "UNet2DConditionModel",
        "in_channels": in_channels,
        "out_channels": 4,
        "sample_size": 8,
        "block_out_channels": list(sizes.channels),
        "down_block_types": down,
        "up_block_types": up,
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "layers_per_block": 2,
        "transformer_layers_per_block": depths,
        "attention_head_dim": list(sizes.heads),
        "cross_attention_dim": sizes.context,
        "use_linear_projection": sizes.linear_projection,
        "norm_num_groups": sizes.groups,
        "norm_eps": 1e-5,
        "act_fn": "silu",
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        **(added if sizes.added is not None else {}),
    }


def text_config(sizes: ToyText, *, less_layers: int = 0) -> dict[str, Any]:
    """`config.json` of transformers' CLIPTextModel."""
    return {
        "architectures": ["CLIPTextModel" if sizes.projection is None else "CLIPTextModelWithProjection"],
        "model_type": "clip_text_model",
        "vocab_size": 49408,
        "hidden_size": sizes.width,
        "intermediate_size": 4 * sizes.width,
        "num_hidden_layers": sizes.layers - less_layers,
        "num_attention_heads": sizes.heads,
        "max_position_embeddings": 77,
        "hidden_act": sizes.activation,
        "projection_dim": sizes.projection or sizes.width,
        "layer_norm_eps": 1e-5,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": 1,
    }


def vae_config(sizes: ToySizes, scaling_factor: float) -> dict[str, Any]:
    """`config.json` of diffusers' AutoencoderKL."""
    levels = len(sizes.vae_channels)
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 4,
        "block_out_channels": list(sizes.vae_channels),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": 2,
        "norm_num_groups": sizes.vae_groups,
        "act_fn": "silu",
        "sample_size": 64,
        "scaling_factor": scaling_factor,
    }


def scheduler_config(prediction: str, *, zero_terminal_snr: bool = False) -> dict[str, Any]:
    """`scheduler_config.json` of a diffusers folder."""
    return {
        "_class_name": "EulerDiscreteScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "prediction_type": prediction,
        "rescale_betas_zero_snr": zero_terminal_snr,
        "steps_offset": 1,
    }


def write_safetensors(
    path: Path, arrays: Mapping[str, np.ndarray], dtype: Dtype, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a file: float32 arrays in `dtype`, others as they are."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    pieces: list[bytes] = []
    end = 0
    for name, array in arrays.items():
        # Files in float8 keep norms and biases in float16, as those that users have.
        stored: Dtype = "float16" if dtype == "float8" and array.ndim < 2 else dtype
        is_float = array.dtype == np.float32
        piece = (_encoded(array, stored) if is_float else np.ascontiguousarray(array)).tobytes()
        kind = _NAMES[stored] if is_float else _NUMPY_NAMES[array.dtype.name]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [end, end + len(piece)]}
        pieces.append(piece)
        end += len(piece)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(b"".join([len(text).to_bytes(8, "little"), text, *pieces]))


def _encoded(array: np.ndarray, dtype: Dtype) -> np.ndarray:
    """The bits of float32 values in a narrower type, rounded to the nearest."""
    array = np.ascontiguousarray(array)
    if dtype == "bfloat16":
        bits = array.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    if dtype == "float8":
        return _float8(array)
    return array.astype(dtype)


def _float8(array: np.ndarray) -> np.ndarray:
    """Codes of the nearest values of E4M3: one bit of sign, four of exponent (bias 7), three of mantissa."""
    codes = np.arange(127)
    exponents, mantissas = codes >> 3, codes & 7
    values = np.where(exponents == 0, mantissas / 8 * 2.0**-6, (1 + mantissas / 8) * 2.0 ** (exponents - 7))
    middles = ((values[1:] + values[:-1]) / 2).astype(np.float32)
    nearest = np.searchsorted(middles, np.abs(array)).astype(np.uint8)
    return nearest | (np.signbit(array).astype(np.uint8) << 7)
