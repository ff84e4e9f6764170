"""FLUX.1."""

from __future__ import annotations

from engine.catalog.spec import ModelSpec, at_load

_FILES = (
    "text_encoder/*.safetensors",
    "text_encoder/*.json",
    "text_encoder_2/*.safetensors",
    "text_encoder_2/*.json",
    "transformer/*.safetensors",
    "transformer/*.json",
    "vae/*.safetensors",
    "vae/*.json",
    "tokenizer/**",
    "tokenizer_2/**",
)

_SCHNELL = ModelSpec(
    name="flux1-schnell",
    family="flux1",
    geometry="schnell",
    repo="black-forest-labs/FLUX.1-schnell",
    files=_FILES,
    gated=True,
    licence="Apache-2.0",
    description="FLUX.1 schnell, 12B parameters, distilled",
    size_gb=34.0,
    distilled=True,
    default_steps=4,
    useful_max_steps=8,
    guidance_range=(1.0, 1.0),
    max_sequence=256,
)

_DEV = ModelSpec(
    name="flux1-dev",
    family="flux1",
    geometry="dev",
    repo="black-forest-labs/FLUX.1-dev",
    files=_FILES,
    gated=True,
    licence="FLUX Non-Commercial",
    description="FLUX.1 dev, 12B parameters",
    size_gb=34.0,
    distilled=False,
    default_steps=25,
    useful_max_steps=100,
    default_guidance=3.5,
    max_sequence=512,
)

_KREA = _DEV.model_copy(
    update={
        "name": "flux1-krea-dev",
        "geometry": "krea-dev",
        "repo": "black-forest-labs/FLUX.1-Krea-dev",
        "description": "FLUX.1 Krea dev, 12B parameters",
        "default_guidance": 4.5,
    }
)

ROWS = tuple(row for spec in (_SCHNELL, _DEV, _KREA) for row in at_load(spec, 4, 8))
