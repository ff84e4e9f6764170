"""SeedVR2 as mflux 0.24 spells it: one step through many blocks, which is told and stopped block by block."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import mlx.core as mx
from mflux.models.seedvr2.variants.upscale.seedvr2 import SeedVR2
from PIL.Image import Image

from engine.backends.base import ImageSkipped, Model, Watcher
from engine.pipelines.common.base import Upscaler, key_of
from engine.pipelines.common.finite import check_finite, check_pixels
from engine.pipelines.common.pipeline import build_pipeline
from engine.protocol import Upscale


def load(model: Model) -> Upscaler:
    """3B or 7B, as the geometry says."""
    return SeedVR2Upscaler(build_pipeline(model, SeedVR2))


class SeedVR2Upscaler:
    """mflux's own loop, evaluated piece by piece: MLX is lazy, and would do all of it at once at the end."""

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
        vae.decode = _checking_latents(_evaluated(vae.decode, watcher.decoding))
        # A picture of one window has mflux sum up nothing, which on a CPU MLX 0.32 divides by: the process dies.
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
    """Of a tile: evaluated alone, so that a cancel comes between two."""

    def call(array: mx.array) -> mx.array:
        before()
        result = piece(array)
        mx.eval(result)
        return result

    return call


def _checking_latents(decode: Callable[[mx.array], mx.array]) -> Callable[[mx.array], mx.array]:
    """A decoder that takes nothing but numbers. Raises: NotFinite."""

    def call(latents: mx.array) -> mx.array:
        check_finite(latents, "latents")
        return decode(latents)

    return call


def _reporting(block: Callable[..., Any], number: int, count: int, watcher: Watcher) -> Callable[..., Any]:
    """A block of the transformer: evaluated, then told as a step."""

    def call(**arguments: Any) -> Any:
        if number == 1:
            mx.eval(arguments["vid"])
        began = time.monotonic()
        result = block(**arguments)
        mx.eval([array for array in result if array is not None])
        # Nothing of it can be left out: a skip goes on to the end.
        with suppress(ImageSkipped):
            watcher.step(number, count, time.monotonic() - began, lambda: b"")
        return result

    return call
