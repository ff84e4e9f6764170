"""Pipelines of Krea 2 Turbo and Raw as in mflux 0.24. The sampler adds noise at every step."""

from __future__ import annotations

from typing import Any, TypeVar

from mflux.models.krea2 import Krea2
from mflux.models.krea2.latent_creator.krea2_latent_creator import Krea2LatentCreator

from engine.drawing.base import Model
from engine.pipelines.common.base import Pipeline
from engine.pipelines.common.initial_latents import scheduler_sigmas
from engine.pipelines.common.own_loop import OwnLoopPipeline
from engine.pipelines.common.pipeline import build_pipeline
from engine.pipelines.common.prompt_cache import BoundedPromptCache
from engine.prompt_tokens import language_encoder


def load(model: Model) -> Pipeline:
    """Load Krea 2 with mflux's default sampler."""
    if model.spec.control is not None:
        from engine.pipelines import krea2_controlled

        return krea2_controlled.load(model, krea2_pipeline)
    return krea2_pipeline(build_pipeline(model, Krea2), OwnLoopPipeline)


P = TypeVar("P", bound=OwnLoopPipeline)


def krea2_pipeline(pipeline: Any, wrapper: type[P]) -> P:
    """Wrap any mflux pipeline of this family in `wrapper`."""
    pipeline.prompt_cache = BoundedPromptCache()
    return wrapper(
        pipeline,
        layout=Krea2LatentCreator(),
        sigmas=scheduler_sigmas(pipeline, "er_sde"),
        loras="krea2",
        arguments=lambda plan: {"guidance": plan.guidance, "negative_prompt": plan.negative_prompt},
        encoder=language_encoder(pipeline.tokenizers["qwen3vl"]),
    )
