"""Qwen-Image-2.1. Its text encoder is never quantised. The size of the ControlNet is estimated from its blocks."""

from __future__ import annotations

from engine.catalog.spec import HubFiles, ModelSpec, at_load

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

_UNION = HubFiles(
    repo="alibaba-pai/Qwen-Image-2.1-Fun-Controlnet-Union", patterns=("*.safetensors",), saved_as="controlnet"
)
_UNION_GB = 7.5


def _controlled(spec: ModelSpec, control: str, what: str) -> ModelSpec:
    return spec.model_copy(
        update={
            "name": f"{spec.name}-controlnet-{control}",
            "geometry": f"{spec.geometry}-controlnet-union",
            "also": (_UNION,),
            "description": f"{spec.description.partition(':')[0]} with a ControlNet, follows {what} of a picture",
            "size_gb": spec.size_gb + _UNION_GB,
            "control": control,
            "init_image": False,
            "masks": False,
            "max_references": 0,
        }
    )


_MODELS = (
    _BASE,
    _TURBO,
    *(
        _controlled(spec, control, what)
        for spec in (_BASE, _TURBO)
        for control, what in (("canny", "the outlines"), ("depth", "the depths"))
    ),
)
ROWS = tuple(row for spec in _MODELS for row in at_load(spec, 4, 8))
