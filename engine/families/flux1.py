"""FLUX.1 schnell, dev and Krea as mflux 0.24 spells them."""

from __future__ import annotations

from mflux.models.flux.variants.txt2img.flux import Flux1
from mflux.models.flux.weights.flux_lora_mapping import FluxLoRAMapping

from engine.backends.base import Model
from engine.families.base import Painter
from engine.families.encoded import FewPrompts
from engine.families.painter import built
from engine.families.standard import StandardPainter


def load(model: Model) -> Painter:
    """Its prompts remembered as mflux does it, but not all."""
    pipeline = built(model, Flux1)
    pipeline.prompt_cache = FewPrompts()
    return StandardPainter(
        pipeline,
        loras=FluxLoRAMapping.get_mapping(),
        scheduler="linear",
        arguments=lambda plan: {"guidance": plan.guidance},
    )
