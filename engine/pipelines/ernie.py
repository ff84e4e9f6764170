"""Pipelines of ERNIE-Image and ERNIE-Image-Turbo as in mflux 0.24."""

from __future__ import annotations

from mflux.models.ernie_image import ErnieImage
from mflux.models.ernie_image.latent_creator import ErnieLatentCreator

from engine.drawing.base import Model
from engine.pipelines.common.base import Pipeline
from engine.pipelines.common.initial_latents import scheduler_sigmas
from engine.pipelines.common.own_loop import OwnLoopPipeline
from engine.pipelines.common.pipeline import build_pipeline
from engine.pipelines.common.prompt_cache import BoundedPromptCache
from engine.pipelines.flux2_latents import PackedLatents
from engine.prompt_tokens import language_encoder


def load(model: Model) -> Pipeline:
    """Load ERNIE-Image with mflux's default noise schedule."""
    pipeline = build_pipeline(model, ErnieImage)
    pipeline.prompt_cache = BoundedPromptCache()
    return OwnLoopPipeline(
        pipeline,
        layout=PackedLatents(pipeline.vae, ErnieLatentCreator.create_noise),
        sigmas=scheduler_sigmas(pipeline, "linear"),
        loras="ernie",
        arguments=lambda plan: {"guidance": plan.guidance, "negative_prompt": plan.negative_prompt},
        encoder=language_encoder(pipeline.tokenizers["ernie"]),
    )
