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
    default_steps=20,
    useful_max_steps=100,
    min_steps=2,
    default_guidance=3.5,
    guidance_range=(1.0, 10.0),
    negative_prompt=True,
)


def _edit(year_month: str, geometry: str) -> ModelSpec:
    return _IMAGE.model_copy(
        update={
            "name": f"qwen-image-edit-{year_month}",
            "geometry": geometry,
            "repo": f"Qwen/Qwen-Image-Edit-{year_month}",
            "description": f"Qwen-Image-Edit {year_month}, edits the pictures it follows, 20B parameters",
            "default_guidance": 2.5,
            "max_references": 3,
            "needs_reference": True,
            "init_image": False,
            "masks": False,
        }
    )


ROWS = tuple(
    row
    for spec in (_IMAGE, _edit("2509", "qwen-image-edit"), _edit("2511", "qwen-image-edit-2511"))
    for row in at_load(spec, 4, 8)
)
