"""Boogu-Image. Sizes are estimated from its parameters."""

from __future__ import annotations

from engine.catalog.spec import ModelSpec, at_load

_TURBO = ModelSpec(
    name="boogu-image",
    family="boogu",
    geometry="boogu-image-turbo",
    repo="Boogu/Boogu-Image-0.1-Turbo",
    files=(
        "vae/*.safetensors",
        "vae/*.json",
        "transformer/*.safetensors",
        "transformer/*.json",
        "mllm/*.safetensors",
        "mllm/*.json",
        "mllm/merges.txt",
        "mllm/chat_template.jinja",
    ),
    licence="Apache-2.0",
    description="Boogu-Image 0.1 Turbo, 10B parameters, distilled: 4 steps; above 768 pixels 8 show more detail",
    size_gb=38.5,
    weights_gb=36.0,
    distilled=True,
    default_steps=4,
    useful_max_steps=12,
    guidance_range=(1.0, 1.0),
    max_sequence=1024,
    lora=False,
)

ROWS = at_load(_TURBO, 4, 8)
