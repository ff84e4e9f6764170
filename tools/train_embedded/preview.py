"""Matrix for previews of the embedded model: python -m tools.train_embedded.preview [FOLDER]

Least squares from the latents of the model's own VAE to the pixels of images; no PyTorch is needed.
"""

import argparse
from pathlib import Path

import mlx.core as mx
import numpy as np

from engine.catalog import EMBEDDED_PATH
from engine.pipelines.common.linear_preview import FILE
from engine.pipelines.flux2_tiny import build

from .geometry import CELL_PX
from .latents import render_pool

SEED = 5_000_000
IMAGES = 400
BATCH = 20


def fitted(folder: Path) -> dict[str, mx.array]:
    """`weight` (32, 192) and `bias` (192) of the model in the folder."""
    images = render_pool(SEED, IMAGES).astype(np.float32) / 127.5 - 1
    vae, latents = build(folder).vae, []
    for start in range(0, IMAGES, BATCH):
        found = vae.encode(mx.array(images[start : start + BATCH].transpose(0, 3, 1, 2)))
        latents.append(np.asarray(found).transpose(0, 2, 3, 1))
    n, height, width, _ = images.shape
    grid = images.reshape(n, height // CELL_PX, CELL_PX, width // CELL_PX, CELL_PX, 3).transpose(0, 1, 3, 2, 4, 5)
    known = np.concatenate(latents).reshape(-1, latents[0].shape[-1])
    known = np.column_stack([known, np.ones(len(known))])
    solution, *_ = np.linalg.lstsq(known, grid.reshape(len(known), -1), rcond=None)
    return {"weight": mx.array(solution[:-1]).astype(mx.float16), "bias": mx.array(solution[-1]).astype(mx.float16)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=EMBEDDED_PATH)
    folder = parser.parse_args().folder
    (folder / FILE).parent.mkdir(exist_ok=True)
    mx.save_safetensors(str(folder / FILE), fitted(folder))


if __name__ == "__main__":
    main()
