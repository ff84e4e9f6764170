"""ERNIE-Image and ERNIE-Image-Turbo as mflux 0.24 spells them."""

from __future__ import annotations

from mflux.models.ernie_image import ErnieImage
from mflux.models.ernie_image.latent_creator import ErnieLatentCreator

from engine.backends.base import Model
from engine.pipelines.common.base import Pipeline
from engine.pipelines.common.initial_latents import scheduled
from engine.pipelines.common.own_loop import OwnLoopPipeline
from engine.pipelines.common.pipeline import built
from engine.pipelines.common.prompt_cache import FewPrompts
from engine.pipelines.flux2_latents import PackedLatents
from engine.prompt_tokens import of_language


def load(model: Model) -> Pipeline:
    """With the schedule that mflux picks where none is named."""
    pipeline = built(model, ErnieImage)
    pipeline.prompt_cache = FewPrompts()
    return OwnLoopPipeline(
        pipeline,
        layout=PackedLatents(pipeline.vae, ErnieLatentCreator.create_noise),
        sigmas=scheduled(pipeline, "linear"),
        loras="ernie",
        arguments=lambda plan: {"guidance": plan.guidance, "negative_prompt": plan.negative_prompt},
        encoder=of_language(pipeline.tokenizers["ernie"]),
    )
