"""Suggestions: sentences that name a model here for another gateway's model name. Nothing is resolved."""

from __future__ import annotations

from collections.abc import Mapping

_SEED = "Flux1 models removed. Use flux2-klein-4b or flux2-klein-9b"
_SD3 = "Stable Diffusion 3 is not served. Use {}"
_AS = "It is served as {}"
_NOT = "It is not served. Use {}"

INSTEAD: Mapping[str, tuple[str, str]] = {
    "schnell": (_SEED, "flux1-schnell"),
    "dev": (_SEED, "flux1-dev"),
    **dict.fromkeys(
        (
            "v1-5-pruned-emaonly",
            "v1-5-pruned",
            "stable-diffusion-v1-5",
            "runwayml/stable-diffusion-v1-5",
            "stable-diffusion-v1-5/stable-diffusion-v1-5",
            "sd1.5",
            "sd15",
        ),
        (_AS, "stable-diffusion-v1.5"),
    ),
    **dict.fromkeys(
        ("sd_xl_base_1.0", "stabilityai/stable-diffusion-xl-base-1.0", "stable-diffusion-xl", "sdxl"),
        (_AS, "stable-diffusion-xl-base-1.0"),
    ),
    **dict.fromkeys(
        ("sd_xl_refiner_1.0", "stabilityai/stable-diffusion-xl-refiner-1.0"), (_AS, "stable-diffusion-xl-refiner-1.0")
    ),
    **dict.fromkeys(("v2-1_768-ema-pruned", "stabilityai/stable-diffusion-2-1"), (_AS, "stable-diffusion-2-1")),
    **dict.fromkeys(
        ("v2-1_512-ema-pruned", "stabilityai/stable-diffusion-2-1-base"), (_AS, "stable-diffusion-2-1-base")
    ),
    **dict.fromkeys(("sd_turbo", "stabilityai/sd-turbo"), (_AS, "sd-turbo")),
    **dict.fromkeys(("sd_xl_turbo_1.0", "sd_xl_turbo_1.0_fp16", "stabilityai/sdxl-turbo"), (_AS, "sdxl-turbo")),
    "sd3-medium": (_SD3, "stable-diffusion-xl-base-1.0"),
    "sd3.5-medium": (_SD3, "stable-diffusion-xl-base-1.0"),
    "sd3.5-large": (_SD3, "z-image"),
    "sd3.5-large-turbo": (_SD3, "z-image-turbo"),
    "flux.1-schnell": (_AS, "flux1-schnell"),
    "flux.1-dev": (_AS, "flux1-dev"),
    "flux.1-kontext-dev": (_AS, "flux1-kontext-dev"),
    "kolors": (_NOT, "qwen-image"),
    "hunyuandit-v1.2": (_NOT, "qwen-image"),
    "hunyuandit-v1.2-distilled": (_NOT, "z-image-turbo"),
    "cogview4": (_NOT, "qwen-image"),
    "qwen-image": (_AS, "qwen-image"),
}
"""Lower-case model names of mflux, Xinference, the hub and A1111, with a sentence and the model it names."""
_PUT_IT = (
    "Put its file into a folder of models.checkpoint_dirs, or name A1111's folder (--a1111-dir)",
    "Put its file into a folder of models.checkpoint_dirs",
)
_SUFFIXES = (".safetensors", ".ckpt")


def instead_of(name: str) -> tuple[str, str] | None:
    """A sentence, and what it suggests, for a name of another gateway or of a file; None for unknown names."""
    plain = name.lower()
    if plain.endswith("]"):
        plain = plain.rpartition(" [")[0] or plain
    is_file = plain != name.lower() or plain.endswith(_SUFFIXES)
    for suffix in _SUFFIXES:
        plain = plain.removesuffix(suffix)
    if (match := INSTEAD.get(plain.rpartition("/")[2] if is_file else plain)) is not None:
        return match[0].format(match[1]), f"Use {match[1]}"
    return _PUT_IT if is_file else None
