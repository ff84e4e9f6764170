"""Suggestions: sentences that name a model here for another gateway's model name. Nothing is resolved."""

from __future__ import annotations

from collections.abc import Mapping

_SEED = "Flux1 models removed. Use flux2-klein-4b or flux2-klein-9b"
_SD = "Stable Diffusion is not served. Use {}"
_AS = "It is served as {}"
_NOT = "It is not served. Use {}"

INSTEAD: Mapping[str, tuple[str, str]] = {
    "schnell": (_SEED, "flux1-schnell"),
    "dev": (_SEED, "flux1-dev"),
    "sd-turbo": (_SD, "flux2-klein-4b"),
    "sdxl-turbo": (_SD, "z-image-turbo"),
    "stable-diffusion-v1.5": (_SD, "flux2-klein-4b"),
    "stable-diffusion-xl-base-1.0": (_SD, "z-image"),
    "sd3-medium": (_SD, "flux2-klein-4b"),
    "sd3.5-medium": (_SD, "flux2-klein-4b"),
    "sd3.5-large": (_SD, "z-image"),
    "sd3.5-large-turbo": (_SD, "z-image-turbo"),
    "flux.1-schnell": (_AS, "flux1-schnell"),
    "flux.1-dev": (_AS, "flux1-dev"),
    "flux.1-kontext-dev": (_AS, "flux1-kontext-dev"),
    "kolors": (_NOT, "qwen-image"),
    "hunyuandit-v1.2": (_NOT, "qwen-image"),
    "hunyuandit-v1.2-distilled": (_NOT, "z-image-turbo"),
    "cogview4": (_NOT, "qwen-image"),
    "qwen-image": (_AS, "qwen-image"),
}
"""Lower-case model names of mflux and Xinference, with a sentence and the model it names."""


def instead_of(name: str) -> tuple[str, str] | None:
    """A sentence, and the model it suggests, for a name of another gateway; None for unknown names."""
    match = INSTEAD.get(name.lower())
    return None if match is None else (match[0].format(match[1]), f"Use {match[1]}")
