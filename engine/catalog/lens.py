"""Lens: a transformer, a quantised text encoder and the VAE of FLUX.2, each from a repository of its own."""

from __future__ import annotations

from engine.catalog.spec import HubFiles, ModelSpec, at_load

_TURBO = ModelSpec(
    name="lens-turbo",
    family="lens",
    geometry="lens-turbo",
    repo="Comfy-Org/Lens",
    files=("diffusion_models/lens_turbo_bf16.safetensors",),
    also=(
        HubFiles(repo="mlx-community/gpt-oss-20b-MXFP4-Q8", patterns=("*.safetensors", "*.json", "*.jinja")),
        HubFiles(repo="black-forest-labs/FLUX.2-klein-4B", patterns=("vae/*.safetensors", "vae/*.json")),
    ),
    licence="MIT",
    description="Microsoft Lens Turbo, 3.8B parameters, distilled",
    size_gb=20.0,
    fixed_gb=12.3,
    distilled=True,
    default_steps=4,
    useful_max_steps=8,
    guidance_range=(1.0, 1.0),
    max_sequence=512,
    lora=False,
    copies=False,
)

ROWS = at_load(_TURBO, 4, 8)
