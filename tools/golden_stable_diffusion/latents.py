"""python -m tools.golden_stable_diffusion.latents: latents resized by PyTorch, as by A1111's latent upscalers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

FILE = Path(__file__).parents[2] / "tests" / "golden" / "stable_diffusion" / "latents.npz"
SIZES = ((6, 8), (9, 13), (4, 5), (12, 16))
METHODS = (
    ("bilinear", False),
    ("bilinear", True),
    ("bicubic", False),
    ("bicubic", True),
    ("nearest", False),
    ("nearest-exact", False),
)


def main() -> None:
    latents = np.random.default_rng(0).standard_normal((1, 4, 6, 8)).astype(np.float32)
    found = {"latents": latents}
    for method, antialias in METHODS:
        for size in SIZES:
            options = {"mode": method, "antialias": antialias}
            resized = torch.nn.functional.interpolate(torch.tensor(latents), size=size, **options)
            found[f"{method} {antialias} {size[0]}x{size[1]}"] = resized.numpy()
    np.savez_compressed(FILE, **found)


if __name__ == "__main__":
    main()
