"""Ideogram 4: 8 bits on the hub and in memory, unless it is quantised to fewer bits."""

from __future__ import annotations

from engine.catalog.spec import ModelSpec, at_load

_FP8 = ModelSpec(
    name="ideogram-4",
    family="ideogram4",
    geometry="ideogram-4-fp8",
    repo="ideogram-ai/ideogram-4-fp8",
    files=(
        "model_index.json",
        "scheduler/*.json",
        "vae/*.safetensors",
        "vae/*.json",
        "transformer/*.safetensors",
        "transformer/*.json",
        "unconditional_transformer/*.safetensors",
        "unconditional_transformer/*.json",
        "text_encoder/*.safetensors",
        "text_encoder/*.json",
        "tokenizer/**",
    ),
    gated=True,
    licence="Ideogram Non-Commercial",
    description="Ideogram 4, 9.3B parameters: reads JSON captions best, plain text as well",
    size_gb=28.0,
    distilled=False,
    default_steps=20,
    useful_max_steps=48,
    default_guidance=7.0,
    guidance_range=(1.0, 15.0),
    min_px=256,
    max_sequence=2048,
)

# At 16 bits it would take twice as much; its quantised forms are fractions of that.
ROWS = (_FP8, *at_load(_FP8.model_copy(update={"weights_gb": 52.0}), 4, 8)[1:])
