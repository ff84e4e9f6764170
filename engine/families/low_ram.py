"""Pictures with less memory at the peak, as mflux offers it: the VAE decodes in strips or in tiles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mflux.models.common.vae.block_decoder import VAEBlockDecoder
from mflux.models.common.vae.tiling_config import TilingConfig


@contextmanager
def sparing(pipeline: Any, *, low_ram: bool) -> Iterator[None]:
    """For the time of one picture. Strips know the whole picture's statistics, so no seam shows; most families decode
    so anyway. Tiles are for the VAEs that know no strips and that mflux would tile by itself.
    """
    mode = getattr(getattr(pipeline, "vae", None), "decode_mode", None)
    tiling = getattr(pipeline, "tiling_config", None)
    if low_ram and mode == VAEBlockDecoder.LEGACY:
        pipeline.vae.decode_mode = VAEBlockDecoder.LOW_MEMORY
    if low_ram and mode is None and tiling is None and TilingConfig.may_tile_implicitly(pipeline):
        pipeline.tiling_config = TilingConfig()
    try:
        yield
    finally:
        if mode is not None:
            pipeline.vae.decode_mode = mode
        pipeline.tiling_config = tiling
