"""SeedVR2 with random weights at toy width, through mflux's own classes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

BLOCKS = 3
CHANNELS = (32, 32, 32, 32)
TRANSFORMER = {"vid_dim": 64, "heads": 2, "head_dim": 32, "rope_dim": 32, "num_layers": BLOCKS, "mm_layers": 1}
"""As the 3B model but for sizes; blocks after the first share their weights between picture and text, as there."""


def _parts() -> dict[str, Any]:
    import mlx.core as mx
    from mflux.models.seedvr2.model.seedvr2_transformer.transformer import SeedVR2Transformer
    from mflux.models.seedvr2.model.seedvr2_vae.vae import SeedVR2VAE
    from mlx.utils import tree_map

    vae = SeedVR2VAE(block_out_channels=CHANNELS)
    # mflux begins its convolutions with zeros.
    vae.update(
        tree_map(lambda array: mx.random.normal(array.shape) * 0.1 if array.ndim > 1 else array, vae.parameters())
    )
    return {"vae": vae, "transformer": SeedVR2Transformer(**TRANSFORMER)}


@contextmanager
def toy_sized() -> Iterator[None]:
    """mflux builds SeedVR2 at toy width."""
    from mflux.models.seedvr2.seedvr2_initializer import SeedVR2Initializer

    def build(model: Any, model_config: Any) -> None:
        for name, part in _parts().items():
            setattr(model, name, part)

    with mock.patch.object(SeedVR2Initializer, "_init_models", staticmethod(build)):
        yield


def save_toy_seedvr2(folder: Path) -> None:
    """Build the parts with random weights and save them as mflux does."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    import mlx.core as mx
    from mflux.models.common.weights.saving.model_saver import ModelSaver
    from mflux.models.seedvr2.weights.seedvr2_weight_definition import SeedVR2WeightDefinition3B

    mx.random.seed(1)
    ModelSaver.save_model(type("Parts", (), _parts()), None, str(folder), SeedVR2WeightDefinition3B)
