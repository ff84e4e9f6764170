"""Decoding with less memory at the peak: in strips or, where a VAE does not support them, in tiles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mflux.models.common.vae.block_decoder import VAEBlockDecoder
from mflux.models.common.vae.tiling_config import TilingConfig

from engine.pipelines.common.strips import strip_decoder

ENCODED_IN_TILES = TilingConfig(vae_decode_tiles_per_dim=None)


@contextmanager
def low_memory_decoding(pipeline: Any, *, low_ram: bool) -> Iterator[None]:
    """Context for decoding one image. Strips use statistics of the whole image, so no seam shows; most families decode
    in strips anyway. Tiles are for VAEs without strips that mflux tiles by itself.
    """
    vae, tiling = getattr(pipeline, "vae", None), getattr(pipeline, "tiling_config", None)
    mode = getattr(vae, "decode_mode", None)
    decoder = getattr(vae, "decoder", None)
    in_strips = strip_decoder(vae) if low_ram and mode is None else None
    if low_ram and mode == VAEBlockDecoder.LEGACY:
        pipeline.vae.decode_mode = VAEBlockDecoder.LOW_MEMORY
    if in_strips is not None:
        pipeline.vae.decoder = in_strips
    if low_ram and mode is None and tiling is None and TilingConfig.may_tile_implicitly(pipeline):
        pipeline.tiling_config = TilingConfig() if in_strips is None else ENCODED_IN_TILES
    try:
        yield
    finally:
        if mode is not None:
            pipeline.vae.decode_mode = mode
        if in_strips is not None:
            pipeline.vae.decoder = decoder
        pipeline.tiling_config = tiling
