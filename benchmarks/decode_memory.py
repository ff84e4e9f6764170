"""Memory for decoding an image, by VAE, beyond its weights: at real widths with random weights, with and without
low_ram.

python -m benchmarks.decode_memory (256 pixels square)

python -m benchmarks.decode_memory --px 512

On a CPU everything is float32, and convolutions copy their input first: compare VAEs with each other, and the two
modes. Bytes per pixel on Apple silicon are in docs/memory.md.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import mlx.core as mx


def vaes() -> dict[str, tuple[Callable[[], Any], tuple[int, ...]]]:
    """VAE of some families, and the channels and pixels (edge) of its latents."""
    from mflux.models.fibo.model.fibo_vae.wan_2_2_vae import Wan2_2_VAE
    from mflux.models.flux.model.flux_vae.vae import VAE
    from mflux.models.flux2.model.flux2_vae.vae import Flux2VAE
    from mflux.models.qwen.model.qwen_vae.qwen_vae import QwenVAE
    from mflux.models.qwen21.model.qwen21_vae.vae import QwenImage21VAE

    return {
        "flux1, boogu": (VAE, (16, 8)),
        "qwen, anima, krea2, ming": (QwenVAE, (16, 8)),
        "qwen21": (lambda: QwenImage21VAE({"is_residual": True, "patch_size": None}), (64, 16)),
        "fibo": (Wan2_2_VAE, (48, 16)),
        "flux2 and others": (Flux2VAE, (32, 8)),
    }


def taken(vae: Any, latent: mx.array, *, low_ram: bool) -> int:
    """Bytes at the peak beyond the memory in use before."""
    from mflux.models.common.vae.vae_util import VAEUtil

    from engine.pipelines.common.low_memory import low_memory_decoding

    pipeline = SimpleNamespace(vae=vae, tiling_config=None)
    gc.collect()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    with low_memory_decoding(pipeline, low_ram=low_ram):
        mx.eval(VAEUtil.decode(vae=vae, latent=latent, tiling_config=pipeline.tiling_config))
    return int(mx.get_peak_memory() - before)


def main() -> None:
    from mflux.models.common.config.model_config import ModelConfig

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--px", type=int, default=256)
    px = parser.parse_args().px
    ModelConfig.precision = mx.float32
    for families, (build, (channels, cell_px)) in vaes().items():
        vae = build()
        mx.eval(vae.parameters())
        latent = mx.random.normal((1, channels, px // cell_px, px // cell_px))
        whole, sparing = (taken(vae, latent, low_ram=low_ram) / px**2 / 1e3 for low_ram in (False, True))
        print(f"{families:26} {whole:7.1f} kB a pixel, low_ram {sparing:7.1f}", flush=True)


if __name__ == "__main__":
    main()
