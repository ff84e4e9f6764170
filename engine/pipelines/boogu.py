"""Pipeline of Boogu-Image Turbo as in mflux 0.24. Every step predicts the whole image and adds new noise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx
import numpy as np
from mflux.models.boogu import BooguImage

from engine.drawing.base import Model
from engine.pipelines.common.base import ImageTask, Pipeline
from engine.pipelines.common.denoising import DenoisingRun
from engine.pipelines.common.own_loop import OwnLoopPipeline
from engine.pipelines.common.pipeline import build_pipeline
from engine.pipelines.common.prompt_cache import PromptCache


def load(model: Model) -> Pipeline:
    """Load Boogu-Image, with a prompt cache, which mflux lacks for this family."""
    pipeline = build_pipeline(model, BooguImage)
    encode = pipeline._encode_instruction
    prompts = PromptCache(lambda text: (encode(text),))
    pipeline._encode_instruction = lambda prompt: prompts.encode(prompt)[0]
    return BooguPipeline(pipeline, layout=BooguLatents(), sigmas=sigmas, arguments=lambda plan: {})


class BooguPipeline(OwnLoopPipeline):
    """Pipeline that reads the denoised latents from the transformer's output: the loop only passes them on with new
    noise.
    """

    @contextmanager
    def _patch_loop(self, task: ImageTask, denoising: DenoisingRun) -> Iterator[None]:
        pipeline, transformer = self._pipeline, self._pipeline.transformer

        def predict(latents: mx.array, signal: mx.array, instruction: mx.array) -> mx.array:
            predicted = transformer(latents, signal, instruction)
            denoising.denoised = latents + (1.0 - signal) * predicted
            return predicted

        pipeline.transformer = predict
        try:
            with super()._patch_loop(task, denoising):
                yield
        finally:
            pipeline.transformer = transformer


class BooguLatents:
    """Latents (1, 16, rows, columns), in the VAE's and the loop's layout. Sizes in pixels."""

    def create_noise(self, seed: int, height: int, width: int) -> mx.array:
        """Initial noise of mflux's loop."""
        _, key = mx.random.split(mx.random.key(seed))
        return mx.random.normal((1, 16, height // 8, width // 8), key=key)

    def pack_latents(self, latents: mx.array, height: int, width: int) -> mx.array:
        """Latents of the VAE in the loop's layout, which is the same."""
        return latents[:, :, 0] if latents.ndim == 5 else latents

    def unpack_latents(self, latents: mx.array, height: int, width: int) -> mx.array:
        """Latents of the loop in the VAE's layout, which is the same."""
        return latents


def sigmas(steps: int, width: int, height: int) -> list[float]:
    """Noise schedule. mflux counts the share of signal instead, from 0.001 to 1."""
    return [*(1.0 - np.linspace(0.001, 1.0, steps + 1)[:-1]).tolist(), 0.0]
