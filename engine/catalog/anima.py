"""Anima: one repository of single files; each row needs its own transformer file."""

from __future__ import annotations

from engine.catalog.spec import HubFiles, ModelSpec, at_load

_TURBO = ModelSpec(
    name="anima-turbo",
    family="anima",
    geometry="anima-turbo",
    repo="circlestone-labs/Anima",
    files=(
        "split_files/diffusion_models/anima-turbo-v1.1.safetensors",
        "split_files/text_encoders/qwen_3_06b_base.safetensors",
        "split_files/vae/qwen_image_vae.safetensors",
    ),
    also=(
        HubFiles(
            repo="Qwen/Qwen3-0.6B-Base",
            patterns=("tokenizer.json", "tokenizer_config.json"),
            saved_as="tokenizer",
        ),
        HubFiles(
            repo="google/t5-v1_1-xxl",
            patterns=("spiece.model", "tokenizer_config.json", "special_tokens_map.json"),
            saved_as="tokenizer_2",
        ),
    ),
    licence="CircleStone Non-Commercial",
    description="Anima Turbo, 2B parameters, distilled: anime, illustration and other drawn art",
    size_gb=5.6,
    fixed_gb=2.4,
    distilled=True,
    default_steps=10,
    useful_max_steps=20,
    guidance_range=(1.0, 1.0),
    max_sequence=4096,
)


def _guided(name: str, file: str) -> ModelSpec:
    """Row of a model with guidance. `name` is mflux's name, `file` the transformer."""
    return _TURBO.model_copy(
        update={
            "name": name,
            "geometry": name,
            "files": (f"split_files/diffusion_models/{file}", *_TURBO.files[1:]),
            "description": _TURBO.description.replace("Turbo, 2B parameters, distilled", f"{name[6:]}, 2B parameters"),
            "distilled": False,
            "default_steps": 30,
            "useful_max_steps": 50,
            "default_guidance": 4.0,
            "guidance_range": (1.0, 10.0),
            "negative_prompt": True,
        }
    )


ROWS = (
    *at_load(_TURBO, 4, 8),
    *at_load(_guided("anima-aesthetic", "anima-aesthetic-v1.1.safetensors"), 4, 8),
    *at_load(_guided("anima-base", "anima-base-v1.0.safetensors"), 4, 8),
)
