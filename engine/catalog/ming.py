"""Ming-Image. Sizes are estimated from its parameters."""

from __future__ import annotations

from engine.catalog.spec import ModelSpec, at_load

_DESIGN = ModelSpec(
    name="ming-image",
    family="ming",
    geometry="ming-image-design",
    repo="inclusionAI/Ming-Image-0.1-Design",
    files=(
        "mllm/*.safetensors",
        "mllm/*.json",
        "mllm/tokenizer*",
        "connector/*.safetensors",
        "connector/*.json",
        "mlp/*.safetensors",
        "mlp/*.json",
        "transformer/*.safetensors",
        "transformer/*.json",
        "vae/*.safetensors",
        "vae/*.json",
    ),
    licence="See its page on the hub",
    description="Ming-Image 0.1 Design, 6B parameters: posters, infographics and interfaces, from text only",
    size_gb=50.0,
    weights_gb=47.5,
    distilled=False,
    default_steps=12,
    useful_max_steps=50,
    guidance_range=(1.0, 10.0),
    max_sequence=1024,
    init_image=False,
    masks=False,
    lora=False,
)

ROWS = at_load(_DESIGN, 4, 8)
