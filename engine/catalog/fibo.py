"""FIBO, the first."""

from __future__ import annotations

from engine.catalog.spec import ModelSpec, at_load

_BASE = ModelSpec(
    name="fibo",
    family="fibo",
    geometry="fibo",
    unavailable="mflux reads FIBO's weights with PyTorch, which the gateway does not bring; FIBO 2 is served instead.",
    repo="briaai/FIBO",
    files=(
        "vae/*.safetensors",
        "vae/*.json",
        "transformer/*.safetensors",
        "transformer/*.json",
        "text_encoder/*.safetensors",
        "text_encoder/*.json",
        "tokenizer/**",
    ),
    gated=True,
    licence="CC-BY-NC-4.0",
    description="FIBO, 8B parameters, from JSON captions",
    size_gb=24.0,
    distilled=False,
    default_steps=50,
    useful_max_steps=100,
    default_guidance=4.0,
    guidance_range=(1.0, 15.0),
    max_sequence=2048,
    negative_prompt=True,
    lora=False,
)

_LITE = _BASE.model_copy(
    update={
        "name": "fibo-lite",
        "geometry": "fibo-lite",
        "repo": "briaai/Fibo-lite",
        "description": "FIBO Lite, 8B parameters, distilled, from JSON captions",
        "distilled": True,
        "default_steps": 8,
        "useful_max_steps": 16,
        "default_guidance": 1.0,
        "guidance_range": (1.0, 1.0),
        "negative_prompt": False,
    }
)

ROWS = (*at_load(_BASE, 4, 8), *at_load(_LITE, 4, 8))
