"""FIBO, the first version."""

from __future__ import annotations

from engine.catalog.spec import ModelSpec, at_load

_BASE = ModelSpec(
    name="fibo",
    family="fibo",
    geometry="fibo",
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
    default_guidance=5.0,
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

_EDIT = _BASE.model_copy(
    update={
        "name": "fibo-edit",
        "geometry": "fibo-edit",
        "repo": "briaai/Fibo-Edit",
        "description": "FIBO Edit, 8B parameters: edits one picture, from JSON captions or a plain instruction",
        "default_guidance": 3.5,
        "init_image": False,
        "masks": False,
        "max_references": 1,
        "needs_reference": True,
    }
)

_MATTE = _EDIT.model_copy(
    update={
        "name": "fibo-edit-rmbg",
        "geometry": "fibo-edit-rmbg",
        "repo": "briaai/Fibo-Edit-RMBG",
        "description": "FIBO Edit RMBG, 8B parameters: draws what is in front of a picture's background in white",
        "default_steps": 10,
        "default_guidance": 1.0,
    }
)

ROWS = tuple(row for spec in (_BASE, _LITE, _EDIT, _MATTE) for row in at_load(spec, 4, 8))
