"""Qwen-Image."""

from __future__ import annotations

from engine.catalog.spec import ModelSpec, at_load

_FILES = (
    "vae/*.safetensors",
    "vae/*.json",
    "transformer/*.safetensors",
    "transformer/*.json",
    "text_encoder/*.safetensors",
    "text_encoder/*.json",
    "tokenizer/**",
    "added_tokens.json",
    "chat_template.jinja",
)

_IMAGE = ModelSpec(
    name="qwen-image",
    family="qwen",
    geometry="qwen-image",
    repo="Qwen/Qwen-Image-2512",
    files=_FILES,
    licence="Apache-2.0",
    description="Qwen-Image 2512, 20B parameters",
    size_gb=58.0,
    fixed_gb=16.6,
    distilled=False,
    default_steps=30,
    useful_max_steps=100,
    default_guidance=4.0,
    negative_prompt=True,
)

ROWS = at_load(_IMAGE, 4, 8)
