"""Lists for the menus of A1111's clients: samplers, upscalers, scripts. Pure data, empty for missing features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from adapters.sdapi.sampling import LATENT_UPSCALERS
from gateway.jobs import samplers

SAMPLERS = tuple(
    {
        "name": sampler.name,
        "aliases": list(sampler.aliases),
        "options": {name: str(value) for name, value in sampler.options.items()},
    }
    for sampler in samplers.SAMPLERS
)
"""All samplers of Stable Diffusion, in A1111's order; other models run Euler. Option values are strings, as there."""
SCHEDULERS = tuple(
    {
        "name": schedule.name,
        "label": schedule.label,
        "aliases": list(schedule.aliases) or None,
        "default_rho": schedule.default_rho,
        "need_inner_model": schedule.needs_model,
    }
    for schedule in samplers.SCHEDULES
)
"""All schedules of Stable Diffusion, in A1111's order; other models have the simple one."""
LATENT_MODES = tuple({"name": name} for name in LATENT_UPSCALERS)

NO_UPSCALER = "None"


def upscaler_row(name: str) -> dict[str, Any]:
    return {"name": name, "model_name": None, "model_path": None, "model_url": None, "scale": 4}


UPSCALERS = tuple(upscaler_row(name) for name in (NO_UPSCALER, "Lanczos", "Nearest"))
"""Source: A1111 1.10.1 modules/upscaler.py."""
_ALWAYS_THERE = frozenset(
    {
        "dat x2",
        "dat x3",
        "dat x4",
        "esrgan 4x",
        "ldsr",
        "r-esrgan 2x+",
        "r-esrgan 4x+",
        "r-esrgan 4x+ anime6b",
        "r-esrgan animevideo",
        "r-esrgan general 4xv3",
        "r-esrgan general wdn 4xv3",
        "scunet",
        "scunet gan",
        "scunet psnr",
        "swinir",
        "swinir 4x",
    }
)
"""Source: A1111 1.10.1 modules/{esrgan,realesrgan,dat}_model.py, extensions-builtin/{LDSR,ScuNET,SwinIR}/scripts."""


def stands_in_for(name: str) -> bool:
    """Whether Lanczos replaces this upscaler here: a model that every A1111 has, or one that works on latents."""
    plain = name.lower().replace("_", " ")
    return plain in _ALWAYS_THERE or plain.startswith("latent")


STAND_IN = "Lanczos"
MODEL_UPSCALERS = {"SeedVR2": "seedvr2", "SeedVR2 7B": "seedvr2-7b"}
"""Upscaling models by A1111's name; listed where their weights are on disk."""

HR_UPSCALER = "Latent"
HR_UPSCALERS: Mapping[str, Literal["lanczos", "nearest"]] = {
    "None": "lanczos",
    "Lanczos": "lanczos",
    "Nearest": "nearest",
}
"""Upscalers of hires fix. A1111 resizes with Lanczos for None; models become Lanczos, too, and for other models than
Stable Diffusion latent upscalers.
"""

EMPTY = (
    "hypernetworks",
    "face-restorers",
    "realesrgan-models",
    "extensions",
)
"""Routes of lists that are empty: features that this gateway does not have."""

SCRIPTS: dict[str, list[str]] = {"txt2img": [], "img2img": ["sd upscale"]}
"""Scripts by route. webuiapi adds every script listed here to its requests, such as controlnet or adetailer."""


def _argument(label: str, value: object, **more: object) -> dict[str, Any]:
    return {"label": label, "value": value, "minimum": None, "maximum": None, "step": None, "choices": None} | more


SCRIPT_INFO = (
    {
        "name": "sd upscale",
        "is_alwayson": False,
        "is_img2img": True,
        "args": [
            _argument("", "Enlarges the picture by the scale factor and draws it over in tiles of width x height"),
            _argument("Tile overlap", 64, minimum=0, maximum=256, step=16),
            _argument("Upscaler", NO_UPSCALER, choices=[row["name"] for row in UPSCALERS]),
            _argument("Scale Factor", 2, minimum=0, maximum=4, step=1),
        ],
    },
)
"""Source: A1111 1.10.1 scripts/sd_upscale.py ui, modules/scripts.py api_info."""


def cmd_flags(*, host: str, port: int) -> dict[str, Any]:
    """The command-line flags of an A1111 that behaves as this gateway does; no password, no path.

    Source: A1111 1.10.1 modules/cmd_args.py.
    """
    return {
        "api": True,
        "api_auth": None,
        "api_server_stop": False,
        "nowebui": True,
        "listen": host not in ("127.0.0.1", "localhost", "::1"),
        "port": port,
        "gradio_auth": None,
        "gradio_auth_path": None,
        "share": False,
        "enable_insecure_extension_access": False,
        "disable_extension_access": True,
        "hide_ui_dir_config": True,
        "freeze_settings": False,
        "use_cpu": [],
        "theme": None,
    }
