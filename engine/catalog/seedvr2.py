"""SeedVR2, an upscaler. It has one denoising step; the steps reported are the transformer blocks of that step."""

from __future__ import annotations

from engine.catalog.spec import ModelSpec, at_load

_VAE = "ema_vae_fp16.safetensors"


def _seedvr2(name: str, size: str, size_gb: float, blocks: int) -> ModelSpec:
    return ModelSpec(
        name=name,
        family="seedvr2",
        geometry=f"seedvr2-{size}",
        task="upscale",
        repo="numz/SeedVR2_comfyUI",
        files=(f"seedvr2_ema_{size}_fp16.safetensors", _VAE),
        licence="Apache-2.0",
        description=f"SeedVR2 {size.upper()}: draws pictures larger, with the details they lack",
        size_gb=size_gb,
        distilled=True,
        default_steps=blocks,
        useful_max_steps=blocks,
        guidance_range=(1.0, 1.0),
        lora=False,
        masks=False,
        init_image=False,
    )


ROWS: tuple[ModelSpec, ...] = (
    _seedvr2("seedvr2", "3b", 7.3, 32),
    *at_load(_seedvr2("seedvr2-3b", "3b", 7.3, 32), 4, 8),
    *at_load(_seedvr2("seedvr2-7b", "7b", 17.0, 36), 4, 8),
)
