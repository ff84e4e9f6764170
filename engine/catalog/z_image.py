"""Z-Image."""

from __future__ import annotations

from engine.catalog.spec import ModelSpec, at_load

_FILES = (
    "vae/*.safetensors",
    "vae/*.json",
    "transformer/*.safetensors",
    "transformer/*.json",
    "text_encoder/*.safetensors",
    "text_encoder/*.json",
    "tokenizer/*",
)

_TURBO = ModelSpec(
    name="z-image-turbo",
    family="z_image",
    geometry="z-image-turbo",
    repo="Tongyi-MAI/Z-Image-Turbo",
    files=_FILES,
    licence="Apache-2.0",
    description="Z-Image-Turbo, 6B parameters, distilled",
    size_gb=33.0,
    weights_gb=20.5,
    distilled=True,
    default_steps=9,
    useful_max_steps=16,
    guidance_range=(1.0, 1.0),
    max_sequence=512,
)

_BASE = ModelSpec(
    name="z-image",
    family="z_image",
    geometry="z-image",
    repo="Tongyi-MAI/Z-Image",
    files=_FILES,
    licence="Apache-2.0",
    description="Z-Image base, 6B parameters",
    size_gb=21.0,
    weights_gb=20.5,
    distilled=False,
    default_steps=50,
    useful_max_steps=100,
    default_guidance=4.0,
    max_sequence=512,
    negative_prompt=True,
)

ROWS = (*at_load(_TURBO, 4, 8), *at_load(_BASE, 4, 8))
