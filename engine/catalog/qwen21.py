"""Qwen-Image-2.1. Its text encoder is never quantised."""

from __future__ import annotations

from engine.catalog.spec import ModelSpec, at_load

_FILES = (
    "model_index.json",
    "scheduler/*.json",
    "processor/**",
    "vae/*.json",
    "vae/*.safetensors",
    "transformer/*.json",
    "transformer/*.safetensors",
    "text_encoder/*.json",
    "text_encoder/*.safetensors",
)

_BASE = ModelSpec(
    name="qwen-image-2.1",
    family="qwen21",
    geometry="qwen-image-2.1",
    repo="Qwen/Qwen-Image-2.1",
    files=_FILES,
    licence="Qwen Research",
    description="Qwen-Image-2.1, 7B parameters: draws and edits",
    size_gb=33.0,
    fixed_gb=18.9,
    distilled=False,
    default_steps=40,
    useful_max_steps=100,
    min_steps=2,
    guidance_range=(1.0, 10.0),
    max_references=10,
    step_px=32,
    negative_prompt=True,
)

_TURBO = _BASE.model_copy(
    update={
        "name": "qwen-image-2.1-turbo",
        "geometry": "qwen-image-2.1-turbo",
        "repo": "Qwen/Qwen-Image-2.1-Turbo",
        "description": "Qwen-Image-2.1 Turbo, 7B parameters, distilled: draws and edits",
        "size_gb": 32.4,
        "fixed_gb": 18.2,
        "distilled": True,
        "default_steps": 8,
        "useful_max_steps": 16,
        "guidance_range": (1.0, 1.0),
        "negative_prompt": False,
    }
)

ROWS = (*at_load(_BASE, 4, 8), *at_load(_TURBO, 4, 8))
