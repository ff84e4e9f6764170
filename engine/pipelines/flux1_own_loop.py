"""Base class of FLUX.1's pipelines that make their noise themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mflux.models.flux.latent_creator.flux_latent_creator import FluxLatentCreator

from engine.pipelines.common.base import ImageTask
from engine.pipelines.common.initial_latents import scheduler_sigmas
from engine.pipelines.common.own_loop import OwnLoopPipeline
from engine.pipelines.common.prompt_cache import BoundedPromptCache
from engine.prompt_tokens import Encoder, language_encoder

SCHEDULER = "linear"


class Flux1Pipeline(OwnLoopPipeline):
    """Pipeline of FLUX.1 with a loop of its own. `image_arguments` are the image arguments from a task."""

    def __init__(self, pipeline: Any, image_arguments: Callable[[ImageTask], Mapping[str, Any]]) -> None:
        pipeline.prompt_cache = BoundedPromptCache()
        super().__init__(
            pipeline,
            layout=FluxLatentCreator,
            sigmas=scheduler_sigmas(pipeline, SCHEDULER),
            arguments=lambda plan: {"guidance": plan.guidance, "scheduler": SCHEDULER},
            loras="flux1",
            image_arguments=image_arguments,
            encoder=long_encoder(pipeline),
        )


def long_encoder(pipeline: Any) -> Encoder:
    """T5, which the transformer uses word for word. CLIP's 77 tokens are only a summary: T5 reads what they miss."""
    return language_encoder(pipeline.tokenizers["t5"])
