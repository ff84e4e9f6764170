"""Pipeline of Ideogram 4 as in mflux 0.24. It has two transformers, with and without the prompt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import mlx.core as mx
from mflux.models.ideogram4 import Ideogram4
from mflux.models.ideogram4.latent_creator import Ideogram4LatentCreator
from mflux.models.ideogram4.model.ideogram4_scheduler import Ideogram4Scheduler
from PIL.Image import Image

from engine.drawing.base import BackendError, Model, Watcher
from engine.pipelines.common.base import ImageTask, Pipeline
from engine.pipelines.common.lora_stack import LoraStack
from engine.pipelines.common.own_loop import OwnLoopPipeline
from engine.pipelines.common.pipeline import build_pipeline
from engine.pipelines.common.prompt_cache import BoundedPromptCache


def load(model: Model) -> Pipeline:
    """Load Ideogram 4 with mflux's default preset, at the requested guidance."""
    pipeline = build_pipeline(model, Ideogram4)
    pipeline.prompt_cache = BoundedPromptCache()
    _refuse_long_prompts(pipeline.tokenizers["ideogram4"])
    return Ideogram4Pipeline(
        pipeline,
        layout=Ideogram4Latents(),
        sigmas=sigmas,
        loras="ideogram4",
        transformer="conditional_transformer",
        arguments=lambda plan: {"guidance": plan.guidance, "warn_on_caption_issues": False},
    )


def _refuse_long_prompts(tokenizer: Any) -> None:
    """Refuse prompts over the token limit: mflux cuts none of this family, because half a caption is invalid."""
    tokenize_one = tokenizer.tokenize_one

    def tokenize(prompt: str, max_length: int | None = None) -> Any:
        try:
            return tokenize_one(prompt, max_length)
        except ValueError as error:
            text = f"The prompt is longer than the {tokenizer.max_length} tokens that the model takes."
            raise BackendError("bad_input", text) from error

    tokenizer.tokenize_one = tokenize


class Ideogram4Pipeline(OwnLoopPipeline):
    """Pipeline that applies LoRAs to both transformers."""

    def __init__(self, pipeline: Any, **kwargs: Any) -> None:
        super().__init__(pipeline, **kwargs)
        self._unconditional_loras = LoraStack(pipeline.unconditional_transformer, kwargs["loras"])

    def denoise(self, task: ImageTask, watcher: Watcher) -> Callable[[], Image]:
        self._unconditional_loras.apply(task.loras)
        return super().denoise(task, watcher)

    def save(self, folder: str) -> None:
        self._unconditional_loras.apply(())
        super().save(folder)


class Ideogram4Latents:
    """Latents (1, tokens, 128), shifted and scaled by constants; a token for 16x16 pixels. Sizes in pixels."""

    def create_noise(self, seed: int, height: int, width: int) -> mx.array:
        """Initial noise of mflux's loop."""
        return Ideogram4LatentCreator.create_noise(seed, height, width)

    def pack_latents(self, latents: mx.array, height: int, width: int) -> mx.array:
        """Latents of the VAE in the loop's layout: the inverse of mflux's `unpack_latents`."""
        rows, columns, channels = height // 16, width // 16, latents.shape[1]
        cells = latents.reshape(1, channels, rows, 2, columns, 2).transpose(0, 2, 4, 3, 5, 1)
        shift, scale = Ideogram4LatentCreator.get_latent_norm()
        return (cells.reshape(1, rows * columns, 4 * channels) - shift) / scale

    def unpack_latents(self, latents: mx.array, height: int, width: int) -> mx.array:
        """Latents of the loop in the VAE's layout."""
        return Ideogram4LatentCreator.unpack_latents(latents, height, width)


def sigmas(steps: int, width: int, height: int) -> list[float]:
    """Noise schedule. mflux counts the share of signal instead, and its steps from the last."""
    preset = Ideogram4Scheduler.get_preset(None)
    before, after = Ideogram4Scheduler.make_timesteps(
        num_steps=steps, height=height, width=width, mu=preset.mu, std=preset.std
    )
    return cast(list[float], [*(1.0 - before[::-1]).tolist(), 1.0 - float(after[0])])
