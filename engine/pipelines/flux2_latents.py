"""Latents of FLUX.2's VAE in the loops of other families: packed 2x2 and normalised. Sizes in pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mflux.models.flux2.latent_creator.flux2_latent_creator import Flux2LatentCreator


class PackedLatents:
    """Latents (1, 128, rows, columns), or (1, tokens, 128) with `tokens`; one for 16x16 pixels. `noise` is from
    mflux.
    """

    def __init__(self, vae: Any, noise: Callable[[int, int, int], mx.array], *, tokens: bool = False) -> None:
        self._vae = vae
        self._tokens = tokens
        self.create_noise = noise

    def pack_latents(self, latents: mx.array, height: int, width: int) -> mx.array:
        """Latents of the VAE in the loop's layout."""
        plain = latents[:, :, 0] if latents.ndim == 5 else latents
        packed = Flux2LatentCreator.patchify_latents(self._vae.normalize_latents(plain))
        return Flux2LatentCreator.pack_latents(packed) if self._tokens else packed

    def unpack_latents(self, latents: mx.array, height: int, width: int) -> mx.array:
        """Latents of the loop in the VAE's layout."""
        if self._tokens:
            rows, columns = height // 16, width // 16
            latents = latents.reshape(1, rows, columns, latents.shape[-1]).transpose(0, 3, 1, 2)
        return self._vae.unpack_packed_latents(latents)
