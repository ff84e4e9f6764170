"""Z-Image and Z-Image-Turbo as mflux 0.24 spells them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mflux.models.z_image import ZImage

from engine.backends.base import Model
from engine.pipelines.common.base import Pipeline
from engine.pipelines.common.pipeline import built
from engine.pipelines.common.prompt_cache import Encoded
from engine.pipelines.common.standard_loop import StandardPipeline
from engine.prompt_tokens import of_language
from engine.protocol import Generate


def load(model: Model) -> Pipeline:
    """Its prompts remembered, which mflux does not do for this family."""
    if model.spec.control is not None:
        from engine.pipelines import z_image_controlled

        return z_image_controlled.load(model)
    pipeline = built(model, ZImage)
    pipeline._encode_prompts = _Prompts(pipeline._encode_prompts).pair
    return StandardPipeline(
        pipeline,
        loras="z_image",
        # What mflux picks where none is named.
        scheduler="flow_match_euler_discrete" if pipeline.model_config.supports_guidance else "linear",
        arguments=_arguments,
        encoder=of_language(pipeline.tokenizers["z_image"]),
    )


def _arguments(plan: Generate) -> dict[str, Any]:
    return {"guidance": plan.guidance, "negative_prompt": plan.negative_prompt}


class _Prompts:
    """In the place of the pipeline's `_encode_prompts`: remembers what is encoded."""

    def __init__(self, encode: Callable[..., tuple[mx.array, mx.array | None]]) -> None:
        self._encoded = Encoded(lambda text: encode(prompt=text, negative_prompt=None, guidance=0.0)[:1])

    def pair(self, *, prompt: str, negative_prompt: str | None, guidance: float) -> tuple[mx.array, mx.array | None]:
        """Embeddings of the prompt, and of the negative one where guidance wants it; a blank one counts as one."""
        (wanted,) = self._encoded.of(prompt)
        if guidance <= 1.0:
            return wanted, None
        (unwanted,) = self._encoded.of(negative_prompt if negative_prompt and negative_prompt.strip() else " ")
        return wanted, unwanted
