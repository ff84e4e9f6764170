"""Krea 2 Turbo and Raw as mflux 0.24 spells them: its sampler adds noise of its own at every step."""

from __future__ import annotations

from mflux.models.krea2 import Krea2
from mflux.models.krea2.latent_creator.krea2_latent_creator import Krea2LatentCreator
from mflux.models.krea2.weights.krea2_lora_mapping import Krea2LoRAMapping

from engine.backends.base import Model
from engine.families.base import Painter
from engine.families.encoded import FewPrompts
from engine.families.own_loop import OwnLoopPainter
from engine.families.painter import built
from engine.families.start import scheduled


def load(model: Model) -> Painter:
    """With the sampler that mflux picks where none is named."""
    pipeline = built(model, Krea2)
    pipeline.prompt_cache = FewPrompts()
    return OwnLoopPainter(
        pipeline,
        layout=Krea2LatentCreator(),
        sigmas=scheduled(pipeline, "er_sde"),
        loras=Krea2LoRAMapping.get_mapping(),
        arguments=lambda plan: {"guidance": plan.guidance, "negative_prompt": plan.negative_prompt},
    )
