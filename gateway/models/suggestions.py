"""What to use in the place of a model that is asked for by another gateway's name. Sentences only: nothing resolves."""

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
"""Lower-case names of mflux's and Xinference's, with a sentence and the model it names."""


def instead_of(name: str) -> tuple[str, str] | None:
    """A sentence, and what it suggests, for a name that another gateway would know."""
    found = INSTEAD.get(name.lower())
    return None if found is None else (found[0].format(found[1]), f"Use {found[1]}")
