"""Previews of the embedded model, which one matrix makes of its latents."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from engine.catalog import EMBEDDED_PATH
from tools.train_embedded.judging import evaluation_scenes, icon_scenes
from tools.train_embedded.scenes import Style, render


@pytest.fixture(scope="module")
def vae() -> Any:
    pytest.importorskip("mlx.core")
    from engine.pipelines.flux2_tiny import build

    return build(EMBEDDED_PATH).vae


def test_preview_of_finished_latents_shows_the_image(vae: Any, tmp_path: Path) -> None:
    import mlx.core as mx
    from mflux.models.flux2.latent_creator.flux2_latent_creator import Flux2LatentCreator

    from engine.pipelines.common.linear_preview import LinearPreview

    preview = LinearPreview.of(EMBEDDED_PATH, vae)
    assert preview is not None
    assert LinearPreview.of(tmp_path, vae) is None
    rng = Random(5)
    for scene in (*evaluation_scenes(3, 5), *icon_scenes(5, each=1)[:3]):
        drawn = np.asarray(render(scene, Style.sample(rng)).convert("RGB")).astype(np.float32)
        latents = vae.normalize_latents(vae.encode(mx.array(drawn.transpose(2, 0, 1)[None] / 127.5 - 1)))
        tokens = Flux2LatentCreator.pack_latents(Flux2LatentCreator.patchify_latents(latents))
        shown = preview.render(tokens, 8, 8)
        assert shown.size == (128, 128)
        assert np.abs(np.asarray(shown).astype(np.float32) - drawn).mean() < 6, "grey levels"
    wide = preview.render(mx.zeros((1, 6, 128)), 2, 3)
    assert wide.size == (48, 32)
    spoilt = preview.render(mx.full((1, 1, 128), 1e9), 1, 1)
    assert {*np.unique(np.asarray(spoilt))} <= {0, 255}
