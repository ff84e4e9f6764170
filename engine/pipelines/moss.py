"""MOSS-Image as mflux 0.24 spells it."""

from __future__ import annotations

from mflux.models.moss_image import MOSSImage
from mflux.models.moss_image.latent_creator.moss_image_latent_creator import MOSSImageLatentCreator

from engine.backends.base import Model
from engine.pipelines.common.base import Pipeline
from engine.pipelines.common.initial_latents import scheduled
from engine.pipelines.common.own_loop import OwnLoopPipeline
from engine.pipelines.common.pipeline import built
from engine.pipelines.common.prompt_cache import FewPrompts
from engine.pipelines.flux2_latents import PackedLatents
from engine.prompt_tokens import of_language


def load(model: Model) -> Pipeline:
    """On the schedule it was trained with."""
    pipeline = built(model, MOSSImage)
    pipeline.prompt_cache = FewPrompts()
    return OwnLoopPipeline(
        pipeline,
        layout=PackedLatents(pipeline.vae, MOSSImageLatentCreator.create_noise),
        sigmas=scheduled(pipeline, "moss_image"),
        loras="moss",
        arguments=lambda plan: {"guidance": plan.guidance, "negative_prompt": plan.negative_prompt},
        encoder=of_language(pipeline.tokenizers["qwen3_5"]),
    )
