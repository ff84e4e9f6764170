"""Pipelines of Qwen-Image-2.1 and its Turbo as in mflux 0.24. One set of weights generates and edits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mflux.models.qwen21.latent_creator.qwen_image21_latent_creator import QwenImage21LatentCreator
from mflux.models.qwen21.model.qwen21_scheduler import Qwen21TurboScheduler
from mflux.models.qwen21.variants.edit.qwen_image_21_edit import QwenImage21Edit
from PIL.Image import Image

from engine.drawing.base import Model
from engine.pipelines.common.base import Pipeline
from engine.pipelines.common.initial_latents import scheduler_sigmas
from engine.pipelines.common.own_loop import OwnLoopPipeline
from engine.pipelines.common.pipeline import build_pipeline
from engine.pipelines.common.prompt_cache import BoundedPromptCache


class Qwen21(QwenImage21Edit):
    """mflux pipeline whose `generate_image` accepts reference images, or none."""

    def generate_image(self, *, references: Sequence[Image] = (), **kwargs: Any) -> Any:
        return super().generate_image(image_paths=list(references), **kwargs)


def load(model: Model) -> Pipeline:
    """Load Qwen-Image-2.1. Turbo has its own noise schedule under the usual scheduler's name."""
    if model.spec.control is not None:
        from engine.pipelines import qwen21_controlled

        return qwen21_controlled.load(model, qwen21_pipeline)
    return qwen21_pipeline(build_pipeline(model, Qwen21), references=True)


def qwen21_pipeline(pipeline: Any, **more: Any) -> Pipeline:
    """Wrap any mflux pipeline of this family; `more` are further arguments of OwnLoopPipeline."""
    pipeline.prompt_cache = BoundedPromptCache()
    encode = pipeline.vae.encode
    pipeline.vae.encode = lambda pixels: encode(opaque(pixels))
    return OwnLoopPipeline(
        pipeline,
        layout=Qwen21Latents(),
        sigmas=scheduler_sigmas(pipeline, Qwen21TurboScheduler.for_model(pipeline.model_config, "linear")),
        loras="qwen21",
        # With guidance mflux needs a negative prompt, which may be empty.
        arguments=lambda plan: {"guidance": plan.guidance, "negative_prompt": plan.negative_prompt or ""},
        **more,
    )


def opaque(pixels: mx.array) -> mx.array:
    """Pixels (1, 3 or 4, rows, columns) from -1 to 1, with the alpha channel that the VAE needs."""
    return pixels if pixels.shape[1] == 4 else mx.concatenate([pixels, mx.ones_like(pixels[:, :1])], axis=1)


class Qwen21Latents:
    """Latents (1, tokens, 64); a token for 16x16 pixels. Sizes in pixels."""

    def create_noise(self, seed: int, height: int, width: int) -> mx.array:
        """Initial noise of mflux's loop."""
        mx.random.seed(seed)
        return QwenImage21LatentCreator.pack_latents(mx.random.normal((1, 64, 1, height // 16, width // 16)))

    def pack_latents(self, latents: mx.array, height: int, width: int) -> mx.array:
        """Latents of the VAE in the loop's layout."""
        return QwenImage21LatentCreator.pack_latents(latents)

    def unpack_latents(self, latents: mx.array, height: int, width: int) -> mx.array:
        """Latents of the loop in the VAE's layout."""
        return QwenImage21LatentCreator.unpack_latents(latents, height, width).astype(mx.float32)
