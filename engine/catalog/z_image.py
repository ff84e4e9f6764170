"""Z-Image."""

from __future__ import annotations

from engine.catalog.spec import HubFiles, ModelSpec, at_load

_FILES = (
    "vae/*.safetensors",
    "vae/*.json",
    "transformer/*.safetensors",
    "transformer/*.json",
    "text_encoder/*.safetensors",
    "text_encoder/*.json",
    "tokenizer/*",
)

_TURBO = ModelSpec(
    name="z-image-turbo",
    family="z_image",
    geometry="z-image-turbo",
    repo="Tongyi-MAI/Z-Image-Turbo",
    files=_FILES,
    licence="Apache-2.0",
    description="Z-Image-Turbo, 6B parameters, distilled",
    size_gb=33.0,
    weights_gb=20.5,
    distilled=True,
    default_steps=9,
    useful_max_steps=16,
    guidance_range=(1.0, 1.0),
    max_sequence=512,
)

_BASE = ModelSpec(
    name="z-image",
    family="z_image",
    geometry="z-image",
    repo="Tongyi-MAI/Z-Image",
    files=_FILES,
    licence="Apache-2.0",
    description="Z-Image base, 6B parameters",
    size_gb=21.0,
    weights_gb=20.5,
    distilled=False,
    default_steps=50,
    useful_max_steps=100,
    default_guidance=4.0,
    guidance_range=(1.0, 10.0),
    max_sequence=512,
    negative_prompt=True,
)

_UNION = HubFiles(
    repo="alibaba-pai/Z-Image-Turbo-Fun-Controlnet-Union-2.1",
    patterns=("Z-Image-Turbo-Fun-Controlnet-Union-2.1.safetensors", "config.json"),
    saved_as="controlnet",
)


def _controlled(control: str, what: str) -> ModelSpec:
    return _TURBO.model_copy(
        update={
            "name": f"z-image-turbo-controlnet-{control}",
            "geometry": "z-image-turbo-controlnet-union-2.1",
            "also": (_UNION,),
            "description": f"Z-Image-Turbo with a ControlNet, follows {what} of a picture",
            "size_gb": _TURBO.size_gb + 6.7,
            "weights_gb": 27.2,
            "default_steps": 8,
            "control": control,
            "grey_edges": True,
            "init_image": False,
            "masks": False,
        }
    )


ROWS = tuple(
    row
    for spec in (_TURBO, _BASE, _controlled("canny", "the outlines"), _controlled("depth", "the depths"))
    for row in at_load(spec, 4, 8)
)
