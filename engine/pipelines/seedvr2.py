"""Pipeline of the upscaler SeedVR2 as in mflux 0.24. Each block of its one step is reported as a step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import mlx.core as mx
from mflux.models.seedvr2.variants.upscale.seedvr2 import SeedVR2
from PIL.Image import Image

from engine.drawing.base import ImageSkipped, Model, Watcher
from engine.pipelines.common.base import Upscaler, key_of
from engine.pipelines.common.finite import check_finite, check_pixels
from engine.pipelines.common.pipeline import build_pipeline
from engine.protocol import Upscale


def load(model: Model) -> Upscaler:
    """Load SeedVR2 3B or 7B, by the geometry."""
    return SeedVR2Upscaler(build_pipeline(model, SeedVR2))


class SeedVR2Upscaler:
    """Upscaler that evaluates mflux's loop piece by piece: MLX is lazy, and would compute everything at the end."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline

    def upscale(self, plan: Upscale, image: str, watcher: Watcher) -> Image:
        with self._reporting_blocks(watcher), check_pixels():
            result = self._pipeline.generate_image(
                seed=key_of(plan.seed), image_path=image, resolution=plan.short_px, softness=plan.softness
            )
        return cast(Image, result.image)

    def save(self, folder: str) -> None:
        self._pipeline.save_model(folder)

    @contextmanager
    def _reporting_blocks(self, watcher: Watcher) -> Iterator[None]:
        vae, transformer = self._pipeline.vae, self._pipeline.transformer
        blocks = transformer.blocks
        transformer.blocks = [_reporting(block, number, len(blocks), watcher) for number, block in enumerate(blocks, 1)]
        vae.encode = _evaluated(vae.encode, watcher.check)
        vae.decode = _checking_latents(_evaluated(vae.decode, watcher.start_decoding))
        # With an image of one window mflux calls cumsum on an empty array, which on a CPU makes MLX 0.32 divide by zero
        # and abort.
        mx.cumsum, cumsum = _cumsum_of_any_size, mx.cumsum
        try:
            yield
        finally:
            mx.cumsum = cumsum
            transformer.blocks = blocks
            del vae.encode, vae.decode


_cumsum = mx.cumsum


def _cumsum_of_any_size(array: mx.array, *arguments: Any, **named: Any) -> mx.array:
    return _cumsum(array, *arguments, **named) if array.size else array


def _evaluated(piece: Callable[[mx.array], mx.array], before: Callable[[], None]) -> Callable[[mx.array], mx.array]:
    """The function for a tile, evaluated each time, so that a cancel can come between two tiles."""

    def call(array: mx.array) -> mx.array:
        before()
        result = piece(array)
        mx.eval(result)
        return result

    return call


def _checking_latents(decode: Callable[[mx.array], mx.array]) -> Callable[[mx.array], mx.array]:
    """The decoder, with a check of its latents. Raises: NotFinite."""

    def call(latents: mx.array) -> mx.array:
        check_finite(latents, "latents")
        return decode(latents)

    return call


def _reporting(block: Callable[..., Any], number: int, count: int, watcher: Watcher) -> Callable[..., Any]:
    """The block of the transformer, evaluated and reported as a step."""

    def call(**arguments: Any) -> Any:
        if number == 1:
            mx.eval(arguments["vid"])
        began = time.monotonic()
        result = block(**arguments)
        mx.eval([array for array in result if array is not None])
        # No block can be left out: after a skip the step is completed.
        with suppress(ImageSkipped):
            watcher.step(number, count, time.monotonic() - began, lambda: b"")
        return result

    return call
