"""FLUX.3 Klein. Weights in memory are estimated from the 9.2 GB that mflux saves at 8 bits."""

from __future__ import annotations

from engine.catalog.spec import ModelSpec, at_load

_DISTILLED = ModelSpec(
    name="flux3-klein",
    family="flux3",
    geometry="flux3-image-klein",
    repo="black-forest-labs/flux-3-image-klein",
    files=(
        "vae/*.safetensors",
        "vae/*.json",
        "transformer/*.safetensors",
        "transformer/*.json",
        "text_encoder/*.safetensors",
        "text_encoder/*.json",
        "text_encoder/merges.txt",
        "text_encoder/chat_template.jinja",
    ),
    gated=True,
    licence="FLUX Kommunity",
    description="FLUX.3 Klein distilled, 5.6B parameters: draws and edits",
    size_gb=20.5,
    weights_gb=17.3,
    distilled=True,
    default_steps=16,
    useful_max_steps=32,
    guidance_range=(1.0, 1.0),
    max_sequence=4096,
    max_references=10,
)

_BASE = _DISTILLED.model_copy(
    update={
        "name": "flux3-klein-base",
        "geometry": "flux3-image-klein-base",
        "repo": "black-forest-labs/flux-3-image-klein-base",
        "description": "FLUX.3 Klein base, 5.6B parameters: draws and edits",
        "distilled": False,
        "default_steps": 50,
        "useful_max_steps": 100,
        "default_guidance": 3.5,
        "guidance_range": (1.0, 10.0),
    }
)

ROWS = (*at_load(_DISTILLED, 4, 6, 8), *at_load(_BASE, 4, 6, 8))
