"""FLUX.1 schnell, dev and Krea as mflux 0.24 spells them."""

from __future__ import annotations

from mflux.models.common.config.model_config import AVAILABLE_MODELS
from mflux.models.flux.variants.txt2img.flux import Flux1
from mflux.models.flux.weights.flux_lora_mapping import FluxLoRAMapping

from engine.backends.base import Model
from engine.families.base import Painter
from engine.families.encoded import FewPrompts
from engine.families.standard import StandardPainter


def load(model: Model) -> Painter:
    """By its geometry in mflux's table: names are never guessed from, and paths are absolute."""
    config = AVAILABLE_MODELS[model.spec.geometry]
    pipeline = Flux1(model_path=model.path, quantize=model.quantize, model_config=config)
    pipeline.prompt_cache = FewPrompts()
    return StandardPainter(
        pipeline,
        loras=FluxLoRAMapping.get_mapping(),
        scheduler="linear",
        arguments=lambda plan: {"guidance": plan.guidance},
    )
