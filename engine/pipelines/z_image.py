"""Pipelines of Z-Image and Z-Image-Turbo as in mflux 0.24."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mflux.models.z_image import ZImage

from engine.drawing.base import Model
from engine.pipelines.common.base import Pipeline
from engine.pipelines.common.pipeline import build_pipeline
from engine.pipelines.common.prompt_cache import PromptCache
from engine.pipelines.common.standard_loop import StandardPipeline
from engine.prompt_tokens import language_encoder
from engine.protocol import Generate


def load(model: Model) -> Pipeline:
    """Load Z-Image, with a prompt cache, which mflux lacks for this family."""
    if model.spec.control is not None:
        from engine.pipelines import z_image_controlled

        return z_image_controlled.load(model)
    pipeline = build_pipeline(model, ZImage)
    pipeline._encode_prompts = _CachedPrompts(pipeline._encode_prompts).pair
    return StandardPipeline(
        pipeline,
        loras="z_image",
        # mflux's default scheduler.
        scheduler="flow_match_euler_discrete" if pipeline.model_config.supports_guidance else "linear",
        arguments=_arguments,
        encoder=language_encoder(pipeline.tokenizers["z_image"]),
    )


def _arguments(plan: Generate) -> dict[str, Any]:
    return {"guidance": plan.guidance, "negative_prompt": plan.negative_prompt}


class _CachedPrompts:
    """Replacement for the pipeline's `_encode_prompts` with a prompt cache."""

    def __init__(self, encode: Callable[..., tuple[mx.array, mx.array | None]]) -> None:
        self._cache = PromptCache(lambda text: encode(prompt=text, negative_prompt=None, guidance=0.0)[:1])

    def pair(self, *, prompt: str, negative_prompt: str | None, guidance: float) -> tuple[mx.array, mx.array | None]:
        """Embeddings of the prompt, and of the negative prompt where guidance is above 1; a blank one becomes a
        space.
        """
        (positive,) = self._cache.encode(prompt)
        if guidance <= 1.0:
            return positive, None
        (negative,) = self._cache.encode(negative_prompt if negative_prompt and negative_prompt.strip() else " ")
        return positive, negative
