"""Qwen-Image as mflux 0.24 spells it."""

from __future__ import annotations

from mflux.models.qwen.variants.txt2img.qwen_image import QwenImage
from mflux.models.qwen.weights.qwen_lora_mapping import QwenLoRAMapping

from engine.backends.base import Model
from engine.families.base import Painter
from engine.families.encoded import FewPrompts
from engine.families.painter import built
from engine.families.standard import StandardPainter


def load(model: Model) -> Painter:
    """Its prompts remembered as mflux does it, but not all."""
    pipeline = built(model, QwenImage)
    pipeline.prompt_cache = FewPrompts()
    return StandardPainter(
        pipeline,
        loras=QwenLoRAMapping.get_mapping(),
        scheduler="linear",
        arguments=lambda plan: {"guidance": plan.guidance, "negative_prompt": plan.negative_prompt},
    )
