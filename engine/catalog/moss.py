"""MOSS-Image."""

from __future__ import annotations

from engine.catalog.spec import ModelSpec, at_load

_SFT = ModelSpec(
    name="moss-image",
    family="moss",
    geometry="moss-image-sft",
    repo="OpenMOSS-Team/MOSS-Image-SFT",
    files=(
        "vae/*.safetensors",
        "vae/*.json",
        "transformer/*.safetensors",
        "transformer/*.json",
        "text_encoder/*.safetensors",
        "text_encoder/*.json",
        "tokenizer/*",
    ),
    licence="Apache-2.0",
    description="MOSS-Image SFT, 4.9B parameters",
    size_gb=29.0,
    distilled=False,
    default_steps=50,
    useful_max_steps=100,
    default_guidance=3.0,
    guidance_range=(1.0, 10.0),
    max_sequence=4096,
    negative_prompt=True,
)

_BASE = _SFT.model_copy(
    update={
        "name": "moss-image-base",
        "geometry": "moss-image-base",
        "repo": "OpenMOSS-Team/MOSS-Image-Base",
        "description": "MOSS-Image base, 4.9B parameters",
    }
)

ROWS = (*at_load(_SFT, 4, 8), *at_load(_BASE, 4, 8))
