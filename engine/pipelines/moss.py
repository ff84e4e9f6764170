"""Pipeline of MOSS-Image as in mflux 0.24."""

from __future__ import annotations

from mflux.models.moss_image import MOSSImage
from mflux.models.moss_image.latent_creator.moss_image_latent_creator import MOSSImageLatentCreator

from engine.drawing.base import Model
from engine.pipelines.common.base import Pipeline
from engine.pipelines.common.initial_latents import scheduler_sigmas
from engine.pipelines.common.own_loop import OwnLoopPipeline
from engine.pipelines.common.pipeline import build_pipeline
from engine.pipelines.common.prompt_cache import BoundedPromptCache
from engine.pipelines.flux2_latents import PackedLatents
from engine.prompt_tokens import language_encoder


def load(model: Model) -> Pipeline:
    """Load MOSS-Image with the noise schedule that it was trained with."""
    pipeline = build_pipeline(model, MOSSImage)
    pipeline.prompt_cache = BoundedPromptCache()
    return OwnLoopPipeline(
        pipeline,
        layout=PackedLatents(pipeline.vae, MOSSImageLatentCreator.create_noise),
        sigmas=scheduler_sigmas(pipeline, "moss_image"),
        loras="moss",
        arguments=lambda plan: {"guidance": plan.guidance, "negative_prompt": plan.negative_prompt},
        encoder=language_encoder(pipeline.tokenizers["qwen3_5"]),
    )
