"""FIBO 2. Sizes are estimated from its parameters."""

from __future__ import annotations

from engine.catalog.spec import ModelSpec, at_load

_DEV = ModelSpec(
    name="fibo2",
    family="fibo2",
    geometry="fibo2",
    repo="briaai/Fibo-2.0-dev",
    files=(
        "vae/*.safetensors",
        "vae/*.json",
        "transformer/*.safetensors",
        "transformer/*.json",
        "text_encoder/*.safetensors",
        "text_encoder/*.json",
        "processor/*",
        "fonts/*.otf",
        "fonts/*.ttf",
        "fonts/LICENSE-*.txt",
    ),
    gated=True,
    licence="CC-BY-NC-4.0",
    description="FIBO 2.0 dev, 8.1B parameters: draws and edits, from JSON captions or short plain text",
    size_gb=25.5,
    distilled=False,
    default_steps=50,
    useful_max_steps=100,
    default_guidance=5.0,
    guidance_range=(1.0, 15.0),
    max_sequence=4096,
    negative_prompt=True,
    max_references=5,
)

_TURBO = _DEV.model_copy(
    update={
        "name": "fibo2-edit-turbo",
        "geometry": "fibo2-edit-turbo",
        "repo": "briaai/Fibo-2.0-edit-turbo",
        "description": "FIBO 2.0 Edit Turbo, 8.1B parameters, distilled for editing",
        "distilled": True,
        "default_steps": 4,
        "useful_max_steps": 8,
        "default_guidance": 1.0,
        "guidance_range": (1.0, 1.0),
        "negative_prompt": False,
    }
)

ROWS = (*at_load(_DEV, 4, 8), *at_load(_TURBO, 4, 8))
