"""ERNIE-Image."""

from __future__ import annotations

from engine.catalog.spec import ModelSpec, at_load

_TURBO = ModelSpec(
    name="ernie-image-turbo",
    family="ernie",
    geometry="ernie-image-turbo",
    repo="baidu/ERNIE-Image-Turbo",
    files=(
        "vae/*.safetensors",
        "vae/*.json",
        "transformer/*.safetensors",
        "transformer/*.json",
        "text_encoder/*.safetensors",
        "text_encoder/*.json",
        "tokenizer/**",
    ),
    licence="Apache-2.0",
    description="ERNIE-Image-Turbo, 8B parameters, distilled",
    size_gb=24.0,
    distilled=True,
    default_steps=8,
    useful_max_steps=16,
    guidance_range=(1.0, 1.0),
    max_sequence=2048,
)

_BASE = _TURBO.model_copy(
    update={
        "name": "ernie-image",
        "geometry": "ernie-image",
        "repo": "baidu/ERNIE-Image",
        "description": "ERNIE-Image, 8B parameters",
        "distilled": False,
        "default_steps": 50,
        "useful_max_steps": 100,
        "default_guidance": 4.0,
        "guidance_range": (1.0, 10.0),
        "negative_prompt": True,
    }
)

ROWS = (*at_load(_TURBO, 4, 8), *at_load(_BASE, 4, 8))
