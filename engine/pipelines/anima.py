"""Pipelines of Anima Turbo, Aesthetic and Base as in mflux 0.24. The sampler adds noise at every step."""

from __future__ import annotations

from mflux.models.anima import Anima
from mflux.models.anima.latent_creator.anima_latent_creator import AnimaLatentCreator
from mflux.models.anima.weights.anima_weight_definition import AnimaWeightDefinition

from engine.drawing.base import Model
from engine.pipelines.common.base import Pipeline
from engine.pipelines.common.initial_latents import scheduler_sigmas
from engine.pipelines.common.own_loop import OwnLoopPipeline
from engine.pipelines.common.patching import patched
from engine.pipelines.common.pipeline import build_pipeline
from engine.pipelines.common.prompt_cache import BoundedPromptCache
from engine.prompt_tokens import StrictestEncoder, language_encoder


def load(model: Model) -> Pipeline:
    """Load Anima with mflux's default sampler."""
    tokenizers = AnimaWeightDefinition.source_tokenizers()
    # mflux takes a folder for a repository; tokenizers in the model's own folder it finds by itself.
    placed = dict(zip(model.also or tokenizers, tokenizers.values(), strict=True))
    with patched(AnimaWeightDefinition, "source_tokenizers", staticmethod(lambda: placed)):
        pipeline = build_pipeline(model, Anima)
    pipeline.prompt_cache = BoundedPromptCache()
    return OwnLoopPipeline(
        pipeline,
        layout=AnimaLatentCreator(),
        sigmas=scheduler_sigmas(pipeline, "anima"),
        loras="anima",
        arguments=lambda plan: {"guidance": plan.guidance, "negative_prompt": plan.negative_prompt},
        # The adapter turns Qwen's hidden states and T5's tokens into the conditioning.
        encoder=StrictestEncoder(*(language_encoder(pipeline.tokenizers[name]) for name in ("qwen3", "t5"))),
    )
