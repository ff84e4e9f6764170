"""The settings and lists A1111's clients read before they draw. Pure data; knows no job."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from engine.catalog import ModelSpec

CONSTANTS: Mapping[str, Any] = {
    "sd_checkpoint_hash": None,
    "sd_vae": "Automatic",
    "sd_lora": "None",
    "sd_hypernetwork": "None",
    "samples_save": True,
    "samples_format": "png",
    "grid_save": False,
    "return_grid": False,
    "jpeg_quality": 80,
    "webp_lossless": False,
    "enable_pnginfo": True,
    "send_seed": True,
    "send_size": True,
    "CLIP_stop_at_last_layers": 1,
    "eta_noise_seed_delta": 0,
    "img2img_fix_steps": False,
    "img2img_color_correction": False,
    "img2img_background_color": "#ffffff",
    "inpainting_mask_weight": 1.0,
    "initial_noise_multiplier": 1.0,
    "overlay_inpaint": True,
    "return_mask": False,
    "return_mask_composite": False,
    "face_restoration": False,
    "face_restoration_model": "CodeFormer",
    "upscaler_for_img2img": None,
    "live_previews_enable": True,
    "live_previews_image_format": "jpeg",
    "show_progress_every_n_steps": 1,
    "show_progress_type": "Approx NN",
    "interrupt_after_current": False,
    "comma_padding_backtrack": 20,
    "ddim_discretize": "uniform",
    "tiling": False,
    "randn_source": "CPU",
}
"""What every A1111 has and none can change here. `forge_preset` must not be among them: it means Forge.

Source: A1111 1.10.1 modules/shared_options.py.
"""


def options_of(checkpoint: str) -> dict[str, Any]:
    """The answer of GET /options; `checkpoint` equals a title of GET /sd-models."""
    return {"sd_model_checkpoint": checkpoint, **CONSTANTS}


def checkpoint_rows(
    specs: Iterable[ModelSpec], aliases: Mapping[str, str], on_disk: Callable[[ModelSpec], bool], current: str
) -> list[dict[str, Any]]:
    """One row a model that can be drawn with now, aliases included, and in any case the current one.

    Title and model_name are one plain name and `filename` names no folder of this machine.
    Source: A1111 1.10.1 SDModelItem.
    """
    there = [spec.name for spec in specs if on_disk(spec)]
    names = [*there, *(alias for alias, target in aliases.items() if target in there)]
    if current not in names:
        names.insert(0, current)
    return [
        {"title": name, "model_name": name, "hash": None, "sha256": None, "filename": name, "config": None}
        for name in dict.fromkeys(names)
    ]
