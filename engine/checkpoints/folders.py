"""What a diffusers folder of Stable Diffusion is: by its `model_index.json` and the configurations of its parts.

Source: diffusers 0.42 pipelines/stable_diffusion*, loaders/single_file_utils.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.catalog.spec import Family
from engine.checkpoints.kinds import HEADER_MOST_BYTES, Checkpoint, NotACheckpoint, Part, checked_inputs, part_of
from engine.safetensors import UnsafeFile, inspect, opened

LEAST_LATENTS, MOST_LATENTS = 8, 256
"""Latents of one side of the images of a UNet."""
INDEX = "model_index.json"
CONFIG_MOST_BYTES = 2**20
SHARDS_MOST = 64
_NO_CHECKPOINT = "It is no diffusers folder of Stable Diffusion."
_CLASSES = frozenset(
    {
        "StableDiffusionPipeline",
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionInpaintPipeline",
        "StableDiffusionXLPipeline",
        "StableDiffusionXLImg2ImgPipeline",
        "StableDiffusionXLInpaintPipeline",
    }
)
_OTHERS: Mapping[str, str] = {
    "StableDiffusion3Pipeline": "It is Stable Diffusion 3, which is not drawn here.",
    "StableDiffusionInstructPix2PixPipeline": "It edits by instruction (pix2pix), which is not drawn here.",
    "StableDiffusionXLInstructPix2PixPipeline": "It edits by instruction (pix2pix), which is not drawn here.",
    "StableDiffusionDepth2ImgPipeline": "It follows depth maps, which is not drawn here.",
    "StableDiffusionUpscalePipeline": "It enlarges images, which is not drawn here.",
    "StableUnCLIPPipeline": "It is Stable Diffusion unCLIP, which follows images in place of texts.",
    "LatentConsistencyModelPipeline": "It is a latent consistency model that reads the guidance; use its LoRA instead.",
    "KolorsPipeline": "It is Kolors, whose text encoder is not served here.",
    "HunyuanDiTPipeline": "It is HunyuanDiT, which is not drawn here.",
    "CogView4Pipeline": "It is CogView4, which is not drawn here.",
}
_LIKE = "It is a {} of another family; name it in models.local, with the catalogue's model that it is like."
_SHARD = re.compile(r"(.{1,255})-\d{5}-of-\d{5}((?:\.[a-z0-9]{1,20})?\.safetensors)")
_PICKLES = (".bin", ".ckpt", ".pt", ".pth")
_PLAIN = re.compile(r"[A-Za-z0-9_]{1,64}")


def recognise_folder(folder: Path) -> Checkpoint:
    """Recognise a diffusers folder. Reads configurations and headers.

    Raises: NotACheckpoint, OSError.
    """
    index = read_config(folder / INDEX)
    kind = str(index.get("_class_name"))
    if kind not in _CLASSES:
        other = _LIKE.format(kind) if _PLAIN.fullmatch(kind) and kind.endswith("Pipeline") else _NO_CHECKPOINT
        raise NotACheckpoint(_OTHERS.get(kind, other))
    unet = read_config(folder / "unet" / "config.json")
    scheduler = read_config(folder / "scheduler" / "scheduler_config.json")
    _check_noise(scheduler, unet)
    encoders = [name for name in ("text_encoder", "text_encoder_2") if _is_named(index, name)]
    inputs = checked_inputs(_whole(unet.get("in_channels")))
    prediction = scheduler.get("prediction_type", "epsilon")
    if prediction not in ("epsilon", "v_prediction"):
        raise NotACheckpoint("It predicts neither noise nor v.")
    texts = sum((_part(folder / name) for name in encoders), Part())
    return Checkpoint(
        family=_family(encoders, unet),
        prediction=prediction,
        zero_terminal_snr=prediction == "v_prediction" and scheduler.get("rescale_betas_zero_snr") is True,
        inpaints=inputs == 9,
        text_widths=tuple(_whole(read_config(folder / name / "config.json").get("hidden_size")) for name in encoders),
        unet=_part(folder / "unet"),
        text_encoders=texts,
        vae=_part(folder / "vae") if _is_named(index, "vae") else None,
        native_px=_native_px(unet.get("sample_size")),
    )


def _native_px(latents: object) -> int | None:
    """Pixels of one side of the images that a UNet was trained on, from the latents of one side."""
    is_size = isinstance(latents, int) and not isinstance(latents, bool) and LEAST_LATENTS <= latents <= MOST_LATENTS
    return 8 * latents if is_size and isinstance(latents, int) else None


def _check_noise(scheduler: Mapping[str, Any], unet: Mapping[str, Any]) -> None:
    """Raises: NotACheckpoint for a noise that Stable Diffusion has not."""
    if str(scheduler.get("_class_name", "")).startswith("EDM"):
        raise NotACheckpoint("It is Playground 2.5, whose noise is another one than Stable Diffusion's.")
    betas = (scheduler.get("beta_start", 0.00085), scheduler.get("beta_end", 0.012))
    if betas != (0.00085, 0.012) or scheduler.get("num_train_timesteps", 1000) != 1000:
        raise NotACheckpoint("Its noise is another one than Stable Diffusion's: beta_start, beta_end or timesteps.")
    if unet.get("time_cond_proj_dim") is not None:
        raise NotACheckpoint(_OTHERS["LatentConsistencyModelPipeline"])


def _family(encoders: list[str], unet: Mapping[str, Any]) -> Family:
    """Raises: NotACheckpoint where there is no text encoder."""
    if unet.get("addition_embed_type") == "text_time":
        if "text_encoder_2" not in encoders:
            raise NotACheckpoint("It holds SDXL without its text encoders; use the whole folder.")
        return "sdxl" if "text_encoder" in encoders else "sdxl_refiner"
    if "text_encoder" not in encoders:
        raise NotACheckpoint("It has no text encoder; use the whole folder.")
    return "sd2" if unet.get("use_linear_projection") is True else "sd1"


def _is_named(index: Mapping[str, Any], name: str) -> bool:
    """Whether the index has this part: absent ones are missing, or pairs of null."""
    stated = index.get(name)
    return isinstance(stated, list) and any(stated)


def _part(folder: Path) -> Part:
    """Raises: NotACheckpoint, OSError."""
    return sum((_size(file) for file in weights_in(folder)), Part())


def _size(file: Path) -> Part:
    try:
        return part_of(inspect(file, most_header_bytes=HEADER_MOST_BYTES).tensors)
    except UnsafeFile as error:
        raise NotACheckpoint(error.message) from error


def weights_in(folder: Path) -> list[Path]:
    """The safetensors files of one part, sorted: of several variants those in float16, all shards of them.

    Raises: NotACheckpoint where there are none; OSError.
    """
    names = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
    variants: dict[str, list[Path]] = {}
    for name in names:
        if name.endswith(".safetensors"):
            shard = _SHARD.fullmatch(name)
            variants.setdefault(shard[1] + shard[2] if shard else name, []).append(folder / name)
    if not variants:
        if any(name.endswith(_PICKLES) for name in names):
            raise NotACheckpoint(f"Its {folder.name} is a pickle, which can run code; convert it to safetensors.")
        raise NotACheckpoint(f"Its {folder.name} has no weights.")
    files = variants[min(variants, key=lambda name: (".fp16." not in name, ".non_ema." in name, name))]
    if len(files) > SHARDS_MOST:
        raise NotACheckpoint(f"Its {folder.name} has more files than Stable Diffusion.")
    return files


def read_config(file: Path) -> dict[str, Any]:
    """A configuration. Raises: NotACheckpoint where it cannot be read."""
    try:
        with opened(file) as stream:
            data = stream.read(CONFIG_MOST_BYTES + 1)
        found = json.loads(data) if len(data) <= CONFIG_MOST_BYTES else None
    except (OSError, ValueError, RecursionError) as error:
        raise NotACheckpoint(f"Its {file.parent.name if file.name != INDEX else 'index'} cannot be read.") from error
    if not isinstance(found, dict):
        raise NotACheckpoint(f"Its {file.name} is no configuration.")
    return found


def _whole(value: object) -> int:
    return value if type(value) is int and 0 < value < 2**20 else 0
