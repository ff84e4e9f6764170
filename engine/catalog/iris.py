"""Iris-3B. Its text encoder is in another repository. Memory is estimated from what mflux saves at 8 bits."""

from __future__ import annotations

from engine.catalog.spec import HubFiles, ModelSpec, at_load

_TURBO = ModelSpec(
    name="iris-3b",
    family="iris",
    geometry="iris-3b",
    repo="speridlabs/iris-3b",
    files=("turbo/model.safetensors",),
    also=(
        HubFiles(
            repo="Qwen/Qwen3-VL-4B-Instruct",
            patterns=("model-*.safetensors", "model.safetensors.index.json", "tokenizer*", "vocab.json", "merges.txt"),
            saved_as="text_encoder",
        ),
    ),
    licence="Apache-2.0",
    description="Iris-3B Turbo, distilled to four steps: draws pixels themselves, from text only",
    size_gb=14.5,
    weights_gb=14.0,
    distilled=True,
    default_steps=4,
    useful_max_steps=4,
    min_steps=4,
    guidance_range=(1.0, 1.0),
    max_sequence=300,
    init_image=False,
    masks=False,
    lora=False,
)

_BASE = _TURBO.model_copy(
    update={
        "name": "iris-3b-base",
        "geometry": "iris-3b-base",
        "files": ("model.safetensors",),
        "description": "Iris-3B base: draws pixels themselves, from text only",
        "size_gb": 20.0,
        "distilled": False,
        "default_steps": 100,
        "useful_max_steps": 100,
        "min_steps": 1,
        "default_guidance": 3.0,
        "guidance_range": (1.0, 10.0),
        "negative_prompt": True,
    }
)

ROWS = (*at_load(_TURBO, 4, 8), *at_load(_BASE, 4, 8))
