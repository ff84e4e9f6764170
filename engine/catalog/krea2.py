"""Krea 2."""

from __future__ import annotations

from engine.catalog.spec import HubFiles, ModelSpec, at_load

_SHARED = ("vae/*.safetensors", "vae/*.json", "text_encoder/*.safetensors", "text_encoder/*.json", "tokenizer/**")

_TURBO = ModelSpec(
    name="krea-2",
    family="krea2",
    geometry="krea-2",
    repo="krea/Krea-2-Turbo",
    # Without the second copy of the transformer in diffusers' layout: 26 GB.
    files=("turbo.safetensors", *_SHARED),
    gated=True,
    licence="Krea 2 Community",
    description="Krea 2 Turbo, 12B parameters, distilled",
    size_gb=35.0,
    fixed_gb=9.0,
    distilled=True,
    default_steps=8,
    useful_max_steps=16,
    guidance_range=(1.0, 1.0),
    max_sequence=1024,
)

_RAW = _TURBO.model_copy(
    update={
        "name": "krea-2-raw",
        "geometry": "krea-2-raw",
        "repo": "krea/Krea-2-Raw",
        "files": ("transformer/*.safetensors", "transformer/*.json", "model_index.json", *_SHARED),
        "description": "Krea 2 Raw, 12B parameters: the base that LoRAs are trained on",
        "distilled": False,
        "default_steps": 28,
        "useful_max_steps": 100,
        "default_guidance": 4.5,
        "guidance_range": (1.0, 10.0),
        "negative_prompt": True,
    }
)

_DEPTH = _TURBO.model_copy(
    update={
        "name": "krea-2-controlnet-depth",
        "geometry": "krea-2-controlnet-depth",
        "also": (HubFiles(repo="Patil/Krea-2-depth-controlnet", patterns=("*.safetensors",), saved_as="controlnet"),),
        "description": "Krea 2 Turbo with a ControlNet, follows the depths of a picture",
        "size_gb": _TURBO.size_gb + 1.5,
        "fixed_gb": _TURBO.fixed_gb + 1.5,
        "control": "depth",
        "init_image": False,
        "masks": False,
    }
)

ROWS = tuple(row for spec in (_TURBO, _RAW, _DEPTH) for row in at_load(spec, 4, 8))
