"""The options of A1111: constants, and those that clients can set. Pure; knows no job."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic_core import PydanticCustomError

from adapters.sdapi.sampling_options import SAMPLING_DEFAULTS, SAMPLING_OPTIONS
from adapters.sdapi.values import to_bool, to_int
from gateway.images.codec import Format

CONSTANTS: Mapping[str, Any] = {
    "sd_checkpoint_hash": None,
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
    "img2img_color_correction": False,
    "img2img_background_color": "#ffffff",
    "inpainting_mask_weight": 1.0,
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
    "ddim_discretize": "uniform",
    "tiling": False,
    **SAMPLING_DEFAULTS,
}
"""A1111's options with their values at the start. `forge_preset` must not be among them: it means Forge.

Source: A1111 1.10.1 modules/shared_options.py.
"""


MEMORY = "memory"
"""An option of this gateway: "try" runs jobs that seem not to fit into memory."""
FORMATS: Mapping[str, Format] = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp"}
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """The format of the images in a response, from the options and `override_settings`."""

    format: Format = "png"
    quality: int = 80
    """Quality of JPEG and WebP, 1 to 100."""
    with_infotext: bool = True
    background: str = "#ffffff"
    """The background of transparent input images."""
    previews: bool = True
    with_mask: bool = False
    """Whether each inpainted image is followed by its mask."""
    with_cut_out: bool = False
    """Whether each inpainted image is followed by its part inside the mask."""


def output_options(options: Mapping[str, Any], override: Mapping[str, Any]) -> OutputOptions:
    """The output options of a request: the client's `options`, then those of `override` that can be set."""
    values = {**CONSTANTS, **options, **accepted(override)}
    return OutputOptions(
        format=FORMATS[values["samples_format"]],
        quality=values["jpeg_quality"],
        with_infotext=values["enable_pnginfo"],
        background=values["img2img_background_color"],
        previews=values["live_previews_enable"],
        with_mask=values["return_mask"],
        with_cut_out=values["return_mask_composite"],
    )


def _format(value: object) -> str:
    if isinstance(value, str) and value in FORMATS:
        return value
    raise ValueError


def _quality(value: object) -> int:
    if 1 <= (quality := to_int(value)) <= 100:
        return quality
    raise ValueError


def _colour(value: object) -> str:
    if isinstance(value, str) and _COLOUR.fullmatch(value):
        return value
    raise ValueError


CHANGEABLE: Mapping[str, Callable[[object], Any]] = {
    "samples_format": _format,
    "jpeg_quality": _quality,
    "enable_pnginfo": to_bool,
    "img2img_background_color": _colour,
    "live_previews_enable": to_bool,
    "return_mask": to_bool,
    "return_mask_composite": to_bool,
    "send_seed": to_bool,
    "send_size": to_bool,
    **SAMPLING_OPTIONS,
}
"""What POST /options and `override_settings` can set. `send_*` are only stored and listed."""


def accepted(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that can be set, where their values are valid; all others are left out."""
    values: dict[str, Any] = {}
    for name, to_value in CHANGEABLE.items():
        if settings.get(name) is not None:
            with suppress(ValueError, PydanticCustomError):
                values[name] = to_value(settings[name])
    return values


def options_of(checkpoint: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of GET /options; `checkpoint` equals a title of GET /sd-models."""
    return {"sd_model_checkpoint": checkpoint, **CONSTANTS, **options}
