"""A checkpoint without a VAE: loaded as any other, and drawn with where a VAE file is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.drawing.base import BackendError
from engine.pipelines.stable_diffusion.models import Model, Models, load_checkpoint
from engine.protocol import Sampling, input_name
from tests.support.stable_diffusion import toy_checkpoint, toy_vae


def test_checkpoint_without_a_vae_is_drawn_with_a_vae_file_only(tmp_path: Path) -> None:
    models = Models(Model(load_checkpoint(toy_checkpoint(tmp_path, "sd1", has_vae=False))))
    with pytest.raises(BackendError, match="VAE"):
        models.autoencoder(Sampling(), {})
    files = {input_name("vae", "v.safetensors"): str(toy_vae(tmp_path))}
    assert models.autoencoder(Sampling(vae="v.safetensors"), files).factor == 0.18215
    broken = {input_name("vae", "w.safetensors"): str(toy_checkpoint(tmp_path, "sd1", has_vae=False, name="w"))}
    with pytest.raises(BackendError, match=r"'w.safetensors' cannot be used"):
        models.autoencoder(Sampling(vae="w.safetensors"), broken)


def test_vae_is_the_refiners_once_it_goes_on_where_it_has_one(tmp_path: Path) -> None:
    models = Models(Model(load_checkpoint(toy_checkpoint(tmp_path, "sd1"))))
    for has_vae in (True, False):
        path = toy_checkpoint(tmp_path, "sd1", has_vae=has_vae, name=f"refiner-{has_vae}")
        models.prepare(Sampling(), (), {})
        assert models.autoencoder(Sampling(), {}).vae is models.base.parts.vae
        refiner = models.refiner("refiner", (), Sampling(), {input_name("model", "refiner"): str(path)})
        assert models.autoencoder(Sampling(), {}).vae is (refiner if has_vae else models.base).parts.vae
